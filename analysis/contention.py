"""A range of a store to who waited, and whose fault it was: cgroups rolled up to workloads.

A window belongs to the range when its start lies in it. Waits belong to the window in which they end, delay to the
window in which it passes: so in short ranges the delay of a pair may exceed the victim's wait. A workload that has
cgroups of several classes counts as the first of online, offline, system. Cgroups of one workload that delay each
other are no neighbours: their delay is the workload's own, cause `self`, in pairs and in the victim's split alike.
Refuses workloads that nothing in the range is called with `BadInput`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from analysis.calltree import Rows
from analysis.choice import require_known
from analysis.flame import sum_counters
from profiler.errors import CorruptData
from profiler.window import CAUSES, NEIGHBOURS, WAIT_BUCKETS, wait_bucket_bounds_ns
from storage.engine import Scan
from storage.queries import (
    UNKNOWN_WORKLOAD,
    read_cgroups,
    read_nodes,
    read_wait_buckets,
    sum_delays,
    sum_interference,
)
from storage.store import Store

NEIGHBOUR = "neighbour"
PAIR_CAUSES = (NEIGHBOUR, *CAUSES[len(NEIGHBOURS) :])
_SELF = CAUSES.index("self")
_NOBODY = -1


@dataclass(frozen=True)
class Victim:
    """The waits of one workload."""

    workload: str
    service_class: str
    count: int
    wait_ns: int
    run_ns: int
    cause_ns: dict[str, int]  # every name of CAUSES; adds up to the wait
    p50_ns: int | None  # upper bound of the histogram's bucket; None without waits
    p95_ns: int | None
    p99_ns: int | None
    max_ns: int
    missed: int  # switches to tasks not seen to wait, in the whole range: whose they were is not known
    lost: int  # waits not followed, or followed and not blamed on anybody, in the whole range


@dataclass(frozen=True)
class Pair:
    """Delay of one workload by another, or by what is nobody's."""

    victim: str
    aggressor: str | None  # None: nobody ran (throttled, idle), or no task did (irq, steal)
    aggressor_class: str | None
    cause: str  # one of PAIR_CAUSES; one that a newer agent knows stays under its name
    delay_ns: int
    share: float | None  # of the victim's whole wait; None if no wait of it ended in the range
    events: int  # run slices of the aggressor while the victim waited
    max_ns: int


@dataclass(frozen=True)
class Contention:
    """The answer to "who waited in this range, and for whom"."""

    victims: tuple[Victim, ...]  # every victim of `pairs`, and who ran without any; by wait_ns, largest first
    pairs: tuple[Pair, ...]  # by delay_ns, largest first
    windows: int
    covered_ns: int  # time that windows cover, of the node that has most
    is_accounted: bool  # False: none of these windows has run-queue accounting
    counters: dict[str, int]  # every key of `profiler.window.COUNTERS`, summed over the windows of the range
    bad_segments: tuple[str, ...]  # damaged files that were left out, relative to the store


@dataclass(frozen=True)
class _Workloads:
    """Every workload that a cgroup of the range belongs to, and that of each cgroup."""

    names: tuple[str, ...]  # sorted; then UNKNOWN_WORKLOAD, for cgroups whose row was lost
    classes: tuple[str, ...]
    cg: Rows  # sorted
    of_cg: Rows

    def rows_of(self, cg: Rows) -> Rows:
        """Row of each cgroup's workload."""
        row = np.searchsorted(self.cg, cg)
        found = np.append(self.cg, 0)[row] == cg
        return np.where(found & (row < len(self.cg)), np.append(self.of_cg, 0)[row], len(self.names) - 1)


@dataclass(frozen=True)
class _Delays:
    """Waits by workload; row `i` is the i-th of `_Workloads.names`."""

    is_seen: npt.NDArray[np.bool_]  # (n,) whether a cgroup of it ran
    count: Rows
    wait_ns: Rows
    run_ns: Rows
    max_ns: Rows
    cause_ns: Rows  # (n, causes)
    buckets: Rows  # (n, WAIT_BUCKETS)


@dataclass(frozen=True)
class _Pairs:
    """Delay by victim, aggressor and cause; the first two as rows of `_Workloads.names`."""

    victim: Rows
    aggressor: Rows  # _NOBODY where there is none
    cause: npt.NDArray[np.str_]  # as in `Pair`
    delay_ns: Rows
    events: Rows
    max_ns: Rows


