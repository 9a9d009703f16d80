"""A selection of a store to one call tree, with what was lost on the way.

A window belongs to a range when its start lies in it, so adjoining ranges add up. Damaged segments are left out
and named in the answer. A workload, node or cgroup that nothing in the range is called is refused with `BadInput`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from analysis.calltree import CallTree, build_calltree
from analysis.choice import choose_cgroups, require_known
from analysis.stacks import resolve_sums
from profiler.window import COUNTERS
from storage.engine import Scan
from storage.queries import read_cgroups, read_nodes, sum_by_stack
from storage.selection import Selection
from storage.store import Store


@dataclass(frozen=True)
class Flame:
    """The answer to "where did the CPU time of this selection go"."""

    tree: CallTree  # root "all", then one node a workload, then frames from the outermost caller to the leaf
    windows: int  # windows whose samples were summed
    counters: dict[str, int]  # every key of `profiler.window.COUNTERS`, summed over the windows of the range
    bad_segments: tuple[str, ...]  # damaged files that were left out, relative to the store


def read_flame(store: Store, selection: Selection) -> Flame:
    """Sum the selected samples into a call tree; an empty range gives a tree of its root alone."""
    if selection.node is not None:
        require_known("node", selection.node, store.node_names())
    scan = Scan(store, selection.since_ns, selection.until_ns, selection.node)
    windows = read_nodes(scan)
    cgroups = read_cgroups(scan)
    is_choice = selection.workload is not None or selection.cgroup is not None
    if len(windows):
        cgroups = choose_cgroups(cgroups, selection)
    sums = sum_by_stack(scan, cgroups, selection.kind, is_choice)
    tree = build_calltree(resolve_sums(scan, sums))
    return Flame(tree, len(windows), sum_counters(windows), scan.bad_segments)


def sum_counters(windows: pa.Table) -> dict[str, int]:
    """Sum every counter over rows of `nodes`; windows of older agents lack some."""
    stored = set(windows.column_names)
    return {name: (pc.sum(windows[name]).as_py() or 0) if name in stored else 0 for name in COUNTERS}
