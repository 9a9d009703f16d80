// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * Run-queue accounting: every nanosecond that a runnable task waits for a CPU, by cause and by who ran there.
 *
 * Per CPU we know who runs (a slot: a cgroup or a group of kernel tasks), how many tasks of which cgroups wait, and the
 * time of the last boundary. `advance` runs at every boundary (switch, wakeup, migration, cgroup move), so between two
 * boundaries neither the runner nor the waiting set changes, and what it adds up is the exact integral: the time since
 * the last boundary goes to the clock of the runner's class and, times the tasks that wait, to each waiting cgroup's
 * account with the runner. A wait is split by cause when it ends, from the differences of the clocks: O(1).
 *
 * Wakeups and migrations write another CPU's state. A lock of our own guards it, because a migrating task is on
 * neither run queue while its tracepoint runs; whoever cannot take it in a bounded number of tries is counted.
 *
 * Blind spots: a wait that is under way belongs to the window in which it ends. Tasks that waited when we started have
 * no record: their first run is counted as missed. From the end of a throttle to the next run (6.18 and later: the
 * re-queueing fires no tracepoint) time is given out afterwards, from the last slices of the CPU.
 */
#include <uapi/linux/ptrace.h>

#include "shared.h"
#include "task.h"

#define SLOT_MASK (COPROF_SLOTS - 1)
#define SET_MASK (COPROF_WAITING_SET - 1)
#define LOCK_TRIES 64 /* some 1 us; only a holder whose virtual CPU is taken away makes us wait longer */
#define PF_KTHREAD 0x00200000
#define MAX_RT_PRIO 100

/* Argument of a tracepoint. By assembly: BCC would turn every access through a known argument into a helper call. */
#define ARGUMENT(n)                                                                                                  \
	({                                                                                                           \
		__u64 value;                                                                                         \
		asm volatile("%0 = *(u64 *)(%1 + %2)" : "=r"(value) : "r"(context), "i"((n) * 8));                   \
		value;                                                                                               \
	})

/* A member of a struct that the dump of BTF may lay out wrongly: at the offset that BTF itself says. */
#define MEMBER(type, pointer, name) (*(type *)((char *)(pointer) + COPROF_OFFSET_##name))

enum wait_state { NOT_WAITING, WAITING, THROTTLED };

/* The wait of one task, and what is cheap to remember of it. */
struct task_wait {
	__u64 start_ns;
	__u64 clock_ns[8]; /* readings of the CPU's clocks when it began to wait there */
	__u64 folded_ns[8]; /* what it has waited on other CPUs */
	__u64 self_ns;
	__u64 folded_self_ns;
	__u64 throttled_ns; /* reading of its queue's throttled clock */
	__u64 folded_throttled_ns;
	__u64 cgroup_id;
	__u32 slot;
	__u32 class;
	__u32 cpu;
	__u16 state;
	__u8 kind;
	__u8 entry; /* in the CPU's waiting set */
};

/* By task; the kernel deletes it with the task. */
BPF_TASK_STORAGE(task_waits, struct task_wait);

/* By CPU, written under its lock; mapped by user space. */
BPF_F_TABLE("array", __u32, struct coprof_sched_cpu, sched_cpus, COPROF_CPUS, BPF_F_MMAPABLE);
/* By CPU and slot: time that the slot ran there. 128 CPUs take 2 MiB. */
BPF_F_TABLE("array", __u32, struct coprof_run, runs, COPROF_CPUS * COPROF_SLOTS, BPF_F_MMAPABLE);
/* By slot: all waits that ended, and their histogram. Cumulative; user space takes differences. */
BPF_F_TABLE("array", __u32, struct coprof_delay, delays, COPROF_SLOTS, BPF_F_MMAPABLE);
/* By slot: which cgroup it is and its service class, which user space sets. */
BPF_F_TABLE("array", __u32, struct coprof_slot, slots, COPROF_SLOTS, BPF_F_MMAPABLE);
/* One value: free slots, as a ring that user space fills. */
BPF_F_TABLE("array", __u32, struct coprof_free_slots, free_slots, 1, BPF_F_MMAPABLE);
/* Kernel id of a cgroup to its slot. User space deletes a removed cgroup's and gives the slot back. */
BPF_TABLE("hash", __u64, __u32, slot_of_cgroup, COPROF_SLOTS);
/* (victim, aggressor, class) to delay. Cumulative; user space deletes pairs of removed cgroups. */
BPF_TABLE("hash", struct coprof_pair, struct coprof_blame, blames, COPROF_PAIRS);