def read_contention(
    store: Store,
    since_ns: int,
    until_ns: int,
    node: str | None = None,
    victim: str | None = None,
    aggressor: str | None = None,
) -> Contention:
    """Read who waited and for whom; with `victim` only its waits, with `aggressor` only what it caused and to whom."""
    if node is not None:
        require_known("node", node, store.node_names())
    scan = Scan(store, since_ns, until_ns, node)
    windows = read_nodes(scan)
    workloads = _name_workloads(read_cgroups(scan))
    if len(windows):
        for what, name in (("victim", victim), ("aggressor", aggressor)):
            if name is not None:
                require_known(what, name, workloads.names[:-1])
    delays = _read_delays(scan, workloads)
    pairs = _read_pairs(scan, workloads, delays)
    counters = sum_counters(windows)
    chosen = _choose(pairs, workloads, victim, aggressor)
    seen = np.union1d(np.flatnonzero(delays.is_seen), pairs.victim) if aggressor is None else np.unique(chosen.victim)
    victims = [row for row in seen.tolist() if victim in (None, workloads.names[row])]
    return Contention(
        victims=_victims(victims, delays, workloads, counters),
        pairs=_named_pairs(chosen, delays.wait_ns, workloads),
        windows=len(windows),
        covered_ns=_covered_ns(windows),
        is_accounted=bool(delays.is_seen.any()),
        counters=counters,
        bad_segments=scan.bad_segments,
    )


def percentiles_ns(buckets: Rows, percent: int) -> Rows:
    """The upper bound of the bucket that holds the percentile, for each histogram of an (n, WAIT_BUCKETS) array.

    The percentile is the smallest wait that at least `percent` of all waits do not exceed; 0 for an empty histogram.
    """
    reached = buckets.cumsum(axis=1)
    rank = (reached[:, -1] * percent + 99) // 100
    bucket = (reached < rank[:, None]).sum(axis=1)
    return np.where(rank > 0, wait_bucket_bounds_ns()[1:][np.minimum(bucket, WAIT_BUCKETS - 1)], 0)


def _name_workloads(cgroups: pa.Table) -> _Workloads:
    of_workload: dict[str, set[str]] = {}
    workload = cgroups["workload"].to_pylist()
    for name, service_class in zip(workload, cgroups["service_class"].to_pylist(), strict=True):
        of_workload.setdefault(name, set()).add(service_class)
    names = sorted(of_workload)
    number = {name: row for row, name in enumerate(names)}
    classes = [min(of_workload[name], key=_rank) for name in names]
    return _Workloads(
        names=(*names, UNKNOWN_WORKLOAD),
        classes=(*classes, ""),
        cg=np.asarray(cgroups["cg"], np.int64),
        of_cg=np.array([number[name] for name in workload], np.int64),
    )


def _rank(service_class: str) -> int:
    return NEIGHBOURS.index(service_class) if service_class in NEIGHBOURS else len(NEIGHBOURS)


def _read_delays(scan: Scan, workloads: _Workloads) -> _Delays:
    sums, length = sum_delays(scan), len(workloads.names)
    row = workloads.rows_of(_int64(sums["cg"]))
    causes = [_add_at(length, row, _int64(sums[f"{cause}_ns"])) for cause in CAUSES]
    return _Delays(
        is_seen=np.bincount(row, minlength=length) > 0,
        count=_add_at(length, row, _int64(sums["count"])),
        wait_ns=_add_at(length, row, _int64(sums["wait_ns"])),
        run_ns=_add_at(length, row, _int64(sums["run_ns"])),
        max_ns=_max_at(length, row, _int64(sums["max_ns"])),
        cause_ns=np.stack(causes, axis=1),
        buckets=_read_buckets(scan, workloads),
    )


def _read_buckets(scan: Scan, workloads: _Workloads) -> Rows:
    rows = read_wait_buckets(scan)
    bucket, count = rows["bucket"].combine_chunks(), rows["bucket_count"].combine_chunks()
    lengths = _int64(bucket.value_lengths())
    row = np.repeat(workloads.rows_of(_int64(rows["cg"])), lengths)
    buckets, counts = _int64(bucket.flatten()), _int64(count.flatten())
    if len(buckets) != len(counts):
        raise CorruptData(f"histograms of waits in {scan.store.root} are damaged; choose another range")
    cell = row * WAIT_BUCKETS + buckets.clip(0, WAIT_BUCKETS - 1)  # a flipped bit may name any bucket
    flat = _add_at(len(workloads.names) * WAIT_BUCKETS, cell, counts)
    return flat.reshape(-1, WAIT_BUCKETS)


