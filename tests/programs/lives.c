/* Burns CPU before a fork, in the child, and after an exec of itself: three processes to tell apart, one program. */
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CPU_S 0.5

static double used_s(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return used.tv_sec + used.tv_nsec / 1e9;
}

#define BURN(name) \
	__attribute__((noinline)) int name(void) \
	{ \
		volatile long sum = 0; \
		for (double end_s = used_s() + CPU_S; used_s() < end_s;) \
			for (long i = 0; i < 1000000; i++) \
				sum += i; \
		return sum == 42; \
	}

BURN(before_fork)
BURN(in_child)
BURN(after_exec)

int main(int argc, char **argv)
{
	if (argc > 1)
		return after_exec();
	before_fork();
	if (!fork())
		_exit(in_child());
	wait(NULL);
	return execl(argv[0], argv[0], "again", NULL);
}
