// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
/*
 * CPU sampler: a timer (or cycle counter) per CPU interrupts whatever runs; we keep who it was and its stacks.
 *
 * The samples of a CPU go to a ring of its own in memory that user space has mapped, so that a drain is a copy and
 * no system call. Equal stacks are stored once a generation: the addresses are written to the end of the word ring,
 * hashed there, and the ring's head moves only if the hash was not known.
 *
 * Blind spots: with the cpu-clock event, code that runs with interrupts off is charged to where they come on again.
 * User stacks follow frame pointers, which code without them cuts short unseen. Ticks that find BPF busy on this CPU
 * (another program, or a map system call) never get here; user space sees the gap in `ticks`.
 */
#include <uapi/linux/ptrace.h>

#include "shared.h"
#include "task.h"

#define SLOT(cpu, position, slots) ((cpu) * (slots) + ((position) & ((slots) - 1)))
#define ADDRESS_BYTES (COPROF_MAX_FRAMES * sizeof(__u64))

struct known_stack {
	__u64 check; /* second hash of the same stack */
	__u64 generation;
};

/* Mapped by user space, written by the program on the CPU that owns the part: rings side by side, CPU after CPU. */
BPF_F_TABLE("array", __u32, struct coprof_sample, samples, COPROF_CPUS * COPROF_SAMPLE_SLOTS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", __u32, struct coprof_stack, stacks, COPROF_CPUS * COPROF_STACK_SLOTS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", __u32, struct coprof_bank, banks, COPROF_CPUS * COPROF_BANKS, BPF_F_MMAPABLE);
BPF_F_TABLE("array", __u32, struct coprof_cpu, cpus, COPROF_CPUS, BPF_F_MMAPABLE);

/* One value; written by user space when it begins a window. */
BPF_F_TABLE("array", __u32, struct coprof_control, control, 1, BPF_F_MMAPABLE);

/* Stacks stored in some generation, by hash. The least recently used make room: at worst a stack is stored twice. */
BPF_TABLE("lru_hash", __u64, struct known_stack, known_stacks, COPROF_KNOWN_STACKS);

struct hashes {
	__u64 id;
	__u64 check;
};

static __always_inline void hash_word(struct hashes *hashes, __u64 word)
{
	hashes->id = (hashes->id ^ word) * 0x9e3779b97f4a7c15ULL;
	hashes->id ^= hashes->id >> 29;
	hashes->check = (hashes->check + word) * 0xff51afd7ed558ccdULL;
	hashes->check ^= hashes->check >> 32;
}

/* Two independent 64-bit hashes over the owner of the user part and all addresses. */
static __always_inline struct hashes hash_stack(const struct coprof_stack *stack, const __u64 *words)
{
	struct hashes hashes = { .id = 0x243f6a8885a308d3ULL, .check = 0x13198a2e03707344ULL };
	__u32 depth = stack->kernel_depth + stack->user_depth;

	hash_word(&hashes, stack->process_start_ns);
	hash_word(&hashes, ((__u64)stack->tgid << 32) | stack->exec_id);
	hash_word(&hashes, ((__u64)stack->user_end << 32) | ((__u32)stack->kernel_depth << 16) | stack->user_depth);
	for (__u32 i = 0; i < 2 * COPROF_MAX_FRAMES; i++) {
		asm volatile("" : "+r"(i)); /* clang would count down from depth, which the verifier cannot bound */
		if (i >= depth)
			break;
		hash_word(&hashes, words[i & (COPROF_BANK_SLACK - 1)]);
	}
	return hashes;
}

/* Tell whether this generation has the stack already; if not, remember that it is about to. */
static __always_inline bool is_stored(struct coprof_cpu *cpu, struct hashes *hashes, __u64 generation)
{
	struct known_stack fresh = { .check = hashes->check, .generation = generation };
	struct known_stack *known = known_stacks.lookup(&hashes->id);

	if (known) {
		if (known->check != hashes->check) {
			cpu->stack_collisions++;
			hashes->id ^= hashes->check | 1; /* an id of its own, stored each time it is met */
			return false;
		}
		if (known->generation == generation)
			return true;
		known->generation = generation;
		return false;
	}
	if (known_stacks.update(&hashes->id, &fresh))
		cpu->stack_table_full++;
	return false;
}

/* Read both parts of the stack to `words`; fills the depths and how the user part ended. */
static __always_inline void read_stack(struct bpf_perf_event_data *ctx, struct coprof_cpu *cpu,
				       struct coprof_stack *stack, __u64 *words)
{
	long bytes = bpf_get_stack(ctx, words, ADDRESS_BYTES, 0);

