"""A symbolised window to the rows of each table, sorted as the store keeps them.

Pure: nothing is written here. Refuses a window whose rows point outside its own tables, because numpy would
wrap a negative row number to the wrong end without a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from profiler.errors import CorruptData
from profiler.window import CAUSES, COUNTERS, WAIT_KINDS, UserEnd, Window
from storage.schema import (
    BUILDS,
    CGROUPS,
    INTERFERENCE_TABLE,
    NODES,
    SAMPLES_10S,
    SAMPLES_RAW,
    SCHED_DELAY,
    STACKS,
    TIMESTAMP,
    Table,
)
from symbolizer.symbolised import SymbolisedWindow

KIND = "cpu"
NS_PER_US = 1_000


@dataclass(frozen=True)
class AgentCost:
    """What the agent itself used in a window."""

    cpu_ns: int = 0
    rss_bytes: int = 0
    bpf_bytes: int = 0


def sample_rows(symbolised: SymbolisedWindow) -> pa.Table:
    """Every sample as a row of `samples_raw`."""
    window = symbolised.window
    samples = window.samples
    columns = {
        "ts": _timestamps(samples["ts_ns"]),
        "node": _constant(window.node.name, len(samples)),
        "cg": _sample_cgs(window),
        "stack_id": _stack_ids(symbolised),
        "kind": _constant(KIND, len(samples)),
        "cpu": samples["cpu"],
        "tgid": window.processes["tgid"][_rows(samples["process"], len(window.processes), "process")],
        "tid": samples["tid"],
        "comm": _comms(samples["comm"]),
        "weight_ns": samples["weight_ns"],
    }
    return _sorted(SAMPLES_RAW, columns)


def sample_sums(symbolised: SymbolisedWindow) -> pa.Table:
    """Samples and CPU time by cgroup and stack, as rows of `samples_10s`."""
    window = symbolised.window
    keys = np.stack([_sample_cgs(window), _stack_ids(symbolised)], axis=1)
    groups, inverse = np.unique(keys, axis=0, return_inverse=True)
    value = np.zeros(len(groups), np.int64)
    np.add.at(value, inverse.reshape(-1), window.samples["weight_ns"])
    columns = {
        "ts": _timestamps(np.full(len(groups), window.start_ns)),
        "node": _constant(window.node.name, len(groups)),
        "cg": groups[:, 0],
        "stack_id": groups[:, 1],
        "kind": _constant(KIND, len(groups)),
        "count": np.bincount(inverse.reshape(-1), minlength=len(groups)),
        "value": value,
    }
    return _sorted(SAMPLES_10S, columns)


def delay_rows(window: Window) -> pa.Table:
    """Waits and run time by cgroup, as rows of `sched_delay`."""
    delays = window.delays
    cause_ns = {f"{cause}_ns": delays["cause_ns"][:, column] for column, cause in enumerate(CAUSES)}
    kinds = {kind: delays["kind_count"][:, column] for column, kind in enumerate(WAIT_KINDS)}
    bucket, bucket_count = _sparse(delays["buckets"])
    columns = {
        "ts": _timestamps(np.full(len(delays), window.start_ns)),
        "node": _constant(window.node.name, len(delays)),
        "cg": _cg_keys(window)[_rows(delays["cgroup"], len(window.cgroups), "cgroup")],
        "count": delays["kind_count"].sum(axis=1),
        **{name: delays[name] for name in ("wait_ns", "max_ns", "run_ns")},
        **cause_ns,
        **kinds,
        "bucket": bucket,
        "bucket_count": bucket_count,
    }
    return _sorted(SCHED_DELAY, columns)


def interference_rows(window: Window) -> pa.Table:
    """Delay by victim, aggressor and cause, as rows of `interference`."""
    pairs, known = window.interference, len(window.cgroups)
    keys_or_none = np.append(0, _cg_keys(window))
    causes = pa.array(CAUSES, pa.string())
    columns = {
        "ts": _timestamps(np.full(len(pairs), window.start_ns)),
        "node": _constant(window.node.name, len(pairs)),
        "victim_cg": _cg_keys(window)[_rows(pairs["victim"], known, "victim")],
        "aggressor_cg": keys_or_none[1 + _rows(pairs["aggressor"], known, "aggressor", first=-1)],
        "cause": causes.take(pa.array(_rows(pairs["cause"], len(CAUSES), "cause"))),
        **{name: pairs[name] for name in ("delay_ns", "events", "max_ns")},
    }
    return _sorted(INTERFERENCE_TABLE, columns)


def stack_rows(symbolised: SymbolisedWindow) -> pa.Table:
    """Distinct stacks; of equal frames that ended differently the worst end holds (the id is of the frames alone)."""
    worst_first = np.lexsort((-symbolised.window.stacks.user_end.astype(np.int16), symbolised.stack_ids))
    ids, first = np.unique(symbolised.stack_ids[worst_first], return_index=True)
    rows = worst_first[first]
    frames = pa.ListArray.from_arrays(
        pa.array(symbolised.stack_offsets.astype(np.int32)), pa.array(symbolised.stack_frame_ids)
    )
    ends = pa.array([end.name.lower() for end in UserEnd], pa.string())  # to infer it, Arrow would look for dateutil
    quality = ends.take(pa.array(symbolised.window.stacks.user_end[rows]))
    return _sorted(STACKS, {"stack_id": ids, "frame_ids": frames.take(pa.array(rows)), "quality": quality})


def build_rows(window: Window) -> pa.Table:
    """The files that code was executed from."""
    builds = window.builds
    columns = {
        "build_id": [build.build_id for build in builds],
        "path": [_text(build.path) for build in builds],
        "size_bytes": [build.size_bytes for build in builds],
        "first_seen": _timestamps(np.full(len(builds), window.start_ns)),
        "reason": [build.reason for build in builds],
    }
    return _sorted(BUILDS, columns)


def cgroup_rows(window: Window) -> pa.Table:
    """The cgroups of the window, each with its workload."""
    cgroups = window.cgroups
    plain = ("cg", "kernel_id", "container_id", "pod_uid", "unit", "workload", "service_class")
    columns: dict[str, Any] = {name: [getattr(cgroup, name) for cgroup in cgroups] for name in plain}
    columns |= {
        "ts": _timestamps(np.full(len(cgroups), window.start_ns)),
        "node": _constant(window.node.name, len(cgroups)),
        "boot_id": _constant(window.node.boot_id, len(cgroups)),
        "path": [_text(cgroup.path) for cgroup in cgroups],
        "start": _known_timestamps([cgroup.start_ns for cgroup in cgroups]),
        "end": _known_timestamps([cgroup.end_ns for cgroup in cgroups]),
    }
    return _sorted(CGROUPS, columns)


def node_row(window: Window, cost: AgentCost) -> pa.Table:
    """The one row that describes the window: the machine, every loss, and the agent's own cost."""
    node = window.node
    plain = ("boot_id", "cpus", "model", "kernel", "agent_version", "sample_hz", "sample_event", "cgroup_mode")
    columns: dict[str, Any] = {name: [getattr(node, name)] for name in plain}
    columns |= {name: [window.counters.get(name, 0)] for name in COUNTERS}
    columns |= {
        "ts": _timestamps(np.array([window.start_ns])),
        "end": _timestamps(np.array([window.end_ns])),
        "node": [node.name],
        "agent_cpu_ns": [cost.cpu_ns],
        "agent_rss_bytes": [cost.rss_bytes],
        "bpf_bytes": [cost.bpf_bytes],
    }
    return _sorted(NODES, columns)


