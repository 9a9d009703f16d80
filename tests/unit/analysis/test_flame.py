"""Selections of a real store to call trees."""

import numpy as np
import pytest
from sample_windows import CALLS, START_NS, WEIGHT_NS, WINDOW_NS, make_symbolised

from analysis.flame import read_flame
from analysis.folded import folded_lines
from profiler.errors import BadInput
from storage.rows import AgentCost
from storage.selection import Selection
from storage.store import Store
from storage.writer import StoreWriter

ALWAYS = {"since_ns": 0, "until_ns": 2**62}
SAMPLES = sum(count for _, _, count in CALLS)


@pytest.fixture
def store(tmp_path):
    store = Store.open(tmp_path / "store", create=True)
    for node in ("node-a", "node-b"):
        with StoreWriter(store, node) as writer:
            for window in range(2):
                symbolised = make_symbolised(START_NS + window * WINDOW_NS, node=node, counters={"late_drains": 1})
                writer.append(symbolised, AgentCost())
    return store


def remove(store, table):
    for path in store.segments(table, 0, 2**62):
        path.write_bytes(path.read_bytes()[:-1])


def test_all_samples_are_in_the_tree(store):
    flame = read_flame(store, Selection(**ALWAYS))
    assert flame.tree.samples[0] == 4 * SAMPLES
    assert flame.tree.total_value[0] == 4 * SAMPLES * WEIGHT_NS
    assert (flame.windows, flame.bad_segments) == (4, ())
    assert (flame.counters["samples"], flame.counters["late_drains"], flame.counters["idle_ticks"]) == (
        4 * SAMPLES,
        4,
        0,
    )


def test_adjoining_ranges_add_up(store):
    middle = START_NS + WINDOW_NS
    parts = [read_flame(store, Selection(*edges)) for edges in ((0, middle), (middle, 2**62))]
    assert [part.windows for part in parts] == [2, 2]
    assert sum(part.tree.samples[0] for part in parts) == 4 * SAMPLES


@pytest.mark.parametrize(
    "chosen, samples",
    [
        ({"workload": "web"}, 4 * 9),
        ({"cgroup": "/offline/batch"}, 4 * 7),
        ({"cgroup": "/*line/*"}, 4 * 16),
        ({"node": "node-b"}, 2 * SAMPLES),
        ({"node": "node-b", "workload": "kthreads"}, 2 * 2),
        ({"workload": "web", "cgroup": "/online/*"}, 4 * 9),
        ({"kind": "wait"}, 0),
    ],
    ids=str,
)
def test_a_selection_keeps_what_it_names(store, chosen, samples):
    assert read_flame(store, Selection(**ALWAYS, **chosen)).tree.samples[0] == samples


@pytest.mark.parametrize(
    "chosen, message",
    [
        ({"workload": "wep"}, "unknown workload 'wep' in this range; known: web, batch, kthreads"),
        ({"cgroup": "/nowhere"}, "unknown cgroup '/nowhere' in this range; known: /offline/batch, "),
        ({"node": "node-c"}, "unknown node 'node-c' in this range; known: node-"),
        ({"workload": "a\nb\x1b"}, r"unknown workload 'a\\nb\\x1b' in"),
    ],
    ids=str,
)
def test_a_name_that_nothing_has_is_refused_with_what_there_is(store, chosen, message):
    with pytest.raises(BadInput, match=message.replace("[", r"\[")) as caught:
        read_flame(store, Selection(**ALWAYS, **chosen))
    assert "\n" not in str(caught.value)


def test_an_empty_range_is_an_empty_tree(store):
    flame = read_flame(store, Selection(0, 1, workload="no such"))
    assert (flame.windows, flame.tree.total_value.tolist()) == (0, [0])


def test_inlined_functions_are_frames_of_their_own(store):
    lines = folded_lines(read_flame(store, Selection(**ALWAYS, workload="batch")).tree, count_samples=True)
    assert len(lines) == 1
    assert lines[0].startswith("batch;main;outer;inner;squash+0x")


@pytest.mark.parametrize(
    "table, name",
    [("stacks", "(stack lost)"), ("frames", "(frame lost)"), ("cgroups", "(unknown)")],
)
def test_samples_whose_definitions_are_lost_stay_in_the_tree(store, table, name):
    remove(store, table)
    flame = read_flame(store, Selection(**ALWAYS))
    assert flame.tree.samples[0] == 4 * SAMPLES
    assert name in flame.tree.names
    assert len(flame.bad_segments) == 2


def test_some_lost_frames_leave_the_others(tmp_path):
    store = Store.open(tmp_path / "s", create=True)
    with StoreWriter(store, "node-a") as writer:
        writer.append(make_symbolised(START_NS, CALLS[:1]), AgentCost())
        writer.append(make_symbolised(START_NS + WINDOW_NS, CALLS[:2]), AgentCost())
    second = store.segments("frames", *ALWAYS.values())[1]
    second.write_bytes(b"")
    flame = read_flame(store, Selection(**ALWAYS))
    assert folded_lines(flame.tree, count_samples=True) == [
        "web;main;serve;(frame lost);(frame lost) 3",
        "web;main;serve;parse 10",
    ]


def test_self_time_is_where_the_samples_were_taken(store):
    tree = read_flame(store, Selection(**ALWAYS, workload="web")).tree
    own = {tree.names[tree.name[row]]: int(tree.self_value[row]) for row in np.flatnonzero(tree.self_value)}
    assert own == {name: 4 * count * WEIGHT_NS for name, count in [("parse", 5), ("vfs_write", 3), ("serve", 1)]}