	if (bytes < 0 || bytes > ADDRESS_BYTES) {
		cpu->kernel_stack_errors++;
		bytes = 0;
	}
	stack->kernel_depth = bytes / sizeof(__u64);
	bool is_truncated = bytes == ADDRESS_BYTES;

	bytes = bpf_get_stack(ctx, words + (stack->kernel_depth & 127), ADDRESS_BYTES, BPF_F_USER_STACK);
	if (bytes < 0 || bytes > ADDRESS_BYTES) {
		cpu->user_stack_errors++;
		stack->user_end = COPROF_USER_FAILED;
		bytes = 0;
	} else if (bytes == ADDRESS_BYTES) {
		is_truncated = true;
		stack->user_end = COPROF_USER_TRUNCATED;
	} else if (bytes > 0) {
		stack->user_end = COPROF_USER_FRAME_POINTER;
	} else {
		stack->user_end = COPROF_USER_NONE;
	}
	stack->user_depth = bytes / sizeof(__u64);
	if (is_truncated)
		cpu->truncated_stacks++;
}

/* Store the current stack unless this generation has it. Returns its id, or 0 when there was no room. */
static __always_inline __u64 keep_stack(struct bpf_perf_event_data *ctx, struct coprof_cpu *cpu, __u32 cpu_index,
					const struct coprof_sample *sample, __u64 generation)
{
	if (cpu->stack_head - cpu->stack_tail >= COPROF_STACK_SLOTS ||
	    cpu->word_head - cpu->word_tail > COPROF_BANKS * COPROF_BANK_WORDS - COPROF_BANK_SLACK) {
		cpu->lost_stack_full++;
		return 0;
	}
	/* Both are written in place, past the heads; on the program's stack the verifier would track every value. */
	__u32 stack_slot = SLOT(cpu_index, cpu->stack_head, COPROF_STACK_SLOTS);
	__u32 bank_slot = SLOT(cpu_index, cpu->word_head / COPROF_BANK_WORDS, COPROF_BANKS);
	struct coprof_stack *stack = stacks.lookup(&stack_slot);
	struct coprof_bank *bank = banks.lookup(&bank_slot);

	if (!stack || !bank)
		return 0; /* cannot happen: the slots are within the maps */
	__u64 *words = &bank->words[cpu->word_head & (COPROF_BANK_WORDS - 1)];

	read_stack(ctx, cpu, stack, words);
	bool has_user_part = stack->user_end != COPROF_USER_NONE;

	stack->tgid = has_user_part ? sample->tgid : 0;
	stack->exec_id = has_user_part ? sample->exec_id : 0;
	stack->process_start_ns = has_user_part ? sample->process_start_ns : 0;
	struct hashes hashes = hash_stack(stack, words);

	if (is_stored(cpu, &hashes, generation))
		return hashes.id;
	stack->stack_id = hashes.id;
	stack->first_word = cpu->word_head;
	cpu->word_head += stack->kernel_depth + stack->user_depth;
	__sync_fetch_and_add(&cpu->stack_head, 1); /* publishes: ordered after the record on every architecture */
	return hashes.id;
}

int on_tick(struct bpf_perf_event_data *ctx)
{
	__u32 zero = 0, cpu_index = bpf_get_smp_processor_id();
	struct coprof_cpu *cpu = cpus.lookup(&cpu_index);
	struct coprof_control *settings = control.lookup(&zero);
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	if (!cpu || !settings)
		return 0; /* cannot happen while COPROF_CPUS is the number of possible CPUs */
	__u64 now_ns = bpf_ktime_get_ns();

	cpu->ticks++;
	cpu->last_tick_ns = now_ns;
	if (!(__u32)pid_tgid) {
		cpu->idle_ticks++;
		return 0;
	}
	if (cpu->sample_head - cpu->sample_tail >= COPROF_SAMPLE_SLOTS) {
		cpu->lost_ring_full++;
		return 0;
	}
	__u32 slot = SLOT(cpu_index, cpu->sample_head, COPROF_SAMPLE_SLOTS);
	struct coprof_sample *sample = samples.lookup(&slot);
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	if (!sample)
		return 0; /* cannot happen: the slot is within the map */
	sample->ts_ns = now_ns;
	sample->cgroup_id = task_cgroup_id(task);
	sample->process_start_ns = task_process_start_ns(task);
	sample->tgid = pid_tgid >> 32;
	sample->tid = pid_tgid;
	sample->exec_id = task_exec_id(task);
	sample->cpu = cpu_index;
	bpf_get_current_comm(&sample->comm, sizeof(sample->comm));
	sample->stack_id = keep_stack(ctx, cpu, cpu_index, sample, settings->generation);
	__sync_fetch_and_add(&cpu->sample_head, 1);
	return 0;
}
