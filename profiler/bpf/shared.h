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

/*
 * Run-queue accounting. A slot stands for who runs or waits: a cgroup, or one of the fixed groups below COPROF_SLOT_FIRST.
 */
#define COPROF_SLOTS 2048 /* power of two; by CPU and slot we keep 8 bytes: 2 MiB at 128 CPUs */
#define COPROF_SLOT_FIRST 16 /* below are the fixed ones */
#define COPROF_PAIRS 16384
#define COPROF_CLASSES 7
#define COPROF_CAUSES 16 /* classes, self and throttled; room up to a power of two */
#define COPROF_KINDS 4
#define COPROF_WAITING_SET 8 /* different cgroups that wait on one CPU at once */
#define COPROF_SLICES 16 /* last run slices of a CPU; the verifier walks them one by one */
#define COPROF_SETTLEMENTS 64 /* between two drains of a CPU */
#define COPROF_BUCKETS 256

enum coprof_fixed_slot {
	COPROF_SLOT_IDLE = 0,
	COPROF_SLOT_OVERFLOW = 1, /* cgroups that found no free slot */
	COPROF_SLOT_STEAL = 2,
	COPROF_SLOT_IRQ = 3,
	COPROF_SLOT_KWORKER = 4,
	COPROF_SLOT_KSOFTIRQD = 5,
	COPROF_SLOT_MIGRATION = 6,
	COPROF_SLOT_RCU = 7,
	COPROF_SLOT_IRQ_THREAD = 8,
	COPROF_SLOT_KSWAPD = 9,
	COPROF_SLOT_KTHREAD = 10,
};

/* What ran while somebody waited. The first seven double as causes of a wait. */
enum coprof_class {
	COPROF_CLASS_IDLE = 0,
	COPROF_CLASS_ONLINE = 1,
	COPROF_CLASS_OFFLINE = 2,
	COPROF_CLASS_SYSTEM = 3,
	COPROF_CLASS_KERNEL = 4,
	COPROF_CLASS_STEAL = 5,
	COPROF_CLASS_IRQ = 6,
	COPROF_CAUSE_SELF = 8,
	COPROF_CAUSE_THROTTLED = 9,
};

enum coprof_wait_kind {
	COPROF_KIND_WOKEN = 0,
	COPROF_KIND_PREEMPTED = 1,
	COPROF_KIND_NEW = 2,
};

struct coprof_waiting {
	__u64 pending_ns; /* waited behind the task that runs now, times the tasks that wait */
	__u32 slot;
	__u32 count;
};

struct coprof_slice {
	__u64 start_ns;
	__u32 slot;
	__u32 class;
};

/* A delay that the kernel gives out afterwards; user space adds it to the pair's. */
struct coprof_settlement {
	__u64 delay_ns;
	__u32 victim;
	__u32 aggressor;
	__u64 class;
};

struct coprof_sched_cpu {
	__u64 lock;
	__u64 last_ns; /* the last boundary, CLOCK_MONOTONIC */
	__u64 clock_ns[8]; /* by class: time since the start */
	__u64 steal_seen_ns;
	__u64 steal_ns; /* not yet given to anybody */
	__u64 irq_ns; /* not yet given to anybody */
	__u64 irq_start_ns;
	__u64 irq_depth;
	__u64 runner_tid;
	__u32 runner;
	__u32 runner_class;
	__u32 waiting;
	__u32 slice_head;
	struct coprof_waiting set[COPROF_WAITING_SET];
	struct coprof_slice slices[COPROF_SLICES];
	struct coprof_settlement settled[COPROF_SETTLEMENTS];
	__u64 settled_head;
	__u64 settled_tail; /* moved by user space */
	__u64 lost_lock;
	__u64 lost_runs;
	__u64 lost_moves;
	__u64 lost_set_full;
	__u64 lost_pairs_ns;
	__u64 slots_full;
	__u64 leaked;
	__u64 missed;
	__u64 no_record;
	__u64 slices_short;
};

struct coprof_run {
	__u64 run_ns;
};

struct coprof_slot {
	__u64 cgroup_id;
	__u64 class;
};

struct coprof_free_slots {
	__u64 lock;
	__u64 head; /* taken by the kernel */
	__u64 tail; /* given by user space */
	__u64 slots[COPROF_SLOTS];
};

struct coprof_delay {
	__u64 wait_ns;
	__u64 max_ns; /* user space sets it back to 0 */
	__u64 cause_ns[COPROF_CAUSES];
	__u64 kinds[COPROF_KINDS];
	__u64 buckets[COPROF_BUCKETS];
};

struct coprof_pair {
	__u32 victim;
	__u32 aggressor;
	__u32 class;
	__u32 reserved;
};

struct coprof_blame {
	__u64 delay_ns;
	__u64 events;
	__u64 max_ns;
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
_Static_assert(sizeof(struct coprof_waiting) == 16, "waiting");
_Static_assert(sizeof(struct coprof_slice) == 16, "slice");
_Static_assert(sizeof(struct coprof_sched_cpu) == 2160, "sched cpu");
_Static_assert(sizeof(struct coprof_delay) == 2224, "delay");
_Static_assert(sizeof(struct coprof_pair) == 16, "pair");
_Static_assert(sizeof(struct coprof_blame) == 24, "blame");
_Static_assert(sizeof(struct coprof_cgroup_ring) == 24, "cgroup ring");

#endif
