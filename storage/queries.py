"""What can be asked of a store, as Arrow tables and numpy columns.

The SQL is portable: scans, filters, joins, groups and sums; no engine functions, no exploded lists. What needs a
loop over rows, a pattern or a tree is done on the small result. Times are cut to us, in the store and in questions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from profiler.window import CAUSES
from storage.engine import Parameter, Scan

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LOOK_BACK_NS = 60_000_000_000  # longer than a window: who looks for gaps must see the one that reaches into the range
_LAST_US = 253_402_300_799_999_999  # end of the year 9999, the last that Python can say

UNKNOWN_WORKLOAD = "(unknown)"  # of samples whose cgroup's row was lost

_SUMS_BY_STACK = f"""
SELECT COALESCE(c.workload, '{UNKNOWN_WORKLOAD}') AS workload, COALESCE(c.service_class, '') AS service_class,
       s.stack_id AS stack_id, CAST(SUM(s.value) AS BIGINT) AS value, CAST(SUM(s.count) AS BIGINT) AS count
FROM samples_10s s LEFT JOIN cgroup_names c ON s.cg = c.cg
WHERE s.ts >= ? AND s.ts < ? AND s.kind = ?
GROUP BY COALESCE(c.workload, '{UNKNOWN_WORKLOAD}'), COALESCE(c.service_class, ''), s.stack_id
ORDER BY workload, service_class, stack_id
"""
# Only what has a name can be chosen by name.
_CHOSEN_SUMS_BY_STACK = _SUMS_BY_STACK.replace("LEFT JOIN", "JOIN")

_SUMS_BY_CGROUP = """
SELECT s.ts AS ts, s.node AS node, s.cg AS cg,
       CAST(SUM(s.value) AS BIGINT) AS value, CAST(SUM(s.count) AS BIGINT) AS count
FROM samples_10s s
WHERE s.ts >= ? AND s.ts < ? AND s.kind = ?
GROUP BY s.ts, s.node, s.cg
ORDER BY ts, node, cg
"""

_SAMPLES_BY_QUALITY = """
SELECT COALESCE(q.quality, 'missing') AS quality, CAST(SUM(s.count) AS BIGINT) AS count
FROM samples_10s s
LEFT JOIN (SELECT stack_id, MIN(quality) AS quality FROM stacks GROUP BY stack_id) q ON s.stack_id = q.stack_id
WHERE s.ts >= ? AND s.ts < ? AND s.kind = ?
GROUP BY COALESCE(q.quality, 'missing')
ORDER BY quality
"""

_ADDED = ("count", "wait_ns", "run_ns", *(f"{cause}_ns" for cause in CAUSES))
_DELAYS_BY_CGROUP = f"""
SELECT d.cg AS cg, {", ".join(f"CAST(SUM(d.{name}) AS BIGINT) AS {name}" for name in _ADDED)}, MAX(d.max_ns) AS max_ns
FROM sched_delay d
WHERE d.ts >= ? AND d.ts < ?
GROUP BY d.cg
ORDER BY cg
"""

_WAIT_BUCKETS = "SELECT d.cg, d.bucket, d.bucket_count FROM sched_delay d WHERE d.ts >= ? AND d.ts < ? AND d.count > 0"

_INTERFERENCE = """
SELECT i.victim_cg AS victim_cg, i.aggressor_cg AS aggressor_cg, i.cause AS cause,
       CAST(SUM(i.delay_ns) AS BIGINT) AS delay_ns, CAST(SUM(i.events) AS BIGINT) AS events, MAX(i.max_ns) AS max_ns
FROM interference i
WHERE i.ts >= ? AND i.ts < ?
GROUP BY i.victim_cg, i.aggressor_cg, i.cause
ORDER BY victim_cg, aggressor_cg, cause
"""

_STACKS = "SELECT t.stack_id, t.frame_ids FROM stacks t JOIN wanted w ON t.stack_id = w.id"
_FRAMES = "SELECT t.* FROM frames t JOIN wanted w ON t.frame_id = w.id"
_CGROUPS = "SELECT * FROM cgroups ORDER BY cg, ts"
# Columns are matched by name here, so one whose name was damaged would come as null.
_NODES = 'SELECT * FROM nodes WHERE ts IS NOT NULL AND "end" IS NOT NULL AND node IS NOT NULL ORDER BY node, ts'


def read_cgroups(scan: Scan) -> pa.Table:
    """Every cgroup of the range's hours, one row each: of several rows of a `cg` the newest."""
    rows = scan.query(_CGROUPS, ["cgroups"])
    cg = rows["cg"].to_numpy()
    is_newest = np.append(cg[1:] != cg[:-1], True) if len(cg) else np.zeros(0, bool)
    return rows.filter(pa.array(is_newest))


def sum_by_stack(scan: Scan, cgroups: pa.Table, kind: str, is_choice: bool) -> pa.Table:
    """Sum samples to rows (workload, service_class, stack_id, value, count).

    `cgroups` gives the names; with `is_choice` samples of other cgroups are left out, else they are "(unknown)".
    """
    sql = _CHOSEN_SUMS_BY_STACK if is_choice else _SUMS_BY_STACK
    names = cgroups.select(["cg", "workload", "service_class"])
    return scan.query(sql, ["samples_10s"], _range(scan, kind), given={"cgroup_names": names})


