"""Who delayed whom: cgroups to workloads, histograms to percentiles, and sums that stay whole."""

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_windows import RUN_NS, START_NS, WAITS, WINDOW_NS, make_cgroup, make_symbolised

from analysis.contention import PAIR_CAUSES, Pair, percentiles_ns, read_contention
from profiler.errors import BadInput, CoprofError
from profiler.window import CAUSES, WAIT_BUCKETS, wait_bucket_bounds_ns
from storage.queries import UNKNOWN_WORKLOAD
from storage.rows import AgentCost
from storage.schema import TABLES
from storage.segment import write_segment
from storage.store import Store
from storage.writer import StoreWriter

ALWAYS = (0, 2**62)
WEB_NS = sum(sum(lengths_ns) for victim, _, _, lengths_ns in WAITS if victim == "web")


def make_store(root, *symbolised):
    """A store of the given windows."""
    store = Store.open(root / "store", create=True)
    for one in symbolised:
        with StoreWriter(store, one.window.node.name) as writer:
            writer.append(one, AgentCost())
    return store


def window(number=0, waits=WAITS, node="node-a", **counters):
    return make_symbolised(START_NS + number * WINDOW_NS, node=node, counters=counters, waits=waits)


def rename(symbolised, **workloads):
    """The same window, with cgroups of other workloads: cgroup name = (workload, service class)."""
    cgroups = tuple(
        replace(cgroup, workload=workloads[cgroup.workload][0], service_class=workloads[cgroup.workload][1])
        if cgroup.workload in workloads
        else cgroup
        for cgroup in symbolised.window.cgroups
    )
    return replace(symbolised, window=replace(symbolised.window, cgroups=cgroups))


def by_key(contention):
    return {(pair.victim, pair.aggressor, pair.cause): pair for pair in contention.pairs}


def test_a_window_is_told_as_it_was(tmp_path):
    contention = read_contention(make_store(tmp_path, window()), *ALWAYS)
    assert (contention.windows, contention.covered_ns, contention.is_accounted) == (1, WINDOW_NS, True)
    assert [(victim.workload, victim.service_class, victim.wait_ns) for victim in contention.victims] == [
        ("web", "online", WEB_NS),
        ("batch", "offline", 8_000_000),
        ("kthreads", "system", 0),
    ]
    assert {victim.workload: victim.run_ns for victim in contention.victims} == RUN_NS
    assert contention.pairs[0] == Pair(
        "web", "batch", "offline", "neighbour", 69_000_000, 69_000_000 / WEB_NS, 31, 9_000_000
    )
    assert by_key(contention)["web", None, "throttled"].aggressor_class is None
    assert len(contention.pairs) == len(WAITS)


def test_pairs_are_sorted_by_delay_and_their_shares_add_up(tmp_path):
    pairs = read_contention(make_store(tmp_path, window()), *ALWAYS).pairs
    assert [pair.delay_ns for pair in pairs] == sorted((pair.delay_ns for pair in pairs), reverse=True)
    assert sum(pair.share for pair in pairs if pair.victim == "web") == pytest.approx(1)
    assert {pair.cause for pair in pairs} <= set(PAIR_CAUSES)


def test_windows_add_up_and_the_longest_stays(tmp_path):
    longer = [("web", "batch", "offline", (11_000_000,))]
    contention = read_contention(make_store(tmp_path, window(), window(1, longer)), *ALWAYS)
    pair = by_key(contention)["web", "batch", "neighbour"]
    assert (pair.delay_ns, pair.events, pair.max_ns) == (80_000_000, 32, 11_000_000)
    web = contention.victims[0]
    assert (web.wait_ns, web.count, web.max_ns) == (WEB_NS + 11_000_000, 101, 50_000_000)
    assert web.cause_ns["offline"] == 80_000_000
    assert (contention.windows, contention.covered_ns) == (2, 2 * WINDOW_NS)


def test_nodes_add_up_but_the_time_is_that_of_one(tmp_path):
    store = make_store(tmp_path, window(), window(node="node-b"), window(1, node="node-b"))
    contention = read_contention(store, *ALWAYS)
    assert contention.victims[0].wait_ns == 3 * WEB_NS
    assert contention.covered_ns == 2 * WINDOW_NS
    assert read_contention(store, *ALWAYS, node="node-a").victims[0].wait_ns == WEB_NS


def test_adjoining_ranges_add_up(tmp_path):
    store, middle = make_store(tmp_path, window(), window(1), window(2)), START_NS + WINDOW_NS
    before, after = read_contention(store, 0, middle), read_contention(store, middle, 2**62)
    assert (before.windows, after.windows) == (1, 2)
    assert 2 * before.victims[0].wait_ns == after.victims[0].wait_ns == 2 * WEB_NS
    assert 2 * before.pairs[0].delay_ns == after.pairs[0].delay_ns