/* Store `value`, return what was there: XCHG, opcode 0xdb with immediate 0xe1, which this LLVM emits only from v3 on. */
static __always_inline __u64 exchange(__u64 *at, __u64 value)
{
	__u64 before;

	/* r8 and r9, because clang checks register names against the host, and these are registers of both. */
	asm volatile("r8 = %1\n r9 = %2\n .byte 0xdb, 0x98, 0, 0, 0xe1, 0, 0, 0\n %0 = r9"
		     : "=r"(before)
		     : "r"(at), "r"(value)
		     : "r8", "r9", "memory");
	return before;
}

static __always_inline bool try_lock(__u64 *lock)
{
	for (int i = 0; i < LOCK_TRIES; i++)
		if (!exchange(lock, 1))
			return true;
	return false;
}

static __always_inline void unlock(__u64 *lock)
{
	exchange(lock, 0); /* a full barrier: what we wrote is seen before the lock is free */
}

static __always_inline bool lock_cpu(struct coprof_sched_cpu *cpu)
{
	if (try_lock(&cpu->lock))
		return true;
	__sync_fetch_and_add(&cpu->lost_lock, 1);
	return false;
}

/* Slot of a cgroup that has none yet; the overflow slot when there is no free one. */
static __always_inline __u32 take_slot(struct coprof_sched_cpu *cpu, __u64 cgroup_id)
{
	struct coprof_free_slots *free;
	struct coprof_slot *info;
	__u32 zero = 0, slot = COPROF_SLOT_OVERFLOW;

	free = free_slots.lookup(&zero);
	if (!free || !try_lock(&free->lock))
		return COPROF_SLOT_OVERFLOW;
	__u32 *known = slot_of_cgroup.lookup(&cgroup_id); /* another CPU may have been first */

	if (known) {
		slot = *known;
	} else if (free->head != free->tail) {
		slot = free->slots[free->head & SLOT_MASK] & SLOT_MASK;
		if (!slot_of_cgroup.update(&cgroup_id, &slot)) {
			info = slots.lookup(&slot);
			if (info) {
				info->cgroup_id = cgroup_id;
				info->class = COPROF_CLASS_ONLINE;
			}
			free->head++;
		} else {
			slot = COPROF_SLOT_OVERFLOW;
		}
	}
	unlock(&free->lock);
	if (slot == COPROF_SLOT_OVERFLOW)
		cpu->slots_full++;
	return slot;
}

/* Find the task's slot and class; cheap while it stays in its cgroup. */
static __always_inline void identify(struct coprof_sched_cpu *cpu, struct task_struct *task, struct task_wait *wait)
{
#ifdef COPROF_CGROUP_V2
	__u64 cgroup_id = task->cgroups->dfl_cgrp->kn->id;
#else
	__u64 cgroup_id = task->cgroups->subsys[cpu_cgrp_id]->cgroup->kn->id;
#endif
	struct coprof_slot *info;

	if (wait->cgroup_id != cgroup_id || wait->slot == COPROF_SLOT_OVERFLOW) {
		__u32 *known = slot_of_cgroup.lookup(&cgroup_id);

		wait->slot = known ? *known : take_slot(cpu, cgroup_id);
		wait->cgroup_id = cgroup_id;
	}
	info = slots.lookup(&wait->slot);
	wait->class = info ? info->class & 7 : COPROF_CLASS_ONLINE;
}

