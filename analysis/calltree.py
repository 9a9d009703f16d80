"""Weighted stacks to a call tree in columns, the form that every flame graph and folded file is drawn from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ROOT = "all"
OTHER = "(other)"

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class CallTree:
    """A call tree in pre-order: row 0 is the root, a parent stands before its children.

    Siblings are sorted by name, so that equal profiles give equal trees. `self_value` sums to `total_value[0]`.
    """

    unit: str  # "ns"
    parent: npt.NDArray[np.int32]  # (n,) row of the parent; -1 for the root
    depth: npt.NDArray[np.int32]  # (n,) 0 for the root
    name: npt.NDArray[np.int32]  # (n,) row in `names`
    self_value: npt.NDArray[np.int64]  # (n,) in `unit`
    total_value: npt.NDArray[np.int64]  # (n,)
    samples: npt.NDArray[np.int64]  # (n,) samples at or below the node
    names: tuple[str, ...]  # what the frame is called: function, or module+0x… where there is none
    modules: tuple[str, ...]  # (len(names),) module of the name, "" for the root and the workload level
    kinds: tuple[str, ...]  # (len(names),) "root", "workload", "user", "kernel" or "synthetic"
    states: tuple[str, ...]  # (len(names),) "ok", or why the frame has no function name


@dataclass(frozen=True)
class FrameNames:
    """What frames are called; two frames of equal name and kind but different module are different."""

    names: tuple[str, ...]
    modules: tuple[str, ...]
    kinds: tuple[str, ...]
    states: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __add__(self, other: FrameNames) -> FrameNames:
        return FrameNames(
            self.names + other.names,
            self.modules + other.modules,
            self.kinds + other.kinds,
            self.states + other.states,
        )

    def take(self, rows: Rows) -> FrameNames:
        """Give the names of some rows, in their order."""
        columns = (self.names, self.modules, self.kinds, self.states)
        return FrameNames(*(tuple(column[row] for row in rows.tolist()) for column in columns))


@dataclass(frozen=True)
class WeightedStacks:
    """Stacks in compressed rows, leaf first, each with its workload and weights.

    Row `i` is `frames[offsets[i]:offsets[i + 1]]`, row numbers of `frame_names`.
    """

    workload: Rows  # (n,) row in `workloads`
    offsets: Rows  # (n + 1,)
    frames: Rows  # (offsets[-1],)
    value_ns: Rows  # (n,)
    samples: Rows  # (n,)
    workloads: tuple[str, ...]
    frame_names: FrameNames


@dataclass(frozen=True)
class _Nodes:
    """Nodes of a tree in any order in which parents stand before their children; `name` is a rank, see `_ranked`."""

    parent: Rows
    depth: Rows
    name: Rows
    total_value: Rows
    samples: Rows


def build_calltree(stacks: WeightedStacks) -> CallTree:
    """Merge stacks from their roots: level 0 is "all", level 1 the workload, then the frames, outermost first."""
    workload_names = _plain_names(stacks.workloads, "workload")
    names = _plain_names((ROOT,), "root") + workload_names + stacks.frame_names
    rank, ranked = _ranked(names)
    workload = rank[1 + stacks.workload]
    frames = rank[1 + len(workload_names) + stacks.frames]
    return _assemble(_merge_levels(stacks, workload, frames, int(rank[0])), ranked)


def prune(tree: CallTree, max_nodes: int) -> CallTree:
    """Keep the heaviest nodes, at most `max_nodes` of them; what is cut from a node goes to its child "(other)".

    Totals of all that is kept stay as they were. At least the root and one "(other)" remain.
    """
    if len(tree.parent) <= max(max_nodes, 2):
        return tree
    # Pre-order breaks ties, so a parent always stands before its children and what is kept hangs together.
    heaviest = np.lexsort((np.arange(len(tree.parent)), -tree.total_value))
    keep, needs_other = _largest_fit(tree, heaviest, max(max_nodes, 2))
    new_row = np.cumsum(keep) - 1
    cut = np.flatnonzero(~keep & keep[tree.parent])  # the tops of what is cut
    others = np.flatnonzero(needs_other)
    other_row = np.full(len(keep), -1)
    other_row[others] = np.arange(len(others))
    names = FrameNames(tree.names, tree.modules, tree.kinds, tree.states)
    names += FrameNames((OTHER,), ("",), ("synthetic",), ("cut: too small to show",))
    rank, ranked = _ranked(names)
    nodes = _Nodes(
        parent=np.concatenate([np.where(tree.parent[keep] < 0, -1, new_row[tree.parent[keep]]), new_row[others]]),
        depth=np.concatenate([tree.depth[keep], tree.depth[others] + 1]).astype(np.int64),
        name=np.concatenate([rank[tree.name[keep]], np.full(len(others), rank[-1])]),
        total_value=np.concatenate(
            [tree.total_value[keep], _sum_at(other_row[tree.parent[cut]], tree.total_value[cut], len(others))]
        ),
        samples=np.concatenate(
            [tree.samples[keep], _sum_at(other_row[tree.parent[cut]], tree.samples[cut], len(others))]
        ),
    )
    return _assemble(nodes, ranked)


def self_samples(tree: CallTree) -> Rows:
    """Samples of each node itself, without its children's."""
    of_children = _sum_at(tree.parent[1:].astype(np.int64), tree.samples[1:], len(tree.parent))
    return np.subtract(tree.samples, of_children)


