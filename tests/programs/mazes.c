/* Never the same stack for long: 80 calls deep, left or right by the bits of a number that changes all the time. */
#include <stdint.h>

__attribute__((noinline)) static long burn(void)
{
	volatile long sum = 0;

	for (long i = 0; i < 50000; i++)
		sum += i;
	return sum;
}

long left(uint64_t bits, int depth);
long right(uint64_t bits, int depth);

static long turn(uint64_t bits, int depth)
{
	if (!depth)
		return burn();
	bits = bits >> 1 | bits << 63;
	return bits & 1 ? left(bits, depth - 1) : right(bits, depth - 1);
}

__attribute__((noinline)) long left(uint64_t bits, int depth)
{
	return turn(bits, depth) + 1;
}

__attribute__((noinline)) long right(uint64_t bits, int depth)
{
	return turn(bits, depth) + 2;
}

int main(void)
{
	long sum = 0;

	for (uint64_t number = 1; number; number = number * 6364136223846793005ULL + 1442695040888963407ULL)
		sum += left(number, 80);
	return sum == 42;
}
