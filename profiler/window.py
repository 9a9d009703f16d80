"""The window: one capture interval as a plain value.

Everything right of the profiler (symbols, store, answers) takes windows and never touches BPF. A window is
self-contained: addresses can be resolved from it after the processes have gone, as long as the files exist.
It can be merged here, and saved, loaded and replayed by `profiler.saved_windows`.

Vocabulary: `tgid` and `tid` are the kernel's; "process" is one incarnation of a tgid (pids come back).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from profiler.errors import BadInput

Row = TypeVar("Row", "Build", "Cgroup")

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


# Why a runnable task waited. The first three are neighbours, apart by their service class.
CAUSES = ("online", "offline", "system", "self", "throttled", "kernel", "irq", "steal", "idle")
NEIGHBOURS = CAUSES[:3]
WAIT_KINDS = ("woken", "preempted", "new")
WAIT_BUCKETS = 256

# One row a cgroup that ran, or of which a task waited and then ran. Causes add up to the wait.
DELAY = np.dtype(
    [
        ("cgroup", "<i4"),
        ("run_ns", "<i8"),
        ("wait_ns", "<i8"),
        ("max_ns", "<i8"),  # longest wait of one task
        ("cause_ns", "<i8", len(CAUSES)),
        ("kind_count", "<i8", len(WAIT_KINDS)),  # waits, by how they began
        ("buckets", "<i8", WAIT_BUCKETS),  # waits, by length: see `wait_bucket_bounds_ns`
    ]
)

# One row a victim, an aggressor and a cause.
INTERFERENCE = np.dtype(
    [
        ("victim", "<i4"),  # row in `Window.cgroups`
        ("aggressor", "<i4"),  # the same; -1 where nobody ran (throttled, idle) or no task (irq, steal)
        ("cause", "<i4"),  # row in CAUSES
        ("delay_ns", "<i8"),
        ("events", "<i8"),  # run slices of the aggressor while the victim waited
        ("max_ns", "<i8"),
    ]
)


def wait_bucket_bounds_ns() -> npt.NDArray[np.int64]:
    """Return the (WAIT_BUCKETS + 1,) bounds of the histogram of waits: 8 steps an octave from 1.024 us on.

    Bucket 0 is everything below; a bucket is at most 12.5 % wide. The last one has no upper bound in fact.
    """
    steps = np.arange(WAIT_BUCKETS)
    octave, step = steps // 8, steps % 8
    return np.concatenate([[0], ((8 + step) << (octave + 7))]).astype(np.int64)


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


# What was measured, and what was lost on the way. All counters of a window add up when windows are merged.
FACTS = {
    "samples": "samples kept",
    "idle_ticks": "sampling ticks that found the CPU idle",
    "expected_samples": "samples that the kernel's own count of busy time (/proc/stat) calls for: an estimate",
}
LOSSES = {
    "lost_ring_full": "samples dropped because the CPU's sample ring was full",
    "lost_stack_full": "samples kept without their stack because the CPU's stack ring was full",
    "lost_stack_late": "samples kept without their stack because another CPU was about to store it",
    "stack_collisions": "different stacks that met in the same hash; stored apart, once more than needed",
    "stack_table_full": "stacks stored once more than needed because the table of known stacks refused them",
    "kernel_stack_errors": "kernel stacks that could not be read",
    "user_stack_errors": "user stacks that could not be read",
    "truncated_stacks": "samples whose stack reached the frame limit",
    "late_drains": "drains that came later than twice their interval",
    "unread_mappings": "processes gone before their mappings could be read",
    "cgroup_events_lost": "cgroup creations or removals dropped because their ring was full",
    "unnamed_cgroups": "cgroups sampled that were gone before their path could be read",
    "lost_waits": "waits that could not be followed because a CPU's accounts were busy for too long",
    "lost_victims": "waits not blamed on anybody because too many cgroups waited on one CPU at once",
    "lost_pairs_ns": "delay in ns not blamed on anybody because the table of pairs was full",
    "slots_full": "look-ups of cgroups that found no free slot and were counted together",
    "leaked_waits": "waits that were still in a CPU's accounts when it went idle, or left them unseen",
    "missed_waits": "switches to a task that was not seen to wait",
    "dropped_windows": "windows dropped because the store refused them or nobody took them",
}
COUNTERS = FACTS | LOSSES


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
    delays: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(0, DELAY))
    interference: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(0, INTERFERENCE))
    counters: dict[str, int] = field(default_factory=dict)  # keys of COUNTERS; absent means 0

    @property
    def duration_s(self) -> float:
        return (self.end_ns - self.start_ns) / 1e9

    def count(self, counter: str) -> int:
        """Return a counter of `COUNTERS`, 0 where the window does not carry it."""
        return self.counters.get(counter, 0)


def merge(windows: Iterable[Window]) -> Window:
    """Return one window with all samples, tables joined, and counters, delays and interference added.

    Merging commutes but for the order of table rows. Raises `BadInput` for no windows or for different nodes.
    """
    parts = sorted(windows, key=lambda window: window.start_ns)
    if not parts:
        raise BadInput("no windows to merge; give at least one")
    if len({(part.node.name, part.node.boot_id) for part in parts}) > 1:
        raise BadInput("windows of different nodes or boots cannot be merged; merge each node's own")
    builds, build_rows = _join_rows([part.builds for part in parts])
    cgroups, cgroup_rows = _join_rows([part.cgroups for part in parts])
    processes, process_rows = _join_arrays([part.processes for part in parts])
    counters = {name: sum(part.count(name) for part in parts) for name in COUNTERS}
    mappings = [_renumber(part.mappings, process=process_rows[i], build=build_rows[i]) for i, part in enumerate(parts)]
    first_stack = np.cumsum([0] + [len(part.stacks) for part in parts])
    samples = [
        _renumber(
            part.samples,
            cgroup=cgroup_rows[i],
            process=process_rows[i],
            stack=np.arange(first_stack[i], first_stack[i + 1], dtype=np.int32),
        )
        for i, part in enumerate(parts)
    ]
    joined = np.concatenate(samples)
    all_mappings = np.unique(np.concatenate(mappings))  # sorts by the fields in order: process first
    return replace(
        parts[-1],
        start_ns=parts[0].start_ns,
        end_ns=max(part.end_ns for part in parts),
        samples=joined[np.argsort(joined["ts_ns"], kind="stable")],
        stacks=_join_stacks([part.stacks for part in parts], process_rows),
        processes=processes,
        mappings=all_mappings[np.lexsort((all_mappings["start"], all_mappings["process"]))],
        builds=builds,
        cgroups=cgroups,
        delays=_join_delays([part.delays for part in parts], cgroup_rows),
        interference=_join_interference([part.interference for part in parts], cgroup_rows),
        counters={name: count for name, count in counters.items() if count},
    )


def _join_rows(tables: Sequence[tuple[Row, ...]]) -> tuple[tuple[Row, ...], list[npt.NDArray[np.int32]]]:
    """Distinct rows of all tables, and for each table the new row numbers of its rows."""
    numbers: dict[Row, int] = {}
    new_rows = [np.array([numbers.setdefault(row, len(numbers)) for row in table], dtype=np.int32) for table in tables]
    return tuple(numbers), new_rows


def _join_arrays(
    tables: Sequence[npt.NDArray[np.void]],
) -> tuple[npt.NDArray[np.void], list[npt.NDArray[np.int32]]]:
    distinct, inverse = np.unique(np.concatenate(tables), return_inverse=True)
    return distinct, np.split(inverse.astype(np.int32), np.cumsum([len(table) for table in tables])[:-1])


def _renumber(table: npt.NDArray[np.void], **columns: npt.NDArray[np.int32]) -> npt.NDArray[np.void]:
    renumbered = table.copy()
    for name, new_rows in columns.items():
        renumbered[name] = new_rows[table[name]]
    return renumbered


def _join_delays(
    tables: Sequence[npt.NDArray[np.void]], cgroup_rows: Sequence[npt.NDArray[np.int32]]
) -> npt.NDArray[np.void]:
    parts = [_renumber(table, cgroup=rows) for table, rows in zip(tables, cgroup_rows, strict=True)]
    return _add_up(np.concatenate(parts), ["cgroup"])


def _join_interference(
    tables: Sequence[npt.NDArray[np.void]], cgroup_rows: Sequence[npt.NDArray[np.int32]]
) -> npt.NDArray[np.void]:
    # An aggressor of -1, which is nobody, stands for the last entry and stays -1.
    parts = [
        _renumber(table, victim=rows, aggressor=np.append(rows, np.int32(-1)))
        for table, rows in zip(tables, cgroup_rows, strict=True)
    ]
    return _add_up(np.concatenate(parts), ["victim", "aggressor", "cause"])


def _add_up(table: npt.NDArray[np.void], keys: list[str]) -> npt.NDArray[np.void]:
    """One row for all rows of equal keys: the largest `max_ns`, the sum of every other column."""
    distinct, group = np.unique(table[keys], return_inverse=True)
    totals = np.zeros(len(distinct), table.dtype)
    for name in table.dtype.names or ():
        if name in keys:
            totals[name] = distinct[name]
        else:
            (np.maximum if name == "max_ns" else np.add).at(totals[name], group, table[name])
    return totals


def _join_stacks(parts: Sequence[Stacks], process_rows: Sequence[npt.NDArray[np.int32]]) -> Stacks:
    """All stacks one after the other. Equal stacks stay apart: symbols give them the same id anyway."""
    depths = np.concatenate([np.diff(part.offsets) for part in parts])
    process = [
        np.where(part.process >= 0, rows[part.process] if len(rows) else -1, -1)
        for part, rows in zip(parts, process_rows, strict=True)
    ]
    return Stacks(
        offsets=np.concatenate([[0], np.cumsum(depths)]).astype(np.int64),
        addresses=np.concatenate([part.addresses for part in parts]),
        kernel_depth=np.concatenate([part.kernel_depth for part in parts]),
        process=np.concatenate(process).astype(np.int32),
        user_end=np.concatenate([part.user_end for part in parts]),
    )