def test_losses_are_those_of_the_range(tmp_path):
    lossy = window(missed_waits=5, lost_waits=2, lost_victims=3, lost_pairs_ns=1_000, leaked_waits=7)
    contention = read_contention(make_store(tmp_path, lossy, window(1, missed_waits=1)), *ALWAYS)
    assert {(victim.missed, victim.lost) for victim in contention.victims} == {(6, 5)}
    assert contention.counters["lost_pairs_ns"] == 1_000


def test_cgroups_of_one_workload_are_no_neighbours(tmp_path):
    """Another container of the same pod: its delay is the workload's own, in pairs and in the split alike."""
    symbolised = rename(window(), batch=("web", "offline"))
    contention = read_contention(make_store(tmp_path, symbolised), *ALWAYS)
    own = by_key(contention)["web", "web", "self"]
    assert (own.delay_ns, own.events, own.max_ns) == (69_000_000 + 6_000_000 + 8_000_000, 31 + 20 + 8, 9_000_000)
    web = contention.victims[0]
    assert (web.workload, web.service_class) == ("web", "online")  # the first of its cgroups' classes
    assert (web.cause_ns["self"], web.cause_ns["offline"], web.cause_ns["online"]) == (83_000_000, 0, 0)
    assert sum(web.cause_ns.values()) == web.wait_ns == WEB_NS + 8_000_000


def test_a_split_never_goes_below_zero_where_a_wait_is_still_on(tmp_path):
    symbolised = rename(window(), batch=("web", "offline"))
    symbolised.window.interference["delay_ns"][0] *= 100
    web = read_contention(make_store(tmp_path, symbolised), *ALWAYS).victims[0]
    assert web.cause_ns["offline"] == 0
    assert sum(web.cause_ns.values()) == web.wait_ns


def test_neighbours_of_one_name_and_two_classes_are_one_pair(tmp_path):
    symbolised = rename(window(), kthreads=("batch", "system"))
    contention = read_contention(make_store(tmp_path, symbolised), *ALWAYS)
    pair = by_key(contention)["web", "batch", "neighbour"]
    assert (pair.delay_ns, pair.aggressor_class) == (69_000_000 + 360_000, "offline")
    web = contention.victims[0]
    assert (web.cause_ns["offline"], web.cause_ns["system"]) == (69_000_000, 360_000)


def test_kernel_groups_are_aggressors_like_others(tmp_path):
    symbolised = window(waits=[("web", "[kworker]", "kernel", (70_000,)), ("web", None, "irq", (30_000,))])
    cgroups = (*symbolised.window.cgroups[:-1], make_cgroup("[kworker]", path="[kworker]", service_class="system"))
    store = make_store(tmp_path, replace(symbolised, window=replace(symbolised.window, cgroups=cgroups)))
    pairs = read_contention(store, *ALWAYS).pairs
    assert [(pair.aggressor, pair.aggressor_class, pair.cause, pair.share) for pair in pairs] == [
        ("[kworker]", "system", "kernel", 0.7),
        (None, None, "irq", 0.3),
    ]


def test_a_victim_can_be_chosen(tmp_path):
    contention = read_contention(make_store(tmp_path, window()), *ALWAYS, victim="batch")
    assert [victim.workload for victim in contention.victims] == ["batch"]
    assert [(pair.victim, pair.aggressor) for pair in contention.pairs] == [("batch", "web")]


def test_an_aggressor_can_be_chosen_and_shares_are_of_the_whole_wait(tmp_path):
    contention = read_contention(make_store(tmp_path, window()), *ALWAYS, aggressor="kthreads")
    assert [victim.workload for victim in contention.victims] == ["web"]
    assert [(pair.victim, pair.share) for pair in contention.pairs] == [("web", 360_000 / WEB_NS)]


def test_a_pair_can_be_chosen(tmp_path):
    store = make_store(tmp_path, window())
    assert list(by_key(read_contention(store, *ALWAYS, victim="web", aggressor="web"))) == [("web", "web", "self")]
    nothing = read_contention(store, *ALWAYS, victim="kthreads", aggressor="web")
    assert (nothing.victims, nothing.pairs, nothing.is_accounted) == ((), (), True)


@pytest.mark.parametrize("what", ["victim", "aggressor", "node"])
def test_an_unknown_name_is_refused_with_those_known(tmp_path, what):
    known = "node-a" if what == "node" else "batch, kthreads, web"
    with pytest.raises(BadInput, match=f"unknown {what} 'x' in this range; known: {known}$"):
        read_contention(make_store(tmp_path, window()), *ALWAYS, **{what: "x"})


def test_an_empty_range_refuses_no_name(tmp_path):
    contention = read_contention(make_store(tmp_path, window()), 0, 1, victim="x", aggressor="y")
    assert (contention.windows, contention.covered_ns, contention.is_accounted) == (0, 0, False)
    assert (contention.victims, contention.pairs) == ((), ())


