/*
 * Burns CPU in grind, called by serve, called by main: "spin [seconds [threads]]", 0 seconds for ever.
 * Further threads burn theirs in help.
 */
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static double limit_s;

static double now_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static double end_s;

__attribute__((noinline)) long grind(long rounds)
{
	volatile long sum = 0;

	for (long i = 0; i < rounds; i++)
		sum += i * i;
	return sum;
}

__attribute__((noinline)) long serve(void)
{
	long sum = 0;

	while (limit_s == 0 || now_s() < end_s)
		sum += grind(2000000);
	return sum;
}

__attribute__((noinline)) long assist(long rounds)
{
	volatile long sum = 1;

	for (long i = 0; i < rounds; i++)
		sum += sum >> 1 ^ i;
	return sum;
}

static void *help(void *unused)
{
	volatile long sum = 0;

	while (limit_s == 0 || now_s() < end_s)
		sum += assist(2000000);
	return unused;
}

int main(int argc, char **argv)
{
	int threads = argc > 2 ? atoi(argv[2]) : 1;
	pthread_t thread;

	limit_s = argc > 1 ? atof(argv[1]) : 0;
	end_s = now_s() + limit_s;
	for (int i = 1; i < threads; i++)
		pthread_create(&thread, NULL, help, NULL);
	return serve() == 42;
}