static __always_inline __u32 kernel_slot(struct task_struct *task)
{
	__u64 name = *(__u64 *)task->comm;

	if (name == 0x2f72656b726f776bULL) /* "kworker/" */
		return COPROF_SLOT_KWORKER;
	if (name == 0x71726974666f736bULL) /* "ksoftirq" */
		return COPROF_SLOT_KSOFTIRQD;
	if (name == 0x6f6974617267696dULL) /* "migratio" */
		return COPROF_SLOT_MIGRATION;
	if ((name & 0xffffff) == 0x756372) /* "rcu" */
		return COPROF_SLOT_RCU;
	if ((name & 0xffffffff) == 0x2f717269) /* "irq/" */
		return COPROF_SLOT_IRQ_THREAD;
	if ((name & 0xffffffffffffULL) == 0x64706177736bULL) /* "kswapd" */
		return COPROF_SLOT_KSWAPD;
	return COPROF_SLOT_KTHREAD;
}

static __always_inline void add_blame(struct coprof_sched_cpu *cpu, __u32 victim, __u32 aggressor, __u32 class,
				      __u64 delay_ns)
{
	struct coprof_pair pair = { .victim = victim, .aggressor = aggressor, .class = class };
	struct coprof_blame *blame = blames.lookup(&pair);

	if (!blame) {
		struct coprof_blame none = {};

		blames.insert(&pair, &none);
		blame = blames.lookup(&pair);
		if (!blame) {
			cpu->lost_pairs_ns += delay_ns;
			return;
		}
	}
	__sync_fetch_and_add(&blame->delay_ns, delay_ns);
	__sync_fetch_and_add(&blame->events, 1);
	if (delay_ns > blame->max_ns)
		blame->max_ns = delay_ns; /* two CPUs may race for it: then the smaller may win, once */
}

static __always_inline struct coprof_run *run_of(__u32 cpu_index, __u32 slot)
{
	__u32 row = cpu_index * COPROF_SLOTS + (slot & SLOT_MASK);

	return runs.lookup(&row);
}

/* Give `ns`, taken out of the runner's time, to the interrupts or the hypervisor. */
static __always_inline void charge_stolen(struct coprof_sched_cpu *cpu, __u32 slot, __u32 class, __u64 ns)
{
	cpu->clock_ns[class & 7] += ns;
	for (int i = 0; i < COPROF_WAITING_SET; i++)
		if (cpu->set[i].count)
			add_blame(cpu, cpu->set[i].slot, slot, class, ns * cpu->set[i].count);
}

/* Account for the time since the last boundary. */
static __always_inline void advance(struct coprof_sched_cpu *cpu, __u32 cpu_index, __u64 now_ns)
{
	__u64 delta_ns = now_ns - cpu->last_ns;
	struct coprof_run *run;

	if ((__s64)delta_ns <= 0)
		return; /* another CPU's boundary, stamped before ours, came after it */
	cpu->last_ns = now_ns;
	if (cpu->steal_ns) {
		__u64 steal_ns = cpu->steal_ns < delta_ns ? cpu->steal_ns : delta_ns;

		cpu->steal_ns -= steal_ns;
		delta_ns -= steal_ns;
		charge_stolen(cpu, COPROF_SLOT_STEAL, COPROF_CLASS_STEAL, steal_ns);
	}
	if (cpu->irq_ns) {
		__u64 irq_ns = exchange(&cpu->irq_ns, 0);

		irq_ns = irq_ns < delta_ns ? irq_ns : delta_ns;
		delta_ns -= irq_ns;
		charge_stolen(cpu, COPROF_SLOT_IRQ, COPROF_CLASS_IRQ, irq_ns);
	}
	cpu->clock_ns[cpu->runner_class & 7] += delta_ns;
	run = run_of(cpu_index, cpu->runner);
	if (run && cpu->runner_class != COPROF_CLASS_KERNEL) /* a cgroup's real-time tasks are not its own fair ones */
		run->run_ns += delta_ns;
	if (!cpu->waiting)
		return;
	for (int i = 0; i < COPROF_WAITING_SET; i++)
		cpu->set[i].pending_ns += delta_ns * cpu->set[i].count;
}

