// Names that need demangling: namespaces, overloads, templates, operators, lambdas.
#include <map>
#include <string>
#include <vector>

namespace shop {
template <typename T> struct Basket {
	std::vector<T> items;
	__attribute__((noinline)) int total(const std::map<std::string, int> &prices) const;
	__attribute__((noinline)) Basket &operator+=(T item)
	{
		items.push_back(item);
		return *this;
	}
};

template <typename T> int Basket<T>::total(const std::map<std::string, int> &prices) const
{
	int sum = 0;
	for (const auto &item : items) {
		auto found = prices.find(item);
		sum += found == prices.end() ? 0 : found->second;
	}
	return sum;
}

template <typename F> __attribute__((noinline)) int twice(F call) { return call() + call(); }
} // namespace shop

int main(int argc, char **)
{
	shop::Basket<std::string> basket;
	basket += std::string(argc, 'a');
	return shop::twice([&] { return basket.total({{"a", argc}}); });
}
