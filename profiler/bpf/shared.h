/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Everything that crosses from the kernel to user space. profiler/layout.py mirrors each struct as a numpy dtype of
 * the same name; tests/unit/profiler/test_layout.py compiles this file and compares every offset.
 *
 * Kernel trap, said once: our tgid is what user space calls a process id, our tid is the kernel's pid.
 *
 * Rings: one producer (the program on that CPU), one consumer (the drain). Positions only grow; the slot is the
 * position modulo the size. The producer writes the record, then the head; the consumer copies, then moves the tail.
 */
#ifndef COPROF_SHARED_H
#define COPROF_SHARED_H

#define COPROF_COMM_LEN 16
#define COPROF_MAX_FRAMES 127 /* of each part: the default of kernel.perf_event_max_stack */
#define COPROF_PATH_LEN 1000

/*
 * Slots per CPU, powers of two. At 199 Hz the sample ring holds 10 s; drains come four times a second.
 * Addresses of stacks lie in banks of one map value each. A stack that begins near the end of a bank runs on into
 * the bank's slack and the next begins as far into the next bank, so that no stack is ever split.
 * Clang needs 10 us for each byte of a map's value type, which is why no whole ring is one value.
 */
#define COPROF_SAMPLE_SLOTS 2048
#define COPROF_STACK_SLOTS 2048
#define COPROF_BANKS 16
#define COPROF_BANK_WORDS 2048 /* 16 banks of 2,048 addresses: 256 KiB, some 1,000 distinct stacks of 30 frames */
#define COPROF_BANK_SLACK 256
#define COPROF_CGROUP_SLOTS 256 /* one ring for the machine */

struct coprof_sample {
	__u64 ts_ns; /* CLOCK_MONOTONIC */
	__u64 cgroup_id;
	__u64 process_start_ns; /* start of the group leader since boot: tells reused pids apart */
	__u64 stack_id;
	__u32 tgid;
	__u32 tid;
	__u32 exec_id; /* grows with every exec */
	__u32 cpu;
	char comm[COPROF_COMM_LEN];
};

/* How the user part of a stack ended; values of profiler.window.UserEnd. */
enum coprof_user_end {
	COPROF_USER_NONE = 0,
	COPROF_USER_FRAME_POINTER = 1,
	COPROF_USER_TRUNCATED = 2,
	COPROF_USER_FAILED = 3,
	COPROF_USER_LOST = 4,
};

/* A distinct stack: its addresses lie in the word banks from position first_word on, kernel part first, leaf first. */
struct coprof_stack {
	__u64 stack_id;
	__u64 first_word;
	__u64 process_start_ns;
	__u32 tgid; /* 0 when there is no user part: equal in every process */
	__u32 exec_id;
	__u16 kernel_depth;
	__u16 user_depth;
	__u32 user_end;
};

struct coprof_bank {
	__u64 words[COPROF_BANK_WORDS + COPROF_BANK_SLACK];
};

/* Positions and counters of one CPU. Heads and counters belong to the kernel, tails to user space. */
struct coprof_cpu {
	__u64 sample_head;
	__u64 sample_tail;
	__u64 stack_head;
	__u64 stack_tail;
	__u64 word_head;
	__u64 word_tail;
	__u64 last_tick_ns;
	__u64 ticks;
	__u64 idle_ticks;
	__u64 lost_ring_full;
	__u64 lost_stack_full;
	__u64 stack_collisions;
	__u64 stack_table_full;
	__u64 kernel_stack_errors;
	__u64 user_stack_errors;
	__u64 truncated_stacks;
};

/* What user space tells the sampler. */
struct coprof_control {
	__u64 generation; /* a stack is stored once per generation */
};

enum coprof_cgroup_action {
	COPROF_CGROUP_MADE = 1,
	COPROF_CGROUP_REMOVED = 2,
	COPROF_CGROUP_RENAMED = 3,
};

struct coprof_cgroup_event {
	__u64 ts_ns;
	__u64 kernel_id;
	__u32 action;
	__u32 reserved;
	char path[COPROF_PATH_LEN];
};

struct coprof_cgroup_ring {
	__u64 head;
	__u64 tail;
	__u64 lost;
};

_Static_assert(sizeof(struct coprof_sample) == 64, "sample: one cache line");
_Static_assert(sizeof(struct coprof_bank) == 18432, "bank");
_Static_assert(sizeof(struct coprof_stack) == 40, "stack");
_Static_assert(sizeof(struct coprof_cpu) == 128, "cpu: two cache lines");
_Static_assert(sizeof(struct coprof_control) == 8, "control");
_Static_assert(sizeof(struct coprof_cgroup_event) == 1024, "cgroup event");
_Static_assert(sizeof(struct coprof_cgroup_ring) == 24, "cgroup ring");

#endif