def test_windows_without_accounts_are_told_from_windows_without_waits(tmp_path):
    store = make_store(tmp_path, window(0, None), window(1, ()))
    old = read_contention(store, 0, START_NS + WINDOW_NS)
    assert (old.windows, old.is_accounted, old.victims) == (1, False, ())
    idle = read_contention(store, START_NS + WINDOW_NS, 2**62)
    assert (idle.windows, idle.is_accounted, idle.pairs) == (1, True, ())
    assert {(victim.wait_ns, victim.p50_ns, victim.p99_ns) for victim in idle.victims} == {(0, None, None)}


def test_a_victim_that_never_ran_is_told(tmp_path):
    """A task that waits all the time ends no wait: its delay is known all the same."""
    starved = window(waits=[("db", "batch", "offline", (10_000_000_000,))])
    starved = replace(starved, window=replace(starved.window, delays=starved.window.delays[:3]))
    contention = read_contention(make_store(tmp_path, starved), *ALWAYS)
    assert [victim.wait_ns for victim in contention.victims if victim.workload == "db"] == [0]
    assert [(pair.victim, pair.share) for pair in contention.pairs] == [("db", None)]


def test_cgroups_whose_row_was_lost_keep_their_delay(tmp_path):
    store = make_store(tmp_path, window())
    for path in store.segments("cgroups", *ALWAYS):
        path.write_bytes(path.read_bytes()[:-1])
    contention = read_contention(store, *ALWAYS)
    assert len(contention.bad_segments) == 1
    assert [(victim.workload, victim.wait_ns) for victim in contention.victims] == [
        (UNKNOWN_WORKLOAD, WEB_NS + 8_000_000)
    ]
    # Who they were is not known, so nor is whether they were one workload.
    assert by_key(contention)[UNKNOWN_WORKLOAD, UNKNOWN_WORKLOAD, "neighbour"].delay_ns == 77_360_000


def test_a_damaged_segment_is_left_out_and_named(tmp_path):
    store = make_store(tmp_path, window(), window(1))
    torn = store.segments("interference", *ALWAYS)[0]
    torn.write_bytes(torn.read_bytes()[:-1])
    contention = read_contention(store, *ALWAYS)
    assert contention.bad_segments == (store.relative(torn),)
    assert contention.pairs[0].delay_ns == 69_000_000


@settings(deadline=None)
@given(st.lists(st.integers(0, 4 * 10**12), min_size=1, max_size=60), st.integers(1, 100))
def test_percentiles_are_those_of_the_waits_to_the_bucket(lengths_ns, percent):
    bounds = wait_bucket_bounds_ns()
    bucket = np.searchsorted(bounds, lengths_ns, side="right") - 1
    histogram = np.bincount(bucket, minlength=WAIT_BUCKETS)
    exact_ns = np.percentile(lengths_ns, percent, method="inverted_cdf")
    (upper_ns,) = percentiles_ns(histogram[None, :], percent)
    assert upper_ns == bounds[np.searchsorted(bounds, exact_ns, side="right")]


def test_percentiles_of_a_workload_are_those_of_all_its_cgroups_and_windows(tmp_path):
    fast, slow = [("web", None, "idle", (2_000,) * 98)], [("db", None, "idle", (1_000_000,) * 2)]
    store = make_store(tmp_path, window(0, fast), rename(window(1, slow), db=("web", "online")))
    (web,) = read_contention(store, *ALWAYS, victim="web").victims
    assert (web.p50_ns, web.p95_ns, web.p99_ns) == (2_048, 2_048, 1_048_576)


def test_the_split_of_a_victim_names_every_cause(tmp_path):
    web = read_contention(make_store(tmp_path, window()), *ALWAYS).victims[0]
    assert tuple(web.cause_ns) == CAUSES
    assert sum(web.cause_ns.values()) == web.wait_ns


@pytest.mark.parametrize("table", ["sched_delay", "interference"])
def test_flipped_bits_in_pages_give_an_answer_or_one_line(tmp_path, table):
    """The headers of pages have no checksum, so the engine may stumble where the check of a segment does not."""
    store = make_store(tmp_path, window(), window(1))
    bad = store.segments(table, *ALWAYS)[0]
    whole = bad.read_bytes()
    answers, places = 0, range(0, len(whole) - 8 - int.from_bytes(whole[-8:-4], "little"), 17)
    for at in places:
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        try:
            answers += read_contention(store, *ALWAYS).is_accounted
        except CoprofError as error:
            assert "\n" not in str(error)
    assert answers > len(places) // 2


def test_a_cause_of_a_newer_agent_keeps_its_name(tmp_path):
    store = make_store(tmp_path, window(waits=[("web", "batch", "idle", (5_000,))]))
    (path,) = store.segments("interference", *ALWAYS)
    rows = pq.read_table(path)
    newer = rows.set_column(rows.column_names.index("cause"), rows.schema.field("cause"), [["frequency"]])
    write_segment(newer, TABLES["interference"], path)
    assert list(by_key(read_contention(store, *ALWAYS))) == [("web", "batch", "frequency")]