/* Who runs changes: settle the waiting cgroups' accounts with the one that ran. */
static __always_inline void change_runner(struct coprof_sched_cpu *cpu, __u32 slot, __u32 class)
{
	if (cpu->runner == slot && cpu->runner_class == class)
		return;
	for (int i = 0; i < COPROF_WAITING_SET; i++) {
		__u64 pending_ns = cpu->set[i].pending_ns;

		if (!pending_ns)
			continue;
		add_blame(cpu, cpu->set[i].slot, cpu->runner, cpu->runner_class, pending_ns);
		cpu->set[i].pending_ns = 0;
	}
	cpu->runner = slot;
	cpu->runner_class = class;
	cpu->slice_head++;
	struct coprof_slice *slice = &cpu->slices[cpu->slice_head & (COPROF_SLICES - 1)];

	slice->start_ns = cpu->last_ns;
	slice->slot = slot;
	slice->class = class;
}

/* Add one waiting task of the slot; returns its entry, COPROF_WAITING_SET when the set is full. */
static __always_inline __u8 enter_set(struct coprof_sched_cpu *cpu, __u32 slot)
{
	__u32 chosen = COPROF_WAITING_SET;

	for (__u32 i = 0; i < COPROF_WAITING_SET; i++) {
		bool is_free = !cpu->set[i].count && !cpu->set[i].pending_ns;

		if (!is_free && cpu->set[i].slot == slot) {
			chosen = i;
			break;
		}
		if (is_free && chosen == COPROF_WAITING_SET)
			chosen = i;
	}
	if (chosen == COPROF_WAITING_SET) {
		cpu->lost_set_full++;
		return COPROF_WAITING_SET;
	}
	cpu->set[chosen & SET_MASK].slot = slot;
	cpu->set[chosen & SET_MASK].count++;
	cpu->waiting++;
	return chosen;
}

/* Take it out by the entry and slot that were stored when it came in, never by what the task is now. */
static __always_inline void leave_set(struct coprof_sched_cpu *cpu, const struct task_wait *wait)
{
	struct coprof_waiting *entry = &cpu->set[wait->entry & SET_MASK];

	if (wait->entry >= COPROF_WAITING_SET)
		return;
	if (entry->slot != wait->slot || !entry->count) {
		cpu->leaked++; /* it was reset when the CPU went idle */
		return;
	}
	entry->count--;
	if (cpu->waiting)
		cpu->waiting--;
}

/* A CPU that goes idle has nobody waiting; what is still in the set has left it unseen. */
static __always_inline void reset_set(struct coprof_sched_cpu *cpu)
{
	if (!cpu->waiting)
		return;
	for (int i = 0; i < COPROF_WAITING_SET; i++)
		cpu->set[i].count = 0;
	cpu->leaked += cpu->waiting;
	cpu->waiting = 0;
}

/* Throttled time of the queue that the task is on, up to now; 0 where the kernel does not tell. */
static __always_inline __u64 read_throttled_ns(struct task_struct *task)
{
#ifdef COPROF_OFFSET_cfs_rq_throttled_clock_self_time
	struct cfs_rq *queue = task->se.cfs_rq;
	struct rq *rq = MEMBER(struct rq *, queue, cfs_rq_rq);
	__u64 total_ns = MEMBER(__u64, queue, cfs_rq_throttled_clock_self_time);
	__u64 since_ns = MEMBER(__u64, queue, cfs_rq_throttled_clock_self);
	__u64 clock_ns = MEMBER(__u64, rq, rq_clock);

	return since_ns && clock_ns > since_ns ? total_ns + clock_ns - since_ns : total_ns;
#else
	return 0;
#endif
}

