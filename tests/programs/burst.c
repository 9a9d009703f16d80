/* Runs 30 processes one after the other, each gone before anybody could look at it: 30 ms of CPU in short_lived. */
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

__attribute__((noinline)) int short_lived(void)
{
	volatile long sum = 0;
	struct timespec used = { 0 };

	while (used.tv_nsec < 30000000) {
		for (long i = 0; i < 100000; i++)
			sum += i;
		clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	}
	return sum == 42;
}

int main(void)
{
	for (int i = 0; i < 30; i++) {
		if (!fork())
			_exit(short_lived());
		wait(NULL);
	}
	return 0;
}
