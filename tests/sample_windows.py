"""Small windows with known contents, equal in every run, for the tests of every package."""

import hashlib
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa

from profiler.window import (
    CAUSES,
    DELAY,
    INTERFERENCE,
    MAPPING,
    PROCESS,
    SAMPLE,
    WAIT_BUCKETS,
    Build,
    Cgroup,
    Node,
    Stacks,
    UserEnd,
    Window,
    wait_bucket_bounds_ns,
)
from symbolizer.symbolised import FRAMES, SymbolisedWindow

NS_PER_S = 1_000_000_000
START_NS = 1_764_500_400_000_000_000  # 2025-11-30 11:00:00 UTC, the start of an hour
WINDOW_NS = 10 * NS_PER_S
WEIGHT_NS = 20_000_000  # a sample at 50 Hz

# Outermost caller first, as people read them: (workload, frames, samples). A frame is "kind/module/function";
# without a function it gets no name, and "a+b" is a location where b was inlined into a.
CALLS = (
    ("web", ("user/web/main", "user/web/serve", "user/web/parse"), 5),
    ("web", ("user/web/main", "user/web/serve", "user/libc.so.6/write", "kernel/kernel/vfs_write"), 3),
    ("web", ("user/web/main", "user/web/serve"), 1),
    ("batch", ("user/squash/main", "user/squash/outer+inner", "user/squash/"), 7),
    ("kthreads", ("kernel/kernel/kthread", "kernel/[xfs]/xfs_log"), 2),
)
# Who waited in a window for whom and why: (victim, aggressor or None, cause, waits in ns). Here a wait has one cause.
WAITS = (
    ("web", "batch", "offline", (2_000_000,) * 30 + (9_000_000,)),
    ("web", "kthreads", "system", (40_000,) * 9),
    ("web", "web", "self", (300_000,) * 20),
    ("web", None, "throttled", (50_000_000,)),
    ("web", None, "idle", (5_000,) * 39),
    ("batch", "web", "online", (1_000_000,) * 8),
)
RUN_NS = {"web": 180_000_000, "batch": 140_000_000, "kthreads": 40_000_000}
SERVICE_CLASS = {"web": "online", "batch": "offline", "kthreads": "system"}