def sum_by_cgroup(scan: Scan, kind: str) -> pa.Table:
    """Sum samples to rows (ts, node, cg, value, count), one a window and cgroup."""
    return scan.query(_SUMS_BY_CGROUP, ["samples_10s"], _range(scan, kind))


def count_by_quality(scan: Scan, kind: str) -> dict[str, int]:
    """Count samples by how the user part of their stack ended; "missing" where the stack's row was lost."""
    rows = scan.query(_SAMPLES_BY_QUALITY, ["samples_10s", "stacks"], _range(scan, kind))
    return dict(zip(rows["quality"].to_pylist(), rows["count"].to_pylist(), strict=True))


def sum_delays(scan: Scan) -> pa.Table:
    """Sum waits to rows (cg, count, wait_ns, run_ns, a column a cause, max_ns), one a cgroup."""
    return scan.query(_DELAYS_BY_CGROUP, ["sched_delay"], _range(scan))


def read_wait_buckets(scan: Scan) -> pa.Table:
    """The histograms of waits, sparse: rows (cg, bucket, bucket_count) of two lists of equal length."""
    return scan.query(_WAIT_BUCKETS, ["sched_delay"], _range(scan))


def sum_interference(scan: Scan) -> pa.Table:
    """Sum delay to rows (victim_cg, aggressor_cg, cause, delay_ns, events, max_ns)."""
    return scan.query(_INTERFERENCE, ["interference"], _range(scan))


def read_stacks(scan: Scan, stack_ids: npt.NDArray[np.int64]) -> pa.Table:
    """The wanted stacks that the store knows, as distinct rows (stack_id, frame_ids), by stack_id."""
    rows = scan.query(_STACKS, ["stacks"], given={"wanted": _ids(stack_ids)})
    _, first = np.unique(rows["stack_id"].to_numpy(), return_index=True)
    return rows.take(pa.array(first))


def read_frames(scan: Scan, frame_ids: npt.NDArray[np.int64]) -> pa.Table:
    """The wanted frames that the store knows, by (frame_id, inline_idx); of several rows one with a name is taken."""
    rows = scan.query(_FRAMES, ["frames"], given={"wanted": _ids(frame_ids)})
    order = pa.table({name: rows[name] for name in ("frame_id", "inline_idx", "function", "system_name")})
    order = order.append_column("unresolved", pc.not_equal(rows["state"], "ok"))
    keys = ("frame_id", "inline_idx", "unresolved", "function", "system_name")
    rows = rows.take(pc.sort_indices(order, [(key, "ascending") for key in keys]))
    frame, inline = rows["frame_id"].to_numpy(), rows["inline_idx"].to_numpy()
    is_first = np.ones(len(rows), bool)
    is_first[1:] = (frame[1:] != frame[:-1]) | (inline[1:] != inline[:-1])
    return rows.filter(pa.array(is_first))


def read_nodes(scan: Scan, with_surroundings: bool = False) -> pa.Table:
    """The windows of the range as rows of `nodes`, by (node, ts).

    `with_surroundings` adds, of each node, the windows of the minute before the range, its oldest and its newest.
    """
    since_ns = scan.since_ns - (_LOOK_BACK_NS if with_surroundings else 0)
    paths = set(scan.store.segments("nodes", since_ns, scan.until_ns, scan.node))
    for node in scan.store.node_names() if scan.node is None else (scan.node,):
        windows = scan.store.window_segments(node) if with_surroundings else []
        paths |= {*_first_readable(scan, windows), *_first_readable(scan, windows[::-1])}
    rows = scan.query(_NODES, ["nodes"], segments={"nodes": sorted(paths)})
    return rows if with_surroundings else _in_range(scan, rows)


def to_us(ns: int) -> int:
    """Cut a time to what the store keeps."""
    return min(max(ns // 1_000, 0), _LAST_US)


def _first_readable(scan: Scan, paths: list[Path]) -> list[Path]:
    for path in paths:
        if readable := scan.readable([path]):
            return readable
    return []


def _in_range(scan: Scan, rows: pa.Table) -> pa.Table:
    """Names of segments are cut to ms: the edges of the range may have brought a neighbour."""
    ts_us = np.asarray(rows["ts"].cast(pa.timestamp("us")), "datetime64[us]").astype(np.int64)
    return rows.filter(pa.array((ts_us >= to_us(scan.since_ns)) & (ts_us < to_us(scan.until_ns))))


def _range(scan: Scan, *more: Parameter) -> list[Parameter]:
    return [*(_EPOCH + timedelta(microseconds=to_us(ns)) for ns in (scan.since_ns, scan.until_ns)), *more]


def _ids(ids: npt.NDArray[np.int64]) -> pa.Table:
    return pa.table({"id": np.unique(ids)})
