"""Accounts by slot to the window's tables by cgroup: who waited, how long and why, and who ran meanwhile.

Kernel threads are groups without a cgroup; they become pseudo cgroups, so that every aggressor that is a task has a
name and a class like any other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from profiler.accounting import CAUSE_COLUMNS, CAUSE_OF_CLASS, GROUPS, Accounts
from profiler.cgroups import cgroup_key
from profiler.layout import CLASSES, SLOT_FIRST
from profiler.window import CAUSES, DELAY, INTERFERENCE, WAIT_KINDS, Cgroup, Node

_NO_AGGRESSOR = -1
_KERNEL = next(class_ for class_, cause in CAUSE_OF_CLASS.items() if cause == "kernel")
_PSEUDO_IDS = 1 << 63  # kernel ids of cgroups count up from 1


def group_cgroups(node: Node) -> dict[int, Cgroup]:
    """Return the pseudo cgroups of kernel tasks by their slots."""
    return {
        slot: Cgroup(
            cg=cgroup_key(node.name, node.boot_id, _PSEUDO_IDS + slot, 0),
            kernel_id=0,
            path=name,
            workload=name,
            service_class="system",
        )
        for slot, name in GROUPS.items()
    }


def delay_rows(accounts: Accounts, cgroup_rows: npt.NDArray[np.int32]) -> npt.NDArray[np.void]:
    """Return DELAY rows of the slots that ran or waited; `cgroup_rows` gives the window's row of each slot, or -1."""
    count = accounts.delays["kinds"].sum(axis=1)
    slots = np.flatnonzero(((count > 0) | (accounts.run_ns > 0)) & (cgroup_rows >= 0))
    delays = accounts.delays[slots]
    rows = np.zeros(len(slots), dtype=DELAY)
    rows["cgroup"], rows["run_ns"] = cgroup_rows[slots], accounts.run_ns[slots]
    for name in ("wait_ns", "max_ns", "buckets"):
        rows[name] = delays[name]
    rows["cause_ns"] = delays["cause_ns"][:, CAUSE_COLUMNS]
    rows["kind_count"] = delays["kinds"][:, : len(WAIT_KINDS)]
    return rows


def interference_rows(accounts: Accounts, cgroup_rows: npt.NDArray[np.int32]) -> npt.NDArray[np.void]:
    """Return INTERFERENCE rows: a pair each, and a row for each victim that was throttled."""
    pairs, blames = accounts.pairs, accounts.blames
    known = np.append(cgroup_rows, _NO_AGGRESSOR)
    last = len(cgroup_rows)
    rows = np.zeros(len(pairs), dtype=INTERFERENCE)
    rows["victim"] = known[np.minimum(pairs["victim"], last)]
    rows["aggressor"] = known[np.minimum(pairs["aggressor"], last)]
    causes = np.array([CAUSES.index(CAUSE_OF_CLASS[class_]) for class_ in range(CLASSES)])
    is_self = (pairs["victim"] == pairs["aggressor"]) & (pairs["aggressor"] >= SLOT_FIRST) & (pairs["class"] != _KERNEL)
    rows["cause"] = np.where(is_self, CAUSES.index("self"), causes[pairs["class"]])
    for name in ("delay_ns", "events", "max_ns"):
        rows[name] = blames[name]
    rows = np.concatenate([rows[rows["victim"] >= 0], _throttled_rows(accounts, cgroup_rows)])
    return rows[np.lexsort((rows["cause"], rows["aggressor"], rows["victim"]))]


def _throttled_rows(accounts: Accounts, cgroup_rows: npt.NDArray[np.int32]) -> npt.NDArray[np.void]:
    throttled_ns = accounts.delays["cause_ns"][:, CAUSE_COLUMNS[CAUSES.index("throttled")]]
    slots = np.flatnonzero((throttled_ns > 0) & (cgroup_rows >= 0))
    rows = np.zeros(len(slots), dtype=INTERFERENCE)
    rows["victim"], rows["aggressor"] = cgroup_rows[slots], _NO_AGGRESSOR
    rows["cause"] = CAUSES.index("throttled")
    rows["delay_ns"] = throttled_ns[slots]
    return rows
