"""A range at a glance: cores, gaps, quality, and what the store spans."""

import numpy as np
import pytest
from sample_windows import CALLS, NS_PER_S, START_NS, WEIGHT_NS, WINDOW_NS, make_symbolised

from analysis.overview import AgentShare, read_overview
from analysis.timeline import MAX_STEPS
from profiler.errors import BadInput
from storage.rows import AgentCost
from storage.store import Store
from storage.writer import StoreWriter

SAMPLES = sum(count for _, _, count in CALLS)


def make_store(root, windows, node="node-a", calls=CALLS):
    """A store with the given windows, numbered from `START_NS` in steps of a window."""
    store = Store.open(root, create=True)
    with StoreWriter(store, node) as writer:
        for rss_bytes, window in enumerate(windows):
            symbolised = make_symbolised(START_NS + window * WINDOW_NS, calls, node)
            writer.append(symbolised, AgentCost(NS_PER_S // 20, rss_bytes, 7))
    return store


def test_an_empty_store_has_no_bounds(tmp_path):
    overview = read_overview(make_store(tmp_path / "s", []), 0, 2**62)
    assert (overview.first_ns, overview.last_ns, overview.nodes, overview.workloads) == (None, None, (), ())
    assert (overview.windows, overview.gap_ns, overview.quality) == (0, 0, {})
    assert overview.agent == AgentShare(None, None, None)
    assert len(overview.series.starts_ns) == 0


def test_workloads_and_quality_add_up(tmp_path):
    overview = read_overview(make_store(tmp_path / "s", range(3)), 0, 2**62)
    shares = [(share.workload, share.service_class, share.samples) for share in overview.workloads]
    assert shares == [("web", "online", 27), ("batch", "offline", 21), ("kthreads", "system", 6)]
    assert sum(share.cpu_ns for share in overview.workloads) == 3 * SAMPLES * WEIGHT_NS
    assert overview.quality == {"frame_pointer": 16 / 18, "none": 2 / 18}
    assert overview.counters["samples"] == 3 * SAMPLES
    assert overview.agent == AgentShare(0.5, 2, 7)


def test_cores_are_cpu_time_by_covered_time_and_gaps_are_not_idle(tmp_path):
    overview = read_overview(make_store(tmp_path / "s", [0, 1, 4]), 0, 2**62)
    assert (overview.series.step_ns, len(overview.series.starts_ns)) == (10 * NS_PER_S, 5)
    web = 9 * WEIGHT_NS / WINDOW_NS
    np.testing.assert_allclose(overview.series.cores["web"], [web, web, np.nan, np.nan, web])
    assert overview.gap_ns == 2 * WINDOW_NS


def test_cores_of_nodes_add_up_though_their_windows_differ(tmp_path):
    make_store(tmp_path / "s", [0, 1])
    overview = read_overview(make_store(tmp_path / "s", [1], "node-b"), 0, 2**62)
    web = 9 * WEIGHT_NS / WINDOW_NS
    np.testing.assert_allclose(overview.series.cores["web"], [web, 2 * web])
    assert [(node.name, node.windows) for node in overview.nodes] == [("node-a", 2), ("node-b", 1)]
    assert read_overview(Store.open(tmp_path / "s"), 0, 2**62, "node-b").windows == 1


def test_the_bounds_are_those_of_the_store_not_of_the_range(tmp_path):
    store = make_store(tmp_path / "s", range(6))
    overview = read_overview(store, START_NS + 2 * WINDOW_NS, START_NS + 4 * WINDOW_NS)
    assert (overview.first_ns, overview.last_ns) == (START_NS, START_NS + 6 * WINDOW_NS)
    assert (overview.windows, overview.nodes[0].windows) == (2, 2)
    assert overview.nodes[0].last_ns == START_NS + 6 * WINDOW_NS
    assert overview.gap_ns == 0


@pytest.mark.parametrize("offset_ns", [0, NS_PER_S, 9 * NS_PER_S])
def test_a_window_that_reaches_into_the_range_leaves_no_gap(tmp_path, offset_ns):
    store = make_store(tmp_path / "s", [*range(4), 9])
    overview = read_overview(store, START_NS + 2 * WINDOW_NS + offset_ns, START_NS + 7 * WINDOW_NS)
    assert overview.gap_ns == 3 * WINDOW_NS


def test_small_workloads_are_drawn_together(tmp_path):
    calls = tuple((f"w{row:02}", ("user/a/main",), 40 - row) for row in range(15))
    series = read_overview(make_store(tmp_path / "s", [0], calls=calls), 0, 2**62).series
    assert list(series.cores) == [*(f"w{row:02}" for row in range(12)), "(other)"]
    assert series.cores["(other)"].tolist() == [pytest.approx((28 + 27 + 26) * WEIGHT_NS / WINDOW_NS)]


def test_a_long_range_has_few_steps(tmp_path):
    overview = read_overview(make_store(tmp_path / "s", [0, 100_000]), 0, 2**62)
    assert 30 < len(overview.series.starts_ns) <= MAX_STEPS


def test_a_node_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="unknown node 'x' in this range; known: node-a"):
        read_overview(make_store(tmp_path / "s", [0]), 0, 1, "x")


def test_a_damaged_newest_window_is_named_and_the_one_before_it_counts(tmp_path):
    store = make_store(tmp_path / "s", range(3))
    newest = store.window_segments("node-a")[-1]
    newest.write_bytes(b"PAR1")
    overview = read_overview(store, 0, 2**62)
    assert overview.bad_segments == (store.relative(newest),)
    assert (overview.windows, overview.last_ns) == (2, START_NS + 2 * WINDOW_NS)
