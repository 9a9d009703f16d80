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