def _read_pairs(scan: Scan, workloads: _Workloads, delays: _Delays) -> _Pairs:
    """Roll pairs up; what turns out to be a workload's own moves to `self` in `delays.cause_ns` too."""
    sums = sum_interference(scan)
    aggressor_cg = _int64(sums["aggressor_cg"])
    victim = workloads.rows_of(_int64(sums["victim_cg"]))
    aggressor = np.where(aggressor_cg == 0, _NOBODY, workloads.rows_of(aggressor_cg))
    cause = np.array(sums["cause"].to_pylist(), np.str_)
    delay_ns = _int64(sums["delay_ns"])
    is_own = (victim == aggressor) & (victim != len(workloads.names) - 1) & np.isin(cause, CAUSES)
    _move_to_self(delays.cause_ns, victim[is_own], cause[is_own], delay_ns[is_own])
    cause = np.where(is_own, "self", np.where(np.isin(cause, NEIGHBOURS), NEIGHBOUR, cause))
    causes, cause_row = np.unique(cause, return_inverse=True)
    keys, group = np.unique(np.stack([victim, aggressor, cause_row], axis=1), axis=0, return_inverse=True)
    group, length = group.reshape(-1), len(keys)
    return _Pairs(
        victim=keys[:, 0],
        aggressor=keys[:, 1],
        cause=causes[keys[:, 2]],
        delay_ns=_add_at(length, group, delay_ns),
        events=_add_at(length, group, _int64(sums["events"])),
        max_ns=_max_at(length, group, _int64(sums["max_ns"])),
    )


def _move_to_self(cause_ns: Rows, victim: Rows, cause: npt.NDArray[np.str_], delay_ns: Rows) -> None:
    """Move delay between causes of the victims, as far as their waits have it; their sums stay."""
    own_ns = np.zeros_like(cause_ns)
    column = np.array([CAUSES.index(name) for name in cause.tolist()], np.int64)
    np.add.at(own_ns, (victim, column), delay_ns)
    own_ns = np.minimum(own_ns, cause_ns)
    cause_ns -= own_ns
    cause_ns[:, _SELF] += own_ns.sum(axis=1)


def _choose(pairs: _Pairs, workloads: _Workloads, victim: str | None, aggressor: str | None) -> _Pairs:
    chosen = np.ones(len(pairs.victim), bool)
    for name, rows in ((victim, pairs.victim), (aggressor, pairs.aggressor)):
        if name is not None:
            chosen &= rows == (workloads.names.index(name) if name in workloads.names else len(workloads.names))
    return _Pairs(*(column[chosen] for column in vars(pairs).values()))


def _victims(rows: list[int], delays: _Delays, workloads: _Workloads, counters: dict[str, int]) -> tuple[Victim, ...]:
    p50_ns, p95_ns, p99_ns = (percentiles_ns(delays.buckets, percent).tolist() for percent in (50, 95, 99))
    victims = [
        Victim(
            workload=workloads.names[row],
            service_class=workloads.classes[row],
            count=int(delays.count[row]),
            wait_ns=int(delays.wait_ns[row]),
            run_ns=int(delays.run_ns[row]),
            cause_ns=dict(zip(CAUSES, delays.cause_ns[row].tolist(), strict=True)),
            p50_ns=p50_ns[row] or None,
            p95_ns=p95_ns[row] or None,
            p99_ns=p99_ns[row] or None,
            max_ns=int(delays.max_ns[row]),
            missed=counters["missed_waits"],
            lost=counters["lost_waits"] + counters["lost_victims"],
        )
        for row in rows
    ]
    return tuple(sorted(victims, key=lambda victim: (-victim.wait_ns, victim.workload)))


def _named_pairs(pairs: _Pairs, wait_ns: Rows, workloads: _Workloads) -> tuple[Pair, ...]:
    names, classes = (*workloads.names, None), (*workloads.classes, None)  # _NOBODY is the last
    order = np.lexsort((pairs.cause, pairs.aggressor, pairs.victim, -pairs.delay_ns))
    columns = (column[order].tolist() for column in vars(pairs).values())
    return tuple(
        Pair(
            victim=workloads.names[victim],
            aggressor=names[aggressor],
            aggressor_class=classes[aggressor],
            cause=cause,
            delay_ns=delay_ns,
            share=delay_ns / int(wait_ns[victim]) if wait_ns[victim] else None,
            events=events,
            max_ns=max_ns,
        )
        for victim, aggressor, cause, delay_ns, events, max_ns in zip(*columns, strict=True)
    )


def _covered_ns(windows: pa.Table) -> int:
    covered_us: dict[str, int] = {}
    lengths_us = _us(windows["end"]) - _us(windows["ts"])
    for node, length_us in zip(windows["node"].to_pylist(), lengths_us.tolist(), strict=True):
        covered_us[node] = covered_us.get(node, 0) + length_us
    return max(covered_us.values(), default=0) * 1_000


def _us(column: Any) -> Rows:
    return np.asarray(column.cast(pa.timestamp("us")), "datetime64[us]").astype(np.int64)


def _int64(column: Any) -> Rows:
    return np.asarray(column, np.int64)


def _add_at(length: int, rows: Rows, values: Rows) -> Rows:
    """Sum values by row; exact, which weights of `np.bincount` are not."""
    totals = np.zeros(length, np.int64)
    np.add.at(totals, rows, values)
    return totals


def _max_at(length: int, rows: Rows, values: Rows) -> Rows:
    largest = np.zeros(length, np.int64)
    np.maximum.at(largest, rows, values)
    return largest
