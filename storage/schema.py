"""The tables of a store: Arrow schemas with units, sort orders, and the version of the format.

Every table is plain Parquet for any reader: ids are signed 64-bit integers (Spark turns unsigned ones into decimals),
times are `timestamp[us, UTC]` (Spark refuses ns), text is text, never a dictionary type.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from profiler.window import CAUSES, COUNTERS
from symbolizer.symbolised import FRAMES

# Raised when an older reader would misread a store. New tables and new columns do not raise it: readers take tables by
# name, and of `nodes` also the columns.
FORMAT_VERSION = 1
TIMESTAMP = pa.timestamp("us", "UTC")


@dataclass(frozen=True)
class Table:
    """One table of the store: its columns, and the order of the rows inside a segment."""

    name: str
    schema: pa.Schema
    sort: tuple[str, ...]


def _column(name: str, kind: pa.DataType, _about: str, unit: str = "", nullable: bool = False) -> pa.Field[pa.DataType]:
    """Describe a column; the file carries the unit alone, because a segment of a small window is mostly footer."""
    return pa.field(name, kind, nullable=nullable, metadata={"unit": unit} if unit else None)


def _schema(*columns: pa.Field[pa.DataType]) -> pa.Schema:
    return pa.schema(columns, metadata={"coprof.format_version": str(FORMAT_VERSION)})


_WINDOW_TS = _column("ts", TIMESTAMP, "start of the window", "us")
_NODE = _column("node", pa.string(), "name of the machine")
_CG = _column("cg", pa.int64(), "key of one life of a cgroup")
_STACK_ID = _column("stack_id", pa.int64(), "hash of the frame ids")
_KIND = _column("kind", pa.string(), 'what was sampled: "cpu"')

SAMPLES_RAW = Table(
    "samples_raw",
    _schema(
        _column("ts", TIMESTAMP, "when the sample was taken", "us"),
        _NODE,
        _CG,
        _STACK_ID,
        _KIND,
        _column("cpu", pa.int32(), "CPU that was interrupted"),
        _column("tgid", pa.int32(), "process id; the kernel's tgid"),
        _column("tid", pa.int32(), "thread id; the kernel's pid"),
        _column("comm", pa.string(), "name of the thread"),
        _column("weight_ns", pa.int64(), "CPU time that the sample stands for", "ns"),
    ),
    ("cg", "ts", "stack_id"),
)

SAMPLES_10S = Table(
    "samples_10s",
    _schema(
        _WINDOW_TS,
        _NODE,
        _CG,
        _STACK_ID,
        _KIND,
        _column("count", pa.int64(), "samples"),
        _column("value", pa.int64(), "CPU time", "ns"),
    ),
    ("cg", "ts", "stack_id"),
)

STACKS = Table(
    "stacks",
    _schema(
        _STACK_ID,
        _column("frame_ids", pa.list_(pa.int64()), "frames, leaf first"),
        _column("quality", pa.string(), "how the user part ended: a name of `UserEnd`, in lower case"),
    ),
    ("stack_id",),
)

FRAMES_TABLE = Table(
    "frames",
    FRAMES.with_metadata({"coprof.format_version": str(FORMAT_VERSION)}),
    ("build_id", "rel_addr", "frame_id", "inline_idx"),
)

SCHED_DELAY = Table(
    "sched_delay",
    _schema(
        _WINDOW_TS,
        _NODE,
        _CG,
        _column("count", pa.int64(), "waits that ended in the window: from runnable to running"),
        _column("wait_ns", pa.int64(), "their length: the causes add up to it", "ns"),
        *(_column(f"{cause}_ns", pa.int64(), "wait by cause: a name of `CAUSES`", "ns") for cause in CAUSES),
        _column("max_ns", pa.int64(), "longest wait", "ns"),
        _column("run_ns", pa.int64(), "time that tasks of the cgroup ran", "ns"),
        _column("woken", pa.int64(), "waits that began with a wakeup"),
        _column("preempted", pa.int64(), "waits that began with the loss of the CPU"),
        _column("new", pa.int64(), "waits that began with a fork"),
        _column("bucket", pa.list_(pa.int16()), "of the histogram of waits: see `wait_bucket_bounds_ns`; ascending"),
        _column("bucket_count", pa.list_(pa.int64()), "waits in each of these buckets; the others are empty"),
    ),
    ("cg", "ts"),
)

INTERFERENCE_TABLE = Table(
    "interference",
    _schema(
        _WINDOW_TS,
        _NODE,
        _column("victim_cg", pa.int64(), "cgroup whose tasks waited"),
        _column("aggressor_cg", pa.int64(), "cgroup, or group of kernel tasks, that ran there; 0 where no task did"),
        _column("cause", pa.string(), "a name of `CAUSES`"),
        _column("delay_ns", pa.int64(), "time that tasks of the victim waited while it ran", "ns"),
        _column("events", pa.int64(), "run slices of the aggressor while the victim waited"),
        _column("max_ns", pa.int64(), "largest delay of one slice", "ns"),
    ),
    ("victim_cg", "ts", "aggressor_cg"),
)

BUILDS = Table(
    "builds",
    _schema(
        _column("build_id", pa.string(), "GNU build ID in hex; empty where the file has none"),
        _column("path", pa.string(), "as the process saw it"),
        _column("size_bytes", pa.int64(), "size of the file", "bytes"),
        _column("first_seen", TIMESTAMP, "start of the window that wrote the row", "us"),
        _column("reason", pa.string(), "why there is no build ID"),
    ),
    ("build_id", "path"),
)

CGROUPS = Table(
    "cgroups",
    _schema(
        _column(
            "ts", TIMESTAMP, "start of the window that wrote the row; of several rows of a cg the newest holds", "us"
        ),
        _CG,
        _NODE,
        _column("boot_id", pa.string(), "boot of the node"),
        _column("kernel_id", pa.int64(), "the kernel's id, which comes back"),
        _column("path", pa.string(), "inside the hierarchy"),
        _column("container_id", pa.string(), "empty outside containers"),
        _column("pod_uid", pa.string(), "empty outside pods"),
        _column("unit", pa.string(), "systemd unit"),
        _column("workload", pa.string(), "name by the rules"),
        _column("service_class", pa.string(), '"online", "offline" or "system"'),
        _column("start", TIMESTAMP, "null when it was there before the agent", "us", nullable=True),
        _column("end", TIMESTAMP, "null while it is there", "us", nullable=True),
    ),
    ("cg", "ts"),
)

NODES = Table(
    "nodes",
    _schema(
        _WINDOW_TS,
        _column("end", TIMESTAMP, "end of the window", "us"),
        _NODE,
        _column("boot_id", pa.string(), "boot of the node"),
        _column("cpus", pa.int64(), "CPUs online"),
        _column("model", pa.string(), "CPU model"),
        _column("kernel", pa.string(), "kernel release"),
        _column("agent_version", pa.string(), "version of coprof"),
        _column("sample_hz", pa.int64(), "samples a second and CPU", "Hz"),
        _column("sample_event", pa.string(), '"cycles" or "cpu-clock"'),
        _column("cgroup_mode", pa.string(), '"v1", "hybrid" or "v2"'),
        *(_column(name, pa.int64(), about, "ns" if name.endswith("_ns") else "") for name, about in COUNTERS.items()),
        _column("agent_cpu_ns", pa.int64(), "CPU time of the agent in the window", "ns"),
        _column("agent_rss_bytes", pa.int64(), "resident memory of the agent", "bytes"),
        _column("bpf_bytes", pa.int64(), "memory of the BPF maps and programs", "bytes"),
    ),
    ("ts",),
)

# In the order of publishing: what a row refers to stands before the row, and `nodes` completes the window.
TABLES = {
    table.name: table
    for table in (
        FRAMES_TABLE,
        STACKS,
        BUILDS,
        CGROUPS,
        SAMPLES_10S,
        SAMPLES_RAW,
        SCHED_DELAY,
        INTERFERENCE_TABLE,
        NODES,
    )
}
