"""Merging windows: whatever the order, every sample keeps what it ran, for whom and where."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_windows import RUN_NS, START_NS, WINDOW_NS, make_cgroup, make_node, make_window, with_waits

from profiler.errors import BadInput
from profiler.window import (
    CAUSES,
    COUNTERS,
    DELAY,
    FACTS,
    INTERFERENCE,
    LOSSES,
    MAPPING,
    PROCESS,
    SAMPLE,
    WAIT_BUCKETS,
    Build,
    Stacks,
    UserEnd,
    Window,
    merge,
    wait_bucket_bounds_ns,
)

PROCESSES = [(10, 1, 100), (10, 2, 100), (10, 1, 900), (11, 1, 100)]
CGROUPS = [make_cgroup("web"), make_cgroup("batch"), make_cgroup("web", end_ns=START_NS)]
BUILDS = [Build("aa", "/web"), Build("bb", "/lib", sources=("/proc/1/root/lib",)), Build("", "[vdso]", reason="none")]
KERNEL = 0xFFFF_8000_0000_0000


def rows_of(dtype, rows):
    return np.array([tuple(row) for row in rows], dtype)


def distinct(values):
    return st.lists(st.sampled_from(values), unique_by=repr, min_size=1)


@st.composite
def stack_tables(draw, processes):
    """Stacks of kernel and user addresses; a stack has an owner if it has a user part."""
    rows = draw(
        st.lists(st.tuples(*[st.lists(st.integers(0, 3), max_size=3)] * 2, st.sampled_from(UserEnd)), max_size=5)
    )
    owners = [draw(st.integers(0, processes - 1)) if end != UserEnd.NONE else -1 for _, _, end in rows]
    return Stacks(
        offsets=np.cumsum([0] + [len(kernel) + len(user) for kernel, user, _ in rows]),
        addresses=np.array([part for kernel, user, _ in rows for part in (*(KERNEL + a for a in kernel), *user)], "u8"),
        kernel_depth=np.array([len(kernel) for kernel, _, _ in rows], np.int32),
        process=np.array(owners, np.int32),
        user_end=np.array([end for _, _, end in rows], np.uint8),
    )


@st.composite
def delay_tables(draw, cgroups):
    """Waits of some of the cgroups."""
    delays = np.zeros(cgroups, DELAY)[: draw(st.integers(0, cgroups))]
    delays["cgroup"] = draw(st.permutations(range(cgroups)))[: len(delays)]
    for row in delays:
        row["run_ns"], row["wait_ns"], row["max_ns"] = (draw(st.integers(0, 2**50)) for _ in range(3))
        row["cause_ns"][draw(st.integers(0, len(CAUSES) - 1))] = row["wait_ns"]
        row["kind_count"][draw(st.integers(0, 2))] = row["buckets"][draw(st.integers(0, WAIT_BUCKETS - 1))] = 7
    return delays


@st.composite
def pair_tables(draw, cgroups):
    """Delay between some of the cgroups, and by nobody."""
    row, cause = st.integers(0, cgroups - 1), st.integers(0, len(CAUSES) - 1)
    keys = draw(st.lists(st.tuples(row, st.integers(-1, cgroups - 1), cause), max_size=6, unique=True))
    return rows_of(INTERFERENCE, [(*key, *(draw(st.integers(0, 2**50)) for _ in range(3))) for key in keys])


@st.composite
def windows(draw):
    """Any window of one node, some without samples, stacks or mappings."""
    start_ns = START_NS + draw(st.integers(0, 3)) * WINDOW_NS
    processes, cgroups, builds = (draw(distinct(values)) for values in (PROCESSES, CGROUPS, BUILDS))
    stacks = draw(stack_tables(len(processes)))
    times = sorted(draw(st.lists(st.integers(0, WINDOW_NS - 1), max_size=8 if len(stacks) else 0)))

    def row_number(table):
        return draw(st.integers(0, len(table) - 1))

    samples = [
        (start_ns + ts, 10 + cpu, row_number(cgroups), row_number(stacks), row_number(processes), 7, cpu, b"comm")
        for cpu, ts in enumerate(times)
    ]
    maps = sorted((row_number(processes), start, row_number(builds)) for start in draw(st.sets(st.integers(1, 5))))
    return Window(
        start_ns=start_ns,
        end_ns=start_ns + WINDOW_NS,
        node=make_node(),
        samples=rows_of(SAMPLE, samples),
        stacks=stacks,
        processes=rows_of(PROCESS, processes),
        mappings=rows_of(MAPPING, [(process, build, start * 4096, 8192, 0) for process, start, build in maps]),
        builds=tuple(builds),
        cgroups=tuple(cgroups),
        delays=draw(delay_tables(len(cgroups))),
        interference=draw(pair_tables(len(cgroups))),
        counters=draw(st.dictionaries(st.sampled_from(sorted(COUNTERS)), st.integers(1, 2**40))),
    )


def process_of(window, row):
    return tuple(window.processes[row].tolist()) if row >= 0 else None


def resolved_samples(window):
    """What each sample says, with every row number replaced by what it stands for."""
    stacks = window.stacks
    return [
        (
            sample["ts_ns"].item(),
            sample["weight_ns"].item(),
            window.cgroups[sample["cgroup"]],
            process_of(window, sample["process"]),
            (sample["tid"].item(), sample["cpu"].item(), sample["comm"].item()),
            tuple(stacks.addresses[stacks.offsets[row] : stacks.offsets[row + 1]].tolist()),
            (stacks.kernel_depth[row].item(), stacks.user_end[row].item(), process_of(window, stacks.process[row])),
        )
        for sample, row in zip(window.samples, window.samples["stack"], strict=True)
    ]


def resolved_mappings(window):
    return {
        (process_of(window, row["process"]), window.builds[row["build"]], *row.tolist()[2:]) for row in window.mappings
    }


def resolved_delays(*windows):
    """Waits and run time of each cgroup over all the windows: sums, and the longest."""
    totals = {}
    for window in windows:
        for row in window.delays:
            sums, longest = totals.setdefault(window.cgroups[row["cgroup"]], (Counter(), []))
            numbers = [row["run_ns"], row["wait_ns"], *row["cause_ns"], *row["kind_count"], *row["buckets"]]
            sums.update({column: int(number) for column, number in enumerate(numbers)})
            longest.append(int(row["max_ns"]))
    return {cgroup: (+sums, max(longest)) for cgroup, (sums, longest) in totals.items()}


def resolved_pairs(*windows):
    """Delay, events and the longest by victim, aggressor and cause over all the windows."""
    totals = {}
    for window in windows:
        for victim, aggressor, cause, delay_ns, events, max_ns in window.interference.tolist():
            key = (window.cgroups[victim], window.cgroups[aggressor] if aggressor >= 0 else None, CAUSES[cause])
            so_far = totals.get(key, (0, 0, 0))
            totals[key] = (so_far[0] + delay_ns, so_far[1] + events, max(so_far[2], max_ns))
    return totals


def resolved(window):
    """A window without its row numbers: equal for windows that say the same."""
    return (
        (window.start_ns, window.end_ns, window.node),
        Counter(resolved_samples(window)),
        resolved_mappings(window),
        set(map(process_of, [window] * len(window.processes), range(len(window.processes)))),
        (set(window.builds), set(window.cgroups)),
        (resolved_delays(window), resolved_pairs(window)),
        window.counters,
    )


@settings(max_examples=100, deadline=None)
@given(st.lists(windows(), min_size=1, max_size=4), st.data())
def test_merging_keeps_everything_in_any_order(parts, data):
    merged = merge(parts)
    assert Counter(resolved_samples(merged)) == Counter(row for part in parts for row in resolved_samples(part))
    assert merged.samples["weight_ns"].sum() == sum(part.samples["weight_ns"].sum() for part in parts)
    assert resolved_mappings(merged) == set().union(*map(resolved_mappings, parts))
    assert resolved_delays(merged) == resolved_delays(*parts)
    assert resolved_pairs(merged) == resolved_pairs(*parts)
    assert {name: merged.count(name) for name in COUNTERS} == {
        name: sum(part.count(name) for part in parts) for name in COUNTERS
    }
    assert (merged.start_ns, merged.end_ns) == (min(p.start_ns for p in parts), max(p.end_ns for p in parts))
    assert resolved(merge(data.draw(st.permutations(parts)))) == resolved(merged)


@settings(max_examples=50, deadline=None)
@given(st.lists(windows(), min_size=2, max_size=4), st.integers(1, 3))
def test_merging_in_steps_is_merging_at_once(parts, cut):
    first, rest = parts[:cut], parts[cut:]
    assert resolved(merge([merge(first), *rest])) == resolved(merge(parts))


@settings(max_examples=50, deadline=None)
@given(st.lists(windows(), min_size=1, max_size=3))
def test_a_merged_window_keeps_the_rules_of_its_tables(parts):
    merged = merge(parts)
    assert (np.diff(merged.samples["ts_ns"]) >= 0).all()
    pairs = list(zip(merged.mappings["process"].tolist(), merged.mappings["start"].tolist(), strict=True))
    assert pairs == sorted(pairs)
    assert len(set(merged.builds)) == len(merged.builds) and len(set(merged.cgroups)) == len(merged.cgroups)
    assert len(np.unique(merged.processes)) == len(merged.processes)
    assert merged.stacks.offsets[-1] == len(merged.stacks.addresses)
    for name, column in vars(parts[0].stacks).items():
        assert getattr(merged.stacks, name).dtype == column.dtype, name
    assert (merged.samples.dtype, merged.processes.dtype, merged.mappings.dtype) == (SAMPLE, PROCESS, MAPPING)
    assert (merged.delays.dtype, merged.interference.dtype) == (DELAY, INTERFERENCE)
    assert len(np.unique(merged.delays["cgroup"])) == len(merged.delays)
    assert len(np.unique(merged.interference[["victim", "aggressor", "cause"]])) == len(merged.interference)


@settings(max_examples=30, deadline=None)
@given(windows())
def test_merging_one_window_says_the_same(window):
    assert resolved(merge([window])) == resolved(window)


@settings(max_examples=30, deadline=None)
@given(st.lists(windows(), min_size=1, max_size=3))
def test_merging_leaves_its_parts_alone(parts):
    before = [resolved(part) for part in parts]
    merge(parts)
    assert [resolved(part) for part in parts] == before


def test_windows_may_come_from_a_generator():
    later = make_window(START_NS + WINDOW_NS)
    merged = merge(window for window in (later, make_window()))
    assert len(merged.samples) == 2 * len(later.samples)
    assert merged.duration_s == 20.0


def test_a_window_without_anything_changes_nothing_but_the_span():
    window, empty = make_window(), make_window(START_NS + WINDOW_NS, calls=())
    assert resolved(merge([empty, window]))[1:] == resolved(window)[1:]


def test_the_machine_is_described_as_it_was_last():
    upgraded = dataclasses.replace(make_window(START_NS + WINDOW_NS), node=make_node(agent_version="0.2.0"))
    assert merge([upgraded, make_window()]).node.agent_version == "0.2.0"


def test_no_windows_are_refused():
    with pytest.raises(BadInput, match="no windows to merge"):
        merge([])


@pytest.mark.parametrize("other", [{"name": "node-b"}, {"boot_id": "b008"}])
def test_windows_of_different_machines_or_boots_are_refused(other):
    strange = dataclasses.replace(make_window(), node=make_node(**{"name": "node-a"} | other))
    with pytest.raises(BadInput, match="different nodes or boots"):
        merge([make_window(), strange])


def test_counters_that_a_window_does_not_carry_are_zero():
    window = make_window(counters={"lost_ring_full": 3})
    assert (window.count("lost_ring_full"), window.count("late_drains")) == (3, 0)


def test_a_counter_is_a_fact_or_a_loss():
    assert not FACTS.keys() & LOSSES.keys()
    assert FACTS.keys() | LOSSES.keys() == COUNTERS.keys()


def test_delays_of_a_cgroup_add_up_and_the_longest_wait_stays():
    window = with_waits(make_window(), [("web", "batch", "offline", (5_000, 7_000))])
    later = with_waits(make_window(START_NS + WINDOW_NS, calls=()), [("web", "batch", "offline", (6_000,))])
    merged = merge([window, later])
    rows = {merged.cgroups[row["cgroup"]].workload: row for row in merged.delays}
    assert (rows["web"]["wait_ns"], rows["web"]["max_ns"], rows["web"]["buckets"].sum()) == (18_000, 7_000, 3)
    assert rows["batch"]["run_ns"] == 2 * RUN_NS["batch"]
    (pair,) = merged.interference.tolist()
    assert (merged.cgroups[pair[0]].workload, merged.cgroups[pair[1]].workload) == ("web", "batch")
    assert pair[2:] == (CAUSES.index("offline"), 18_000, 3, 7_000)


def test_buckets_of_waits_touch_and_are_narrow():
    bounds = wait_bucket_bounds_ns()
    assert len(bounds) == WAIT_BUCKETS + 1
    assert (bounds[0], bounds[1]) == (0, 1_024)
    assert (np.diff(bounds) > 0).all()
    assert (np.diff(bounds)[1:] / bounds[1:-1]).max() <= 0.125
    assert bounds[-2] > 100 * 10**9
