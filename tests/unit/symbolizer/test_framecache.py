"""The bounded memory of resolved locations."""

import numpy as np

from symbolizer.framecache import FrameCache
from symbolizer.rows import synthetic_rows
from symbolizer.symbolised import FRAMES


def keys(*values):
    return np.array(values, np.uint64)


def frames(*names):
    row = synthetic_rows(keys(2)).to_pylist()[0]
    return FRAMES.empty_table().from_pylist([row | {"function": name} for name in names], schema=FRAMES)


def known(cache, *values):
    missing = set(cache.missing(keys(*values)).tolist())
    return [value for value in values if value not in missing]


def test_what_was_added_comes_back_in_the_order_asked():
    cache = FrameCache(100, 1 << 20)
    assert cache.missing(keys(1, 5)).tolist() == [1, 5]
    cache.add(keys(1, 5), frames("one", "five"))
    cache.add(keys(3), frames("three"))
    assert cache.missing(keys(1, 2, 3, 5, 9)).tolist() == [2, 9]
    assert cache.take(keys(1, 3, 5))["function"].to_pylist() == ["one", "three", "five"]


def test_the_longest_unseen_are_forgotten_first():
    cache = FrameCache(4, 1 << 20)
    cache.add(keys(1, 2, 3, 4, 5), frames(*"abcde"))
    cache.take(keys(1, 2, 3, 4, 5))
    cache.take(keys(2, 4))
    cache.trim()
    assert known(cache, 1, 2, 3, 4, 5) == [2, 4]
    assert cache.take(keys(2, 4))["function"].to_pylist() == ["b", "d"]


def test_bytes_are_bounded_too():
    cache = FrameCache(1000, 10_000)
    cache.add(keys(*range(50)), frames(*(f"{i:0500}" for i in range(50))))
    cache.take(keys(*range(50)))
    cache.trim()
    assert 0 < len(cache) < 20