static __always_inline void read_clocks(struct coprof_sched_cpu *cpu, __u32 cpu_index, struct task_wait *wait)
{
	struct coprof_run *run = run_of(cpu_index, wait->slot);

	for (int i = 0; i < COPROF_CLASSES; i++)
		wait->clock_ns[i] = cpu->clock_ns[i];
	wait->self_ns = run ? run->run_ns : 0;
	wait->cpu = cpu_index;
}

static __always_inline void fold_clocks(struct coprof_sched_cpu *cpu, struct task_wait *wait)
{
	struct coprof_run *run = run_of(wait->cpu, wait->slot);

	for (int i = 0; i < COPROF_CLASSES; i++)
		wait->folded_ns[i] += cpu->clock_ns[i] - wait->clock_ns[i];
	if (run)
		wait->folded_self_ns += run->run_ns - wait->self_ns;
}

/* Begin a wait at the boundary that `advance` has just reached. */
static __always_inline void begin_wait(struct coprof_sched_cpu *cpu, __u32 cpu_index, struct task_struct *task,
				       struct task_wait *wait, __u32 kind)
{
	if (wait->state == WAITING) { /* its run in between was not seen */
		cpu->lost_runs++;
		if (wait->cpu == cpu_index)
			leave_set(cpu, wait);
	}
	identify(cpu, task, wait);
	for (int i = 0; i < COPROF_CLASSES; i++)
		wait->folded_ns[i] = 0;
	wait->folded_self_ns = 0;
	wait->folded_throttled_ns = 0;
	wait->start_ns = cpu->last_ns;
	wait->kind = kind;
	wait->state = WAITING;
	wait->entry = COPROF_WAITING_SET;
	wait->cpu = cpu_index;
#ifdef COPROF_OFFSET_task_struct_throttled
	if (task->throttled) {
		wait->state = THROTTLED; /* it waits for its quota, not for the CPU */
		wait->throttled_ns = read_throttled_ns(task);
		return;
	}
#endif
	read_clocks(cpu, cpu_index, wait);
	wait->entry = enter_set(cpu, wait->slot);
}

/* Bucket of the log-linear histogram: 8 steps an octave from 1.024 us on, so at most 12.5 % wide. */
static __always_inline __u32 bucket_of(__u64 ns)
{
	__u64 rest = ns >> 10;
	__u32 octave = 0;

	if (!rest)
		return 0;
	if (rest >> 16) {
		octave += 16;
		rest >>= 16;
	}
	if (rest >> 8) {
		octave += 8;
		rest >>= 8;
	}
	if (rest >> 4) {
		octave += 4;
		rest >>= 4;
	}
	if (rest >> 2) {
		octave += 2;
		rest >>= 2;
	}
	octave += rest >> 1;
	return 1 + octave * 8 + ((ns >> (octave + 7)) & 7);
}

static __always_inline void add_wait(struct coprof_delay *delay, __u64 wait_ns, __u32 kind)
{
	__u32 bucket = bucket_of(wait_ns);

	asm volatile("" : "+r"(bucket)); /* clang knows the range and would drop the mask that the verifier needs */
	bucket &= COPROF_BUCKETS - 1;
	__sync_fetch_and_add(&delay->wait_ns, wait_ns);
	__sync_fetch_and_add(&delay->kinds[kind & 3], 1);
	__sync_fetch_and_add(&delay->buckets[bucket], 1);
	if (wait_ns > delay->max_ns)
		delay->max_ns = wait_ns;
}

/*
 * What ran here in the last `rest_ns`, from the slices, to the wait's own clocks and to the settlements, which user
 * space adds to the pairs: sixteen updates of a hash are more than a verifier follows. Returns what no slice covers.
 */
