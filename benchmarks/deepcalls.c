// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * A CPU load with deep, varied call chains: 64 functions that call each other in an order drawn from a fixed set of
 * routes, 8 to 40 calls deep, with work at every depth. Built with frame pointers, so that every profiler sees all of
 * it. Counts finished routes in the file named by its first argument, eight bytes, mapped; ends with its parent.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#define ROUTES 512 /* distinct call chains; with the functions of work on top, some thousand distinct stacks */
#define LEAST_DEPTH 8
#define DEPTHS 33
#define ROUNDS_A_CALL 400

typedef uint64_t step(uint64_t route, unsigned depth);

static step *const steps[64];

/* xorshift64: the next step of a route. */
static inline uint64_t advance(uint64_t state)
{
	state ^= state << 13;
	state ^= state >> 7;
	return state ^ state << 17;
}

static __attribute__((noinline)) uint64_t churn(uint64_t state)
{
	for (int i = 0; i < ROUNDS_A_CALL; i++)
		state = advance(state);
	return state;
}

/* Work on both sides of the call, which also keeps it from becoming a jump. */
#define STEP(n)                                                                                 \
	static __attribute__((noinline)) uint64_t step_##n(uint64_t route, unsigned depth)      \
	{                                                                                       \
		uint64_t next = advance(route + n);                                             \
		uint64_t below = depth ? steps[next & 63](next, depth - 1) : churn(next);        \
		return churn(below ^ n);                                                        \
	}
#define STEPS_8(n) STEP(n##0) STEP(n##1) STEP(n##2) STEP(n##3) STEP(n##4) STEP(n##5) STEP(n##6) STEP(n##7)
#define NAMES_8(n) step_##n##0, step_##n##1, step_##n##2, step_##n##3, step_##n##4, step_##n##5, step_##n##6, step_##n##7

/* Octal digits: 01 to 07 are octal constants as well, and 1##0 to 7##7 need only differ. */
STEPS_8(0) STEPS_8(1) STEPS_8(2) STEPS_8(3) STEPS_8(4) STEPS_8(5) STEPS_8(6) STEPS_8(7)

static step *const steps[64] = {
	NAMES_8(0), NAMES_8(1), NAMES_8(2), NAMES_8(3), NAMES_8(4), NAMES_8(5), NAMES_8(6), NAMES_8(7),
};

int main(int argc, char **argv)
{
	int fd = argc == 2 ? open(argv[1], O_RDWR) : -1;
	volatile uint64_t *finished = mmap(NULL, sizeof(*finished), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	uint64_t state = 88172645463325252ULL;

	if (finished == MAP_FAILED)
		return EXIT_FAILURE;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (state) { /* never 0, which the compiler does not know */
		state = advance(state);
		uint64_t route = advance(state % ROUTES + 1);
		state ^= steps[route & 63](route, LEAST_DEPTH + route % DEPTHS) & 1;
		++*finished;
	}
	return EXIT_SUCCESS;
}
