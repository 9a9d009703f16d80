"""Windows and sums by cgroup to lines over time, and to the time that no window covers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.calltree import OTHER, Rows
from storage.queries import UNKNOWN_WORKLOAD

MAX_SERIES = 12
MAX_STEPS = 300
NS_PER_S = 1_000_000_000
# Steps that people read without arithmetic; above a day whole days.
_STEPS_S = (10, 20, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600, 43_200, 86_400)


@dataclass(frozen=True)
class Windows:
    """Rows of `nodes` with their times in ns, by (node, start)."""

    rows: pa.Table
    node: npt.NDArray[np.object_]
    start_ns: Rows
    end_ns: Rows

    def __len__(self) -> int:
        return len(self.start_ns)

    def between(self, since_ns: int, until_ns: int) -> Windows:
        """Keep the windows that start in the half-open range, by us as the store's queries do."""
        start_us = self.start_ns // 1_000
        return self._keep((start_us >= since_ns // 1_000) & (start_us < until_ns // 1_000))

    def of_node(self, name: str) -> Windows:
        """Keep the windows of one node."""
        return self._keep(self.node == name)

    def _keep(self, mask: npt.NDArray[np.bool_]) -> Windows:
        return Windows(self.rows.filter(pa.array(mask)), self.node[mask], self.start_ns[mask], self.end_ns[mask])


@dataclass(frozen=True)
class NamedSums:
    """Sums of one window and cgroup each, with the workload of the cgroup."""

    start_ns: Rows
    node: npt.NDArray[np.object_]
    cg: Rows
    workload: Rows  # row in `workloads`
    workloads: tuple[tuple[str, str], ...]  # (workload, service class)
    value_ns: Rows
    samples: Rows


@dataclass(frozen=True)
class Series:
    """Cores in use over time, one line a workload; the largest `MAX_SERIES` by name, the rest as "(other)".

    A step in which no window was stored is NaN, so that a gap is not drawn as an idle machine.
    """

    step_ns: int
    starts_ns: Rows  # (n,) from the first to the last window of the range
    cores: dict[str, npt.NDArray[np.float64]]  # (n,) each, largest workload first


def decode_windows(rows: pa.Table) -> Windows:
    """Give rows of `nodes` their times in ns."""
    return Windows(rows, _objects(rows, "node"), _ns(rows, "ts"), _ns(rows, "end"))


def name_sums(sums: pa.Table, cgroups: pa.Table) -> NamedSums:
    """Give rows (ts, node, cg, value, count) their workload; `cgroups` is sorted by cg, one row each."""
    pairs = list(zip(cgroups["workload"].to_pylist(), cgroups["service_class"].to_pylist(), strict=True))
    workloads = tuple(sorted({*pairs, (UNKNOWN_WORKLOAD, "")}))
    number = {pair: row for row, pair in enumerate(workloads)}
    # The last entry answers for every cgroup without a row.
    of_cgroup = np.array([number[pair] for pair in [*pairs, (UNKNOWN_WORKLOAD, "")]], np.int64)
    known, cg = np.asarray(cgroups["cg"], np.int64), np.asarray(sums["cg"], np.int64)
    row = np.searchsorted(known, cg)
    row[np.append(known, 0)[row] != cg] = len(known)
    return NamedSums(
        start_ns=_ns(sums, "ts"),
        node=_objects(sums, "node"),
        cg=cg,
        workload=of_cgroup[row],
        workloads=workloads,
        value_ns=np.asarray(sums["value"], np.int64),
        samples=np.asarray(sums["count"], np.int64),
    )


def cores_over_time(windows: Windows, sums: NamedSums, largest_first: list[str]) -> Series:
    """Divide CPU time by the time that windows of the node cover in each step, then add the nodes up."""
    if not len(windows):
        return Series(_STEPS_S[0] * NS_PER_S, np.zeros(0, np.int64), {})
    step_ns = choose_step_ns(windows)
    first_ns = int(windows.start_ns.min()) // step_ns * step_ns
    starts_ns = np.arange(first_ns, int(windows.start_ns.max()) + 1, step_ns, dtype=np.int64)
    lines = _line_names(largest_first)
    line_of_workload = np.array([min(_position(largest_first, name), len(lines) - 1) for name, _ in sums.workloads])
    cores, is_covered = np.zeros((len(lines), len(starts_ns))), np.zeros(len(starts_ns), bool)
    for name in np.unique(windows.node).tolist():
        own = windows.of_node(name)
        covered_ns = np.zeros(len(starts_ns), np.int64)
        np.add.at(covered_ns, (own.start_ns - first_ns) // step_ns, own.end_ns - own.start_ns)
        rows = (sums.node == name) & np.isin(sums.start_ns, own.start_ns)
        step = (sums.start_ns[rows] - first_ns) // step_ns
        used_ns = sums.value_ns[rows] / np.maximum(covered_ns[step], 1)
        np.add.at(cores, (line_of_workload[sums.workload[rows]], step), used_ns)
        is_covered |= covered_ns > 0
    cores[:, ~is_covered] = np.nan
    return Series(step_ns, starts_ns, dict(zip(lines, cores, strict=True)))


def choose_step_ns(windows: Windows) -> int:
    """Pick the smallest readable step that is no shorter than a window and gives at most `MAX_STEPS` of them."""
    range_ns = int(windows.start_ns.max() - windows.start_ns.min())
    needed_ns = max(range_ns // (MAX_STEPS - 1) + 1, int((windows.end_ns - windows.start_ns).max()))
    readable = [step_s * NS_PER_S for step_s in _STEPS_S if step_s * NS_PER_S >= needed_ns]
    day_ns = _STEPS_S[-1] * NS_PER_S
    return readable[0] if readable else -(-needed_ns // day_ns) * day_ns


def gap_ns(known: Windows, since_ns: int, until_ns: int) -> int:
    """Sum the holes between consecutive windows of each node, cut to the range."""
    total_ns = 0
    for name in np.unique(known.node).tolist():
        own = known.of_node(name)
        hole_start = np.maximum(np.maximum.accumulate(own.end_ns)[:-1], since_ns)
        hole_end = np.minimum(own.start_ns[1:], until_ns)
        total_ns += int(np.maximum(hole_end - hole_start, 0).sum())
    return total_ns


def _line_names(largest_first: list[str]) -> list[str]:
    if len(largest_first) <= MAX_SERIES:
        return largest_first
    return [*largest_first[:MAX_SERIES], OTHER]


def _position(names: list[str], name: str) -> int:
    return names.index(name) if name in names else 0  # a workload without samples adds nothing anywhere


def _ns(rows: pa.Table, column: str) -> Rows:
    return np.asarray(rows[column].cast(pa.timestamp("us")), "datetime64[us]").astype(np.int64) * 1_000


def _objects(rows: pa.Table, column: str) -> npt.NDArray[np.object_]:
    return np.array(rows[column].to_pylist(), object)