static __always_inline __u64 charge_slices(struct coprof_sched_cpu *cpu, struct task_wait *wait, __u64 rest_ns)
{
	__u64 end_ns = cpu->last_ns, start_ns = end_ns - rest_ns;

	for (__u32 i = 0; i < COPROF_SLICES; i++) {
		struct coprof_slice *slice = &cpu->slices[(cpu->slice_head - i) & (COPROF_SLICES - 1)];
		struct coprof_settlement *settled = &cpu->settled[cpu->settled_head & (COPROF_SETTLEMENTS - 1)];
		__u64 from_ns = slice->start_ns;
		__u64 ns;

		if (from_ns < start_ns)
			from_ns = start_ns;
		if (from_ns > end_ns)
			from_ns = end_ns;
		ns = end_ns - from_ns;
		end_ns = from_ns;
		asm volatile("" : "+r"(end_ns), "+r"(ns));
		if (!ns)
			continue;
		if (slice->slot == wait->slot)
			wait->folded_self_ns += ns;
		wait->folded_ns[slice->class & 7] += ns;
		if (cpu->settled_head - cpu->settled_tail >= COPROF_SETTLEMENTS) {
			cpu->lost_pairs_ns += ns;
			continue;
		}
		settled->delay_ns = ns;
		settled->victim = wait->slot;
		settled->aggressor = slice->slot;
		settled->class = slice->class;
		cpu->settled_head++;
	}
	return end_ns - start_ns;
}

/* Split a wait that began with a throttle: its quota's time, and what ran here from its release on. */
static __always_inline void fold_throttled(struct coprof_sched_cpu *cpu, struct coprof_delay *delay,
					   struct task_struct *task, struct task_wait *wait, __u64 wait_ns)
{
	__u64 throttled_ns = wait->folded_throttled_ns + read_throttled_ns(task) - wait->throttled_ns;
	__u64 left_ns;

	if (throttled_ns > wait_ns)
		throttled_ns = wait_ns;
	left_ns = charge_slices(cpu, wait, wait_ns - throttled_ns);
	if (left_ns)
		cpu->slices_short++;
	__sync_fetch_and_add(&delay->cause_ns[COPROF_CAUSE_THROTTLED], throttled_ns + left_ns);
}

static __always_inline void add_causes(struct coprof_delay *delay, struct task_wait *wait)
{
	__u64 self_ns = wait->folded_self_ns;

	for (int i = 0; i < COPROF_CLASSES; i++) {
		__u64 ns = wait->folded_ns[i];

		if (i == wait->class)
			ns = ns > self_ns ? ns - self_ns : 0;
		if (ns)
			__sync_fetch_and_add(&delay->cause_ns[i], ns);
	}
	if (self_ns)
		__sync_fetch_and_add(&delay->cause_ns[COPROF_CAUSE_SELF], self_ns);
}

/* End a wait at the boundary that `advance` has just reached: the task runs here, or moves to another cgroup. */
static __always_inline void end_wait(struct coprof_sched_cpu *cpu, struct task_struct *task, struct task_wait *wait)
{
	__u64 wait_ns = cpu->last_ns - wait->start_ns;
	struct coprof_delay *delay = delays.lookup(&wait->slot);
	bool was_throttled = wait->state == THROTTLED;

	if (!was_throttled) {
		fold_clocks(cpu, wait);
		leave_set(cpu, wait);
	}
	wait->state = NOT_WAITING;
	if (!delay)
		return; /* cannot happen: slots are within the map */
	if ((__s64)wait_ns < 0)
		wait_ns = 0;
	add_wait(delay, wait_ns, wait->kind);
	if (was_throttled)
		fold_throttled(cpu, delay, task, wait, wait_ns);
	add_causes(delay, wait);
}

