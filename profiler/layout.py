"""The structs of `bpf/shared.h` as numpy dtypes of the same names, and its constants.

A unit test compiles the header and compares every offset and constant, so the two cannot drift apart.
"""

from __future__ import annotations

import numpy as np

COMM_LEN = 16
MAX_FRAMES = 127
PATH_LEN = 1000
SAMPLE_SLOTS = 2048
STACK_SLOTS = 2048
BANKS = 16
BANK_WORDS = 2048
BANK_SLACK = 256
CGROUP_SLOTS = 256

coprof_sample = np.dtype(
    [
        ("ts_ns", "<u8"),
        ("cgroup_id", "<u8"),
        ("process_start_ns", "<u8"),
        ("stack_id", "<u8"),
        ("tgid", "<u4"),
        ("tid", "<u4"),
        ("exec_id", "<u4"),
        ("cpu", "<u4"),
        ("comm", f"S{COMM_LEN}"),
    ]
)
coprof_stack = np.dtype(
    [
        ("stack_id", "<u8"),
        ("first_word", "<u8"),
        ("process_start_ns", "<u8"),
        ("tgid", "<u4"),
        ("exec_id", "<u4"),
        ("kernel_depth", "<u2"),
        ("user_depth", "<u2"),
        ("user_end", "<u4"),
    ]
)
coprof_bank = np.dtype([("words", "<u8", BANK_WORDS + BANK_SLACK)])
# The counters of `coprof_cpu` that are losses or facts to store with the window, under their window names.
CPU_COUNTERS = (
    "idle_ticks",
    "lost_ring_full",
    "lost_stack_full",
    "stack_collisions",
    "stack_table_full",
    "kernel_stack_errors",
    "user_stack_errors",
    "truncated_stacks",
)
coprof_cpu = np.dtype(
    [
        (name, "<u8")
        for name in (
            "sample_head",
            "sample_tail",
            "stack_head",
            "stack_tail",
            "word_head",
            "word_tail",
            "last_tick_ns",
            "ticks",
            *CPU_COUNTERS,
        )
    ]
)
coprof_control = np.dtype([("generation", "<u8")])
coprof_cgroup_event = np.dtype(
    [
        ("ts_ns", "<u8"),
        ("kernel_id", "<u8"),
        ("action", "<u4"),
        ("reserved", "<u4"),
        ("path", f"S{PATH_LEN}"),
    ]
)
coprof_cgroup_ring = np.dtype([("head", "<u8"), ("tail", "<u8"), ("lost", "<u8")])

SLOTS = 2048
PAIRS = 16384
WAITING_SET = 8
SLICES = 16
SETTLEMENTS = 64
BUCKETS = 256
CLASSES = 7
CAUSES = 16
KINDS = 4
SLOT_FIRST = 16

coprof_waiting = np.dtype([("pending_ns", "<u8"), ("slot", "<u4"), ("count", "<u4")])
coprof_slice = np.dtype([("start_ns", "<u8"), ("slot", "<u4"), ("class", "<u4")])
coprof_settlement = np.dtype([("delay_ns", "<u8"), ("victim", "<u4"), ("aggressor", "<u4"), ("class", "<u8")])
# The counters of `coprof_sched_cpu`, under their window names.
SCHED_COUNTERS = (
    "lost_lock",
    "lost_runs",
    "lost_moves",
    "lost_set_full",
    "lost_pairs_ns",
    "slots_full",
    "leaked",
    "missed",
    "no_record",
    "slices_short",
)
coprof_sched_cpu = np.dtype(
    [
        ("lock", "<u8"),
        ("last_ns", "<u8"),
        ("clock_ns", "<u8", 8),
        ("steal_seen_ns", "<u8"),
        ("steal_ns", "<u8"),
        ("irq_ns", "<u8"),
        ("irq_start_ns", "<u8"),
        ("irq_depth", "<u8"),
        ("runner_tid", "<u8"),
        ("runner", "<u4"),
        ("runner_class", "<u4"),
        ("waiting", "<u4"),
        ("slice_head", "<u4"),
        ("set", coprof_waiting, WAITING_SET),
        ("slices", coprof_slice, SLICES),
        ("settled", coprof_settlement, SETTLEMENTS),
        ("settled_head", "<u8"),
        ("settled_tail", "<u8"),
        *((name, "<u8") for name in SCHED_COUNTERS),
    ]
)
coprof_run = np.dtype([("run_ns", "<u8")])
coprof_slot = np.dtype([("cgroup_id", "<u8"), ("class", "<u8")])
coprof_free_slots = np.dtype([("lock", "<u8"), ("head", "<u8"), ("tail", "<u8"), ("slots", "<u8", SLOTS)])
coprof_delay = np.dtype(
    [
        ("wait_ns", "<u8"),
        ("max_ns", "<u8"),
        ("cause_ns", "<u8", CAUSES),
        ("kinds", "<u8", KINDS),
        ("buckets", "<u8", BUCKETS),
    ]
)
coprof_pair = np.dtype([("victim", "<u4"), ("aggressor", "<u4"), ("class", "<u4"), ("reserved", "<u4")])
coprof_blame = np.dtype([("delay_ns", "<u8"), ("events", "<u8"), ("max_ns", "<u8")])
