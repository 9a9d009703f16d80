"""Folded lines stay one line a path, whatever names contain."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from analysis.calltree import FrameNames, WeightedStacks, build_calltree
from analysis.folded import folded_lines


def tree_of(names, kinds, counts):
    rows = np.arange(len(names), dtype=np.int64)
    return build_calltree(
        WeightedStacks(
            workload=np.zeros(len(names), np.int64),
            offsets=np.arange(len(names) + 1, dtype=np.int64),
            frames=rows,
            value_ns=np.array(counts, np.int64) * 1000,
            samples=np.array(counts, np.int64),
            workloads=("w",),
            frame_names=FrameNames(tuple(names), ("m",) * len(names), tuple(kinds), ("ok",) * len(names)),
        )
    )


@given(st.lists(st.text(min_size=1), max_size=6))
def test_any_name_leaves_lines_parseable(names):
    lines = folded_lines(tree_of(names, ["user"] * len(names), [1] * len(names)), count_samples=True)
    parsed = [line.rsplit(" ", 1) for line in lines]
    assert all(stack.count(";") == 1 and stack.startswith("w;") for stack, _ in parsed)
    assert sum(int(weight) for _, weight in parsed) == len(names)
    assert "\n".join(lines).splitlines() == lines


def test_kernel_frames_are_marked_and_nanoseconds_are_the_default():
    assert folded_lines(tree_of(["read", "vfs_read"], ["user", "kernel"], [2, 3])) == [
        "w;read 2000",
        "w;vfs_read_[k] 3000",
    ]


def test_paths_that_look_equal_share_a_line():
    assert folded_lines(tree_of(["a;b", "a:b"], ["user"] * 2, [1, 2]), count_samples=True) == ["w;a:b 3"]