/* The task waits on, on another CPU. */
static __always_inline int migrate_task(struct task_struct *task, __u32 to)
{
	struct task_wait *wait = task_waits.task_storage_get(task, 0, 0);
	struct coprof_sched_cpu *cpu;
	__u64 now_ns;
	__u32 from;

	if (!wait || wait->state != WAITING)
		return 0;
	from = wait->cpu;
	cpu = sched_cpus.lookup(&from);
	if (!cpu || !lock_cpu(cpu))
		return 0;
	now_ns = bpf_ktime_get_ns();
	advance(cpu, from, now_ns);
	fold_clocks(cpu, wait);
	leave_set(cpu, wait);
	wait->entry = COPROF_WAITING_SET;
	now_ns = cpu->last_ns;
	unlock(&cpu->lock);
	cpu = sched_cpus.lookup(&to);
	if (!cpu || !lock_cpu(cpu))
		return 0;
	advance(cpu, to, now_ns);
	read_clocks(cpu, to, wait);
	wait->entry = enter_set(cpu, wait->slot);
	unlock(&cpu->lock);
	return 0;
}

static __always_inline int switch_task(__u32 cpu_index, bool is_preempted, struct task_struct *before,
				       struct task_struct *next)
{
	__u32 runner = COPROF_SLOT_IDLE, class = COPROF_CLASS_IDLE;
	struct coprof_sched_cpu *cpu = sched_cpus.lookup(&cpu_index);
	struct task_wait *wait;

	wait = task_waits.task_storage_get(next, 0, 0);
	if (cpu && wait && wait->state == WAITING && wait->cpu != cpu_index) {
		cpu->lost_moves++; /* its migration found a lock taken for too long */
		migrate_task(next, cpu_index);
	}
	if (!cpu || !lock_cpu(cpu))
		return 0;
#ifdef COPROF_OFFSET_rq_prev_steal_time_rq
	struct rq *rq = MEMBER(struct rq *, before->se.cfs_rq, cfs_rq_rq);
	__u64 steal_ns = MEMBER(__u64, rq, rq_prev_steal_time_rq);

