"""The window: one capture interval as a plain value.

Everything right of the profiler (symbols, store, answers) takes windows and never touches BPF. A window is
self-contained: addresses can be resolved from it after the processes have gone, as long as the files exist.
It can be saved, loaded, merged and replayed.

Vocabulary: `tgid` and `tid` are the kernel's; "process" is one incarnation of a tgid (pids come back).
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from profiler.errors import BadInput, CorruptData

FORMAT_VERSION = 1
FILE_SUFFIX = ".window.npz"

# One row a kept sample. `cgroup`, `stack` and `process` are row numbers in the window's own tables.
SAMPLE = np.dtype(
    [
        ("ts_ns", "<i8"),  # Unix time
        ("weight_ns", "<i8"),  # CPU time that this sample stands for
        ("cgroup", "<i4"),
        ("stack", "<i4"),
        ("process", "<i4"),
        ("tid", "<i4"),
        ("cpu", "<i4"),
        ("comm", "S16"),
    ]
)

# One row a process incarnation that was sampled.
PROCESS = np.dtype(
    [
        ("tgid", "<i4"),
        ("exec_id", "<i4"),  # grows with every exec of the process
        ("start_ns", "<i8"),  # start of the group leader, ns since boot: tells reused pids apart
    ]
)

# One row an executable mapping, sorted by (process, start).
MAPPING = np.dtype(
    [
        ("process", "<i4"),
        ("build", "<i4"),  # row in `Window.builds`
        ("start", "<u8"),
        ("end", "<u8"),
        ("file_offset", "<u8"),
    ]
)


class UserEnd(IntEnum):
    """How the user part of a stack ended."""

    NONE = 0  # the task has no user memory: a kernel thread
    FRAME_POINTER = 1  # walked by frame pointers to their end, which code without them cuts short unseen
    TRUNCATED = 2  # the frame limit was reached
    FAILED = 3  # the kernel could not read the user stack
    LOST = 4  # the sample was kept but its stack found no room: no addresses at all


@dataclass(frozen=True)
class Stacks:
    """Distinct stacks of a window, in compressed rows: kernel frames, then user frames, leaf first.

    Row `i` is `addresses[offsets[i]:offsets[i + 1]]`, of which the first `kernel_depth[i]` are kernel addresses.
    The first address of either part is an exact program counter, all others are return addresses.
    """

    offsets: npt.NDArray[np.int64]  # (n + 1,)
    addresses: npt.NDArray[np.uint64]  # (offsets[-1],)
    kernel_depth: npt.NDArray[np.int32]  # (n,)
    process: npt.NDArray[np.int32]  # (n,) row in `Window.processes` for the user part, -1 without one
    user_end: npt.NDArray[np.uint8]  # (n,) `UserEnd`

    def __len__(self) -> int:
        return len(self.kernel_depth)


@dataclass(frozen=True)
class Build:
    """A file, or file-like area, that code was executed from."""

    build_id: str  # GNU build ID in hex; "" where there is none, then `reason` says why
    path: str  # as the process saw it; areas without a file are in brackets, such as "[vdso]" and "[anon]"
    size_bytes: int = 0
    sources: tuple[str, ...] = ()  # where to open the file, best first; may be stale: compare the build ID
    reason: str = ""


@dataclass(frozen=True)
class Cgroup:
    """One life of a cgroup. A removed cgroup keeps its name; a kernel id that came back is another life."""

    cg: int  # signed 64-bit key, stable over agent restarts: hash of node, boot, kernel id and life
    kernel_id: int
    path: str  # inside the hierarchy, "/" for its root
    workload: str
    service_class: str  # "online", "offline" or "system"
    container_id: str = ""
    pod_uid: str = ""
    unit: str = ""  # systemd unit
    start_ns: int = 0  # Unix time; 0: it was there before the agent
    end_ns: int = 0  # Unix time; 0: still there


@dataclass(frozen=True)
class Node:
    """The machine and how it was sampled."""

    name: str
    boot_id: str
    cpus: int
    kernel: str
    model: str
    agent_version: str
    sample_hz: int
    sample_event: str  # "cycles" or "cpu-clock"
    cgroup_mode: str  # "v1", "hybrid" or "v2"


# Every counter a window may carry. All add up when windows are merged.
COUNTERS = {
    "samples": "samples kept",
    "idle_ticks": "sampling ticks that found the CPU idle",
    "missed_ticks": "ticks that should have come by the clock and never reached the program",
    "lost_ring_full": "samples dropped because the CPU's sample ring was full",
    "lost_stack_full": "samples kept without their stack because the CPU's stack ring was full",
    "stack_collisions": "different stacks that met in the same hash; stored apart, once more than needed",
    "stack_table_full": "stacks stored once more than needed because the table of known stacks refused them",
    "kernel_stack_errors": "kernel stacks that could not be read",
    "user_stack_errors": "user stacks that could not be read",
    "truncated_stacks": "samples whose stack reached the frame limit",
    "late_drains": "drains that came later than twice their interval",
    "unread_mappings": "processes gone before their mappings could be read",
    "cgroup_events_lost": "cgroup creations or removals dropped because their ring was full",
    "unnamed_cgroups": "cgroups sampled that were gone before their path could be read",
    "dropped_windows": "windows dropped because the store refused them",
}


@dataclass(frozen=True)
class Window:
    """Raw samples of one interval, with everything needed to resolve them and every loss counted."""

    start_ns: int  # Unix time
    end_ns: int
    node: Node
    samples: npt.NDArray[np.void]  # SAMPLE, by ts_ns
    stacks: Stacks
    processes: npt.NDArray[np.void]  # PROCESS
    mappings: npt.NDArray[np.void]  # MAPPING
    builds: tuple[Build, ...]
    cgroups: tuple[Cgroup, ...]
    counters: dict[str, int] = field(default_factory=dict)  # keys of COUNTERS; absent means 0