def _plain_names(names: tuple[str, ...], kind: str) -> FrameNames:
    return FrameNames(names, ("",) * len(names), (kind,) * len(names), ("ok",) * len(names))


def _ranked(names: FrameNames) -> tuple[Rows, FrameNames]:
    """Number names in the order of siblings; equal (name, module, kind) get one number, and the first's state."""
    keys = list(zip(names.names, names.modules, names.kinds, strict=True))
    first: dict[tuple[str, str, str], int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    number = {key: rank for rank, key in enumerate(sorted(first))}
    rank = np.array([number[key] for key in keys], np.int64)
    return rank, names.take(np.array([first[key] for key in sorted(first)], np.int64))


def _merge_levels(stacks: WeightedStacks, workload: Rows, frames: Rows, root_name: int) -> _Nodes:
    """Give stacks of equal callers one node, level by level: one sort a level, no loop over frames."""
    n = len(stacks.workload)
    parents, levels, names = [np.array([-1])], [np.array([0])], [np.array([root_name])]
    values, samples = [np.array([stacks.value_ns.sum()])], [np.array([stacks.samples.sum()])]
    active, node, made, depth = np.arange(n), np.zeros(n, np.int64), 1, 1
    outermost, length = stacks.offsets[1:] - 1, np.diff(stacks.offsets)
    while len(active):
        name = workload[active] if depth == 1 else frames[outermost[active] - (depth - 2)]
        order = np.lexsort((name, node))
        is_first = np.ones(len(order), bool)
        is_first[1:] = (np.diff(node[order]) != 0) | (np.diff(name[order]) != 0)
        first, group = order[is_first], np.cumsum(is_first) - 1
        parents.append(node[first])
        names.append(name[first])
        levels.append(np.full(len(first), depth))
        values.append(_sum_at(group, stacks.value_ns[active[order]], len(first)))
        samples.append(_sum_at(group, stacks.samples[active[order]], len(first)))
        goes_on = length[active[order]] >= depth
        active, node = active[order][goes_on], made + group[goes_on]
        made, depth = made + len(first), depth + 1
    return _Nodes(*(np.concatenate(column) for column in (parents, levels, names, values, samples)))


def _assemble(nodes: _Nodes, ranked: FrameNames) -> CallTree:
    """Put nodes into pre-order, drop unused names, and derive what each node has for itself."""
    position = _preorder(nodes)
    order = np.argsort(position)
    parent = np.where(nodes.parent[order] < 0, -1, position[nodes.parent[order]])
    used, name = np.unique(nodes.name[order], return_inverse=True)
    total = nodes.total_value[order]
    names = ranked.take(used)
    return CallTree(
        unit="ns",
        parent=parent.astype(np.int32),
        depth=nodes.depth[order].astype(np.int32),
        name=name.reshape(-1).astype(np.int32),
        self_value=total - _sum_at(parent[1:], total[1:], len(total)),
        total_value=total,
        samples=nodes.samples[order],
        names=names.names,
        modules=names.modules,
        kinds=names.kinds,
        states=names.states,
    )


def _preorder(nodes: _Nodes) -> Rows:
    """Find each node's place: behind its parent and all that its earlier siblings hold."""
    by_level = np.lexsort((nodes.name, nodes.parent, nodes.depth))
    levels = np.split(by_level, np.flatnonzero(np.diff(nodes.depth[by_level])) + 1)
    held = np.ones(len(by_level), np.int64)
    for level in reversed(levels[1:]):
        np.add.at(held, nodes.parent[level], held[level])
    position = np.zeros(len(by_level), np.int64)
    for level in levels[1:]:
        parent = nodes.parent[level]
        before = np.cumsum(held[level]) - held[level]
        _, first, sibling_group = np.unique(parent, return_index=True, return_inverse=True)
        position[level] = position[parent] + 1 + before - before[first][sibling_group.reshape(-1)]
    return position


def _largest_fit(tree: CallTree, heaviest: Rows, max_nodes: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Find by bisection how many of the heaviest nodes fit together with the "(other)" nodes that they then need."""
    low, high = 1, max_nodes
    while low < high:
        middle = (low + high + 1) // 2
        keep, needs_other = _cut_behind(tree, heaviest[:middle])
        low, high = (middle, high) if keep.sum() + needs_other.sum() <= max_nodes else (low, middle - 1)
    return _cut_behind(tree, heaviest[:low])


def _cut_behind(tree: CallTree, kept: Rows) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    keep = np.zeros(len(tree.parent), bool)
    keep[kept] = True
    needs_other = np.zeros(len(tree.parent), bool)
    needs_other[tree.parent[1:][~keep[1:] & keep[tree.parent[1:]]]] = True
    return keep, needs_other


def _sum_at(rows: Rows, weights: Rows, length: int) -> Rows:
    """Sum weights by row; unlike `bincount` without a detour through floats."""
    sums = np.zeros(length, np.int64)
    np.add.at(sums, rows, weights)
    return sums
