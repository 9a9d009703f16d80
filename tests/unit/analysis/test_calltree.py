"""Call trees: what is merged, what is kept apart, and that no CPU time is lost on the way."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.calltree import OTHER, CallTree, FrameNames, WeightedStacks, build_calltree, prune, self_samples

NAMES = FrameNames(
    names=("a", "b", "c", "a", "b"),
    modules=("x", "x", "x", "y", "kernel"),
    kinds=("user", "user", "user", "user", "kernel"),
    states=("ok",) * 5,
)
STACK = st.tuples(st.integers(0, 2), st.lists(st.integers(0, 4), max_size=6), st.integers(0, 50))


def make_stacks(stacks, workloads=("w0", "w1", "w2")):
    """Build from (workload, frames leaf first, samples); a sample weighs 10 ns."""
    samples = np.array([count for _, _, count in stacks], np.int64)
    return WeightedStacks(
        workload=np.array([workload for workload, _, _ in stacks], np.int64),
        offsets=np.concatenate([[0], np.cumsum([len(frames) for _, frames, _ in stacks])]).astype(np.int64),
        frames=np.array([frame for _, frames, _ in stacks for frame in frames], np.int64),
        value_ns=samples * 10,
        samples=samples,
        workloads=workloads,
        frame_names=NAMES,
    )


def paths(tree):
    """Every node as its path of (name, module) to its total."""
    found, path = {}, []
    for row in range(len(tree.parent)):
        del path[tree.depth[row] :]
        path.append((tree.names[tree.name[row]], tree.modules[tree.name[row]]))
        assert tuple(path) not in found, "siblings of one name"
        found[tuple(path)] = int(tree.total_value[row])
    return found


def expected_paths(stacks):
    found = {(("all", ""),): 10 * sum(count for _, _, count in stacks)}
    for workload, frames, count in stacks:
        path = [("all", ""), (f"w{workload}", "")]
        path += [(NAMES.names[frame], NAMES.modules[frame]) for frame in reversed(frames)]
        for depth in range(2, len(path) + 1):
            key = tuple(path[:depth])
            found[key] = found.get(key, 0) + 10 * count
    return found


def assert_sound(tree: CallTree):
    n = len(tree.parent)
    assert tree.parent[0] == -1
    assert (tree.parent[1:] < np.arange(1, n)).all()
    assert (tree.depth[1:] == tree.depth[tree.parent[1:]] + 1).all()
    of_children = np.zeros(n, np.int64)
    np.add.at(of_children, tree.parent[1:], tree.total_value[1:])
    assert (tree.total_value == tree.self_value + of_children).all()
    assert (tree.self_value >= 0).all()
    assert tree.self_value.sum() == tree.total_value[0]
    assert self_samples(tree).sum() == tree.samples[0]
    for row in range(n):
        siblings = [tree.names[tree.name[child]] for child in np.flatnonzero(tree.parent == row)]
        assert siblings == sorted(siblings)
    assert len(tree.names) == len(tree.modules) == len(tree.kinds) == len(tree.states)


@given(st.lists(STACK, max_size=12))
def test_a_tree_holds_every_path_with_its_weight(stacks):
    tree = build_calltree(make_stacks(stacks))
    assert_sound(tree)
    assert paths(tree) == expected_paths(stacks)
    assert tree.samples[0] == sum(count for _, _, count in stacks)


@given(st.lists(STACK, max_size=8), st.randoms())
def test_the_order_of_stacks_does_not_matter(stacks, random):
    shuffled = random.sample(stacks, len(stacks))
    one, other = build_calltree(make_stacks(stacks)), build_calltree(make_stacks(shuffled))
    assert paths(one) == paths(other)
    assert one.name.tolist() == other.name.tolist()


@given(st.lists(STACK, max_size=12), st.integers(0, 30))
def test_pruning_keeps_totals_and_its_limit(stacks, max_nodes):
    tree = build_calltree(make_stacks(stacks))
    small = prune(tree, max_nodes)
    assert_sound(small)
    assert len(small.parent) <= max(max_nodes, 2)
    assert (small.total_value[0], small.samples[0]) == (tree.total_value[0], tree.samples[0])
    whole = paths(tree)
    for path, total_value in paths(small).items():
        assert path[-1][0] == OTHER or whole[path] == total_value


def test_pruning_keeps_the_heaviest_path():
    stacks = [(0, [2, 1, 0], 50), (0, [1, 0], 1), (1, [0], 2), (2, [0], 3)]
    small = prune(build_calltree(make_stacks(stacks)), 6)
    kept = paths(small)
    assert kept[(("all", ""), ("w0", ""), ("a", "x"), ("b", "x"), ("c", "x"))] == 500
    assert kept[(("all", ""), (OTHER, ""))] == 50


def test_no_stacks_give_the_root_alone():
    tree = build_calltree(make_stacks([], workloads=()))
    assert paths(tree) == {(("all", ""),): 0}
    assert tree.kinds == ("root",)


def test_one_name_in_two_modules_stays_apart_and_in_one_it_merges():
    tree = build_calltree(make_stacks([(0, [0], 1), (0, [3], 2), (0, [0], 4)]))
    assert paths(tree)[(("all", ""), ("w0", ""), ("a", "x"))] == 50
    assert paths(tree)[(("all", ""), ("w0", ""), ("a", "y"))] == 20


@pytest.mark.parametrize("weight", [2**53 + 1, 2**61])
def test_large_weights_are_exact(weight):
    stacks = make_stacks([(0, [0], 1)])
    stacks.value_ns[0] = weight
    assert build_calltree(stacks).total_value.tolist() == [weight] * 3