def stable_id(*parts):
    """Hash parts to a signed 64-bit id."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little", signed=True)


def make_node(name="node-a", **changes):
    """The machine of all sample windows."""
    fields = {
        "boot_id": "b007",
        "cpus": 2,
        "kernel": "6.18.0",
        "model": "Sample CPU",
        "agent_version": "0.1.0",
        "sample_hz": 50,
        "sample_event": "cpu-clock",
        "cgroup_mode": "v2",
    }
    return Node(name=name, **(fields | changes))


def make_window(start_ns=START_NS, calls=CALLS, node="node-a", counters=None, end_ns=None):
    """A window in which every call path was sampled as often as `calls` says, spread evenly over its 10 s."""
    workloads = sorted({workload for workload, _, _ in calls})
    repeats = [count for _, _, count in calls]
    samples = np.zeros(sum(repeats), SAMPLE)
    stack = np.repeat(np.arange(len(calls)), repeats)
    samples["stack"] = stack
    samples["cgroup"] = np.array([workloads.index(workload) for workload, _, _ in calls], int)[stack]
    samples["process"] = samples["cgroup"]
    samples["tid"] = 1000 + samples["process"]
    samples["cpu"] = np.arange(len(samples)) % 2
    samples["comm"] = np.array([workload[:15] for workload in workloads] or [""], "S16")[samples["process"]]
    samples["weight_ns"] = WEIGHT_NS
    samples["ts_ns"] = start_ns + np.arange(len(samples)) * (WINDOW_NS // max(len(samples), 1))
    processes = np.zeros(len(workloads), PROCESS)
    processes["tgid"] = 1000 + np.arange(len(workloads))
    return Window(
        start_ns=start_ns,
        end_ns=start_ns + WINDOW_NS if end_ns is None else end_ns,
        node=make_node(node),
        samples=samples,
        stacks=_stacks(calls, workloads),
        processes=processes,
        mappings=np.zeros(0, MAPPING),
        builds=tuple(Build(f"{stable_id('build', name) & (2**64 - 1):016x}", f"/usr/bin/{name}") for name in workloads),
        cgroups=tuple(make_cgroup(name, node) for name in workloads),
        counters={"samples": len(samples), **(counters or {})},
    )


def with_waits(window, waits=WAITS, run_ns=None):
    """The window with the accounts of `waits`, and a cgroup for everybody in them; one wait in 4 is a preemption."""
    run_ns = RUN_NS if run_ns is None else run_ns
    named = [name for victim, aggressor, *_ in waits for name in (victim, aggressor) if name] + list(run_ns)
    known = {cgroup.workload: cgroup for cgroup in window.cgroups}
    added = [make_cgroup(name, window.node.name) for name in dict.fromkeys(named) if name not in known]
    cgroups = (*window.cgroups, *added)
    row = {cgroup.workload: number for number, cgroup in enumerate(cgroups)}
    delays = np.zeros(len(cgroups), DELAY)
    delays["cgroup"] = np.arange(len(cgroups))
    for name, ns in run_ns.items():
        delays["run_ns"][row[name]] = ns
    for victim, _, cause, lengths_ns in waits:
        _add_waits(delays, row[victim], CAUSES.index(cause), np.array(lengths_ns))
    pairs = [
        (row[victim], row.get(aggressor, -1), CAUSES.index(cause), sum(lengths_ns), len(lengths_ns), max(lengths_ns))
        for victim, aggressor, cause, lengths_ns in waits
    ]
    return replace(window, cgroups=cgroups, delays=delays, interference=np.array(pairs, INTERFERENCE))


def _add_waits(delays, row, cause, lengths_ns):
    delays["wait_ns"][row] += lengths_ns.sum()
    delays["cause_ns"][row, cause] += lengths_ns.sum()
    delays["max_ns"][row] = max(delays["max_ns"][row], lengths_ns.max())
    delays["kind_count"][row] += (len(lengths_ns) - len(lengths_ns) // 4, len(lengths_ns) // 4, 0)
    bucket = np.searchsorted(wait_bucket_bounds_ns(), lengths_ns, side="right") - 1
    delays["buckets"][row] += np.bincount(bucket, minlength=WAIT_BUCKETS)


def make_cgroup(workload, node="node-a", **changes):
    """The cgroup of a workload: `/<service class>/<workload>`."""
    service_class = SERVICE_CLASS.get(workload, "offline")
    fields = {
        "cg": stable_id("cg", node, workload),
        "kernel_id": 100,
        "path": f"/{service_class}/{workload}",
        "workload": workload,
        "service_class": service_class,
    }
    return Cgroup(**(fields | changes))


def make_symbolised(start_ns=START_NS, calls=CALLS, node="node-a", counters=None, end_ns=None, waits=None):
    """The symbolised form of `make_window`, with the accounts of `waits` if there are any."""
    window = make_window(start_ns, calls, node, counters, end_ns)
    if waits is not None:
        window = with_waits(window, waits)
    rows, frame_ids, lengths = {}, [], []
    for _, frames, _ in calls:
        ids = []
        for frame in reversed(frames):
            frame_id = stable_id("frame", frame)
            rows[frame_id] = _frame_rows(frame_id, frame)
            ids.append(frame_id)
        frame_ids += ids
        lengths.append(len(ids))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = np.array(frame_ids, np.int64)
    return SymbolisedWindow(
        window=window,
        frames=pa.Table.from_pylist([row for frame in rows.values() for row in frame], schema=FRAMES),
        stack_ids=np.array([stable_id("stack", *flat[a:b]) for a, b in pairwise(offsets)], np.int64),
        stack_offsets=offsets,
        stack_frame_ids=flat,
    )


def make_calls(stacks, depth, workloads=4, seed=1):
    """Call paths of a synthetic program: `stacks` distinct ones of `depth` frames that share their callers."""
    random = np.random.default_rng(seed)
    calls = []
    for row in range(stacks):
        shared = [f"user/app/level{level}_{row // 4 ** (depth - level) % 7}" for level in range(depth - 1)]
        calls.append((f"workload{row % workloads}", (*shared, f"user/app/leaf{row}"), int(random.integers(1, 5))))
    return tuple(calls)


def _stacks(calls, workloads):
    """Addresses that stand for the frames; `make_symbolised` does not derive its frames from them."""
    lengths = [len(frames) for _, frames, _ in calls]
    depth = [sum(frame.startswith("kernel/") for frame in frames) for _, frames, _ in calls]
    is_kernel_only = np.array(depth, int) == np.array(lengths, int)
    process = np.array([workloads.index(workload) for workload, _, _ in calls], np.int32)
    return Stacks(
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        addresses=np.array(
            [stable_id("address", frame) & (2**63 - 1) for _, frames, _ in calls for frame in reversed(frames)],
            np.uint64,
        ),
        kernel_depth=np.array(depth, np.int32),
        process=np.where(is_kernel_only, -1, process).astype(np.int32),
        user_end=np.where(is_kernel_only, UserEnd.NONE, UserEnd.FRAME_POINTER).astype(np.uint8),
    )


def _frame_rows(frame_id, frame):
    """Rows of one location, the innermost of its inlined functions first."""
    kind, module, functions = frame.split("/", 2)
    row = {"frame_id": frame_id, "build_id": "", "kind": kind, "module": module, "file": "", "line": 0}
    row["rel_addr"] = abs(stable_id("addr", frame)) % 0x10000
    inlined = list(reversed(functions.split("+")))
    return [
        row
        | {
            "function": name,
            "system_name": name,
            "inline_idx": depth,
            "state": "ok" if name else "no symbol at this address",
        }
        for depth, name in enumerate(inlined)
    ]
