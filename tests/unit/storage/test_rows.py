"""Windows to rows: nothing is lost, and damaged windows are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_windows import CALLS, RUN_NS, START_NS, WAITS, WEIGHT_NS, make_symbolised, make_window, with_waits

from profiler.errors import CorruptData
from profiler.window import CAUSES, DELAY, WAIT_KINDS, UserEnd
from storage.rows import (
    AgentCost,
    build_rows,
    cgroup_rows,
    delay_rows,
    interference_rows,
    node_row,
    sample_rows,
    sample_sums,
    stack_rows,
)
from storage.schema import TABLES


def all_tables(symbolised):
    window = symbolised.window
    return {
        "stacks": stack_rows(symbolised),
        "builds": build_rows(window),
        "cgroups": cgroup_rows(window),
        "samples_10s": sample_sums(symbolised),
        "samples_raw": sample_rows(symbolised),
        "sched_delay": delay_rows(window),
        "interference": interference_rows(window),
        "nodes": node_row(window, AgentCost(1, 2, 3)),
    }


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6)), max_size=8))
def test_weights_add_up_to_samples(picks):
    calls = tuple((*CALLS[row][:2], count) for row, count in picks)
    symbolised = make_symbolised(calls=calls)
    sums, raw = sample_sums(symbolised), sample_rows(symbolised)
    count = sum(count for _, count in picks)
    assert np.sum(sums["count"]) == len(raw) == count
    assert np.sum(sums["value"]) == np.sum(raw["weight_ns"]) == count * WEIGHT_NS
    assert len(sums) == len({row for row, count in picks if count})


def test_rows_have_the_schema_and_order_of_their_table():
    for name, rows in all_tables(make_symbolised(waits=WAITS)).items():
        assert len(rows)
        assert rows.schema == TABLES[name].schema
        assert rows == rows.sort_by([(column, "ascending") for column in TABLES[name].sort])
        assert all(rows[field.name].null_count == 0 for field in rows.schema if not field.nullable)


def test_names_that_are_not_utf8_are_kept_readable():
    symbolised = make_symbolised()
    window = symbolised.window
    window.samples["comm"] = b"\xff\xfe;x"
    cgroup = replace(window.cgroups[0], path="/a\udcff")
    symbolised = replace(symbolised, window=replace(window, cgroups=(cgroup, *window.cgroups[1:])))
    assert set(sample_rows(symbolised)["comm"].to_pylist()) == {"��;x"}
    assert "/a�" in cgroup_rows(symbolised.window)["path"].to_pylist()


def test_times_that_are_not_known_are_null():
    rows = cgroup_rows(make_symbolised().window)
    assert rows["start"].null_count == rows["end"].null_count == len(rows)
    assert rows["ts"].to_pylist()[0].timestamp() * 1e9 == START_NS


@pytest.mark.parametrize("column", ["cgroup", "stack", "process"])
@pytest.mark.parametrize("row", [-1, 99])
def test_a_sample_that_points_outside_its_window_is_refused(column, row):
    symbolised = make_symbolised()
    symbolised.window.samples[column][3] = row
    with pytest.raises(CorruptData, match=f"names {column}"):
        all_tables(symbolised)


def test_equal_frames_that_ended_differently_count_as_the_worst():
    symbolised = make_symbolised(calls=(CALLS[4], CALLS[4]))
    symbolised.window.stacks.user_end[:] = (UserEnd.FAILED, UserEnd.NONE)
    rows = stack_rows(symbolised)
    assert rows["quality"].to_pylist() == ["failed"]


def test_frames_of_a_stack_are_leaf_first():
    symbolised = make_symbolised()
    rows = stack_rows(symbolised).to_pylist()
    stack = next(row for row in rows if row["stack_id"] == symbolised.stack_ids[0])
    assert stack["frame_ids"] == symbolised.stack_frame_ids[:3].tolist()


def test_waits_of_a_window_are_all_in_its_rows():
    window = with_waits(make_window())
    cg = {cgroup.workload: cgroup.cg for cgroup in window.cgroups}
    rows = {row["cg"]: row for row in delay_rows(window).to_pylist()}
    assert {name: rows[cg[name]]["run_ns"] for name in RUN_NS} == RUN_NS
    web = rows[cg["web"]]
    lengths_ns = [ns for victim, _, _, lengths_ns in WAITS if victim == "web" for ns in lengths_ns]
    assert (web["count"], web["wait_ns"], web["max_ns"]) == (len(lengths_ns), sum(lengths_ns), max(lengths_ns))
    assert sum(web[f"{cause}_ns"] for cause in CAUSES) == web["wait_ns"]
    assert (web["offline_ns"], web["throttled_ns"], web["steal_ns"]) == (69_000_000, 50_000_000, 0)
    assert sum(web[kind] for kind in WAIT_KINDS) == sum(web["bucket_count"]) == web["count"]
    assert (rows[cg["kthreads"]]["bucket"], rows[cg["kthreads"]]["bucket_count"]) == ([], [])


@given(st.lists(st.dictionaries(st.integers(0, 255), st.integers(1, 2**62), max_size=4), min_size=3, max_size=3))
def test_histograms_come_back_from_their_sparse_form(histograms):
    delays = np.zeros(3, DELAY)
    delays["cgroup"] = range(3)
    for row, histogram in enumerate(histograms):
        delays["buckets"][row][list(histogram)] = list(histogram.values())
    window = replace(make_window(), delays=delays)
    stored = {row["cg"]: row for row in delay_rows(window).to_pylist()}
    for cgroup, histogram in zip(window.cgroups, histograms, strict=True):
        row = stored[cgroup.cg]
        assert row["bucket"] == sorted(row["bucket"])
        assert dict(zip(row["bucket"], row["bucket_count"], strict=True)) == histogram


def test_delay_by_nobody_has_no_aggressor():
    window = with_waits(make_window())
    cg = {cgroup.workload: cgroup.cg for cgroup in window.cgroups} | {None: 0}
    rows = interference_rows(window).to_pylist()
    found = {(row["victim_cg"], row["aggressor_cg"], row["cause"]): row["delay_ns"] for row in rows}
    assert found == {(cg[victim], cg[by], cause): sum(lengths_ns) for victim, by, cause, lengths_ns in WAITS}


@pytest.mark.parametrize(
    "table, column, row",
    [
        ("delays", "cgroup", -1),
        ("delays", "cgroup", 3),
        ("interference", "victim", -1),
        ("interference", "victim", 3),
        ("interference", "aggressor", -2),
        ("interference", "aggressor", 3),
        ("interference", "cause", -1),
        ("interference", "cause", len(CAUSES)),
    ],
)
def test_accounts_that_point_outside_their_window_are_refused(table, column, row):
    symbolised = make_symbolised(waits=WAITS)
    getattr(symbolised.window, table)[column][1] = row
    with pytest.raises(CorruptData, match=f"a row names {column}"):
        all_tables(symbolised)