	if (cpu->steal_seen_ns && steal_ns > cpu->steal_seen_ns)
		cpu->steal_ns += steal_ns - cpu->steal_seen_ns;
	cpu->steal_seen_ns = steal_ns;
#endif
	advance(cpu, cpu_index, bpf_ktime_get_ns());
	if (is_preempted && before->pid) {
		wait = task_waits.task_storage_get(before, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		if (wait)
			begin_wait(cpu, cpu_index, before, wait, COPROF_KIND_PREEMPTED);
		else
			cpu->no_record++;
	}
	if (next->pid) {
		wait = task_waits.task_storage_get(next, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
		runner = COPROF_SLOT_OVERFLOW;
		class = COPROF_CLASS_ONLINE;
		if (!wait) {
			cpu->no_record++;
		} else {
			if (wait->state != NOT_WAITING)
				end_wait(cpu, next, wait);
			else
				cpu->missed++;
			identify(cpu, next, wait);
			runner = wait->slot;
			class = wait->class;
		}
		if (next->flags & PF_KTHREAD) {
			runner = kernel_slot(next);
			class = COPROF_CLASS_KERNEL;
		} else if (next->prio < MAX_RT_PRIO) {
			class = COPROF_CLASS_KERNEL; /* above all fair tasks, whatever its cgroup */
		}
	} else {
		reset_set(cpu);
	}
	change_runner(cpu, runner, class);
	cpu->runner_tid = next->pid;
	unlock(&cpu->lock);
	return 0;
}

static __always_inline int wake_task(struct task_struct *task, __u32 kind)
{
	__u32 cpu_index = task->thread_info.cpu;
	struct coprof_sched_cpu *cpu;
	struct task_wait *wait;

	if (task->on_cpu || !task->pid)
		return 0; /* it runs: a wakeup of the current task opens no wait */
	cpu = sched_cpus.lookup(&cpu_index);
	if (!cpu)
		return 0;
	wait = task_waits.task_storage_get(task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!wait) {
		__sync_fetch_and_add(&cpu->no_record, 1);
		return 0;
	}
	if (wait->state != NOT_WAITING || !lock_cpu(cpu))
		return 0; /* it waits already: preempted between setting its state and sleeping */
	advance(cpu, cpu_index, bpf_ktime_get_ns());
	begin_wait(cpu, cpu_index, task, wait, kind);
	unlock(&cpu->lock);
	return 0;
}

/* The task has moved to another cgroup: what it waited or ran so far was the old one's. */
static __always_inline int move_task(struct task_struct *task)
{
	struct task_wait *wait = task_waits.task_storage_get(task, 0, 0);
	__u32 cpu_index = task->thread_info.cpu;
	struct coprof_sched_cpu *cpu;

	if (!wait || wait->state == THROTTLED)
		return 0;
	asm volatile("" : "+r"(cpu_index)); /* clang would load through one of two pointers, which no verifier takes */
	if (wait->state == WAITING)
		cpu_index = wait->cpu;
	cpu = sched_cpus.lookup(&cpu_index);
	if (!cpu || !lock_cpu(cpu))
		return 0;
	advance(cpu, cpu_index, bpf_ktime_get_ns());
	if (wait->state == WAITING) {
		end_wait(cpu, task, wait);
		begin_wait(cpu, cpu_index, task, wait, wait->kind);
	} else if (cpu->runner_tid == task->pid && cpu->runner_class != COPROF_CLASS_KERNEL) {
		identify(cpu, task, wait);
		change_runner(cpu, wait->slot, wait->class);
	}
	unlock(&cpu->lock);
	return 0;
}

int on_sched_switch(__u64 *context)
{
	/* Runnable if preempted, which may hit between setting a state and sleeping, or by the state at the switch. */
	bool is_preempted = ARGUMENT(0) || !(__u32)ARGUMENT(3);

	return switch_task(bpf_get_smp_processor_id(), is_preempted, (void *)ARGUMENT(1), (void *)ARGUMENT(2));
}

int on_sched_wakeup(__u64 *context)
{
	return wake_task((void *)ARGUMENT(0), COPROF_KIND_WOKEN);
}

int on_sched_wakeup_new(__u64 *context)
{
	return wake_task((void *)ARGUMENT(0), COPROF_KIND_NEW);
}

int on_sched_migrate_task(__u64 *context)
{
	return migrate_task((void *)ARGUMENT(0), ARGUMENT(1));
}

int on_cgroup_attach_task(__u64 *context)
{
	return move_task((void *)ARGUMENT(2));
}

/* Interrupts of this CPU; in ksoftirqd they are a task's own run time. */
static __always_inline int enter_irq(void)
{
	__u32 cpu_index = bpf_get_smp_processor_id();
	struct coprof_sched_cpu *cpu = sched_cpus.lookup(&cpu_index);

	if (cpu && !cpu->irq_depth++)
		cpu->irq_start_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline int leave_irq(void)
{
	__u32 cpu_index = bpf_get_smp_processor_id();
	struct coprof_sched_cpu *cpu = sched_cpus.lookup(&cpu_index);

	if (!cpu || !cpu->irq_depth || --cpu->irq_depth)
		return 0;
	if (cpu->runner != COPROF_SLOT_KSOFTIRQD)
		__sync_fetch_and_add(&cpu->irq_ns, bpf_ktime_get_ns() - cpu->irq_start_ns);
	return 0;
}

int on_softirq_entry(__u64 *context)
{
	return enter_irq();
}

int on_softirq_exit(__u64 *context)
{
	return leave_irq();
}

int on_irq_handler_entry(__u64 *context)
{
	return enter_irq();
}

int on_irq_handler_exit(__u64 *context)
{
	return leave_irq();
}