def _sorted(table: Table, columns: dict[str, Any]) -> pa.Table:
    rows = pa.table({name: columns[name] for name in table.schema.names}, schema=table.schema)
    return rows.sort_by([(name, "ascending") for name in table.sort])


def _cg_keys(window: Window) -> npt.NDArray[np.int64]:
    return np.array([cgroup.cg for cgroup in window.cgroups], np.int64)


def _sample_cgs(window: Window) -> npt.NDArray[np.int64]:
    return _cg_keys(window)[_rows(window.samples["cgroup"], len(window.cgroups), "cgroup")]


def _sparse(histograms: npt.NDArray[np.int64]) -> tuple[pa.Array[Any], pa.Array[Any]]:
    """Keep the buckets of each histogram that hold something: their numbers and their counts, as lists."""
    row, bucket = np.nonzero(histograms)
    ends = np.cumsum(np.bincount(row, minlength=len(histograms)))
    offsets = pa.array(np.append(0, ends).astype(np.int32))
    counts = pa.ListArray.from_arrays(offsets, pa.array(histograms[row, bucket]))
    return pa.ListArray.from_arrays(offsets, pa.array(bucket.astype(np.int16))), counts


def _stack_ids(symbolised: SymbolisedWindow) -> npt.NDArray[np.int64]:
    ids = symbolised.stack_ids
    return ids[_rows(symbolised.window.samples["stack"], len(ids), "stack")]


def _rows(rows: npt.NDArray[np.int32], length: int, what: str, first: int = 0) -> npt.NDArray[np.int32]:
    if len(rows) and (rows.min() < first or rows.max() >= length):
        raise CorruptData(f"a row names {what} {rows.min()} to {rows.max()} of {length}: the window is damaged")
    return rows


def _timestamps(ns: npt.NDArray[np.int64]) -> pa.Array[Any]:
    return pa.array(ns // NS_PER_US, pa.int64()).cast(TIMESTAMP)


def _known_timestamps(ns: list[int]) -> pa.Array[Any]:
    return pa.array([value // NS_PER_US if value else None for value in ns], pa.int64()).cast(TIMESTAMP)


def _constant(text: str, length: int) -> pa.Array[Any]:
    return pa.repeat(pa.scalar(text, pa.string()), length)


def _comms(comms: npt.NDArray[np.bytes_]) -> pa.Array[Any]:
    """Decode each distinct thread name once; a thread may call itself any bytes."""
    distinct, rows = np.unique(comms, return_inverse=True)
    names = [name.decode("utf-8", "replace") for name in distinct.tolist()]
    return pa.array(names, pa.string()).take(pa.array(rows.reshape(-1)))


def _text(path: str) -> str:
    """Make a path storable: one that is not UTF-8 comes as surrogates, which Arrow refuses."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
