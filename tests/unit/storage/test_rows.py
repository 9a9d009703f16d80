"""Windows to rows: nothing is lost, and damaged windows are refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_windows import CALLS, START_NS, WEIGHT_NS, make_symbolised

from profiler.errors import CorruptData
from profiler.window import UserEnd
from storage.rows import AgentCost, build_rows, cgroup_rows, node_row, sample_rows, sample_sums, stack_rows
from storage.schema import TABLES


def all_tables(symbolised):
    window = symbolised.window
    return {
        "stacks": stack_rows(symbolised),
        "builds": build_rows(window),
        "cgroups": cgroup_rows(window),
        "samples_10s": sample_sums(symbolised),
        "samples_raw": sample_rows(symbolised),
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
    for name, rows in all_tables(make_symbolised()).items():
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
