"""Publishing windows: all of a window or nothing, whatever fails."""

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from sample_windows import CALLS, START_NS, WAITS, WINDOW_NS, make_symbolised

from profiler.errors import BadInput, StoreUnavailable
from storage.rows import AgentCost
from storage.store import NS_PER_HOUR, WINDOW_TABLES, Store
from storage.writer import StoreWriter, is_written

COST = AgentCost(1, 2, 3)


@pytest.fixture
def store(tmp_path):
    return Store.open(tmp_path / "store", create=True)


@pytest.fixture
def writer(store):
    with StoreWriter(store, "node-a") as writer:
        yield writer


def files(store):
    return sorted(store.relative(path) for path in store.root.rglob("*.*") if path.suffix in (".parquet", ".tmp"))


def rows(store, table):
    return [
        row for path in sorted((store.root / "l0/node-a" / table).iterdir()) for row in pq.read_table(path).to_pylist()
    ]


def test_plain_duckdb_and_pyarrow_read_the_store(store, writer):
    for window in range(3):
        writer.append(make_symbolised(START_NS + window * WINDOW_NS), COST)
    total = 3 * sum(count for _, _, count in CALLS)
    answer = duckdb.sql(f"SELECT SUM(count) FROM read_parquet('{store.root}/l0/*/samples_10s/*.parquet')").fetchall()
    assert answer == [(total,)]
    dataset = pyarrow.dataset.dataset(sorted((store.root / "l0/node-a/samples_raw").glob("*.parquet")))
    assert dataset.count_rows() == total
    assert dataset.schema.field("weight_ns").metadata[b"unit"] == b"ns"
    joined = duckdb.sql(
        f"""SELECT DISTINCT f.function FROM read_parquet('{store.root}/l0/*/stacks/*.parquet') s
        JOIN read_parquet('{store.root}/l0/*/frames/*.parquet') f ON list_contains(s.frame_ids, f.frame_id)"""
    ).fetchall()
    assert ("vfs_write",) in joined


def test_definitions_are_written_once_an_hour(store, writer):
    for start_ns in (START_NS, START_NS + WINDOW_NS, START_NS + NS_PER_HOUR):
        writer.append(make_symbolised(start_ns), COST)
    for table in ("frames", "stacks", "builds", "cgroups"):
        assert len(list((store.root / "l0/node-a" / table).iterdir())) == 2, table
    assert len(rows(store, "nodes")) == 3


def test_a_new_stack_is_added_to_its_hour(store, writer):
    writer.append(make_symbolised(START_NS, CALLS[:2]), COST)
    writer.append(make_symbolised(START_NS + WINDOW_NS, CALLS), COST)
    assert len(rows(store, "stacks")) == len(CALLS)


def test_a_window_older_than_the_last_carries_its_definitions(store, writer):
    writer.append(make_symbolised(START_NS + WINDOW_NS), COST)
    writer.append(make_symbolised(START_NS), COST)
    assert len(store.segments("stacks", START_NS, START_NS + 1)) == 1


def test_the_end_of_a_cgroup_is_written_when_it_is_known(store, writer):
    writer.append(make_symbolised(), COST)
    later = make_symbolised(START_NS + WINDOW_NS)
    ended = replace(later.window.cgroups[0], end_ns=START_NS + WINDOW_NS)
    window = replace(later.window, cgroups=(ended, *later.window.cgroups[1:]))
    writer.append(replace(later, window=window), COST)
    of_cgroup = [row for row in rows(store, "cgroups") if row["cg"] == ended.cg]
    assert [row["end"] is None for row in of_cgroup] == [True, False]


def test_a_window_without_samples_is_kept_for_its_counters(store, writer):
    writer.append(make_symbolised(calls=(), counters={"idle_ticks": 7}), COST)
    assert [row["idle_ticks"] for row in rows(store, "nodes")] == [7]
    assert store.segments("samples_10s", 0, 2**62) == []


def test_a_window_of_another_node_is_refused(writer):
    with pytest.raises(BadInput, match="node-b"):
        writer.append(make_symbolised(node="node-b"), COST)


def failing(function, at, error_number):
    calls = iter(range(1000))

    def fail_once(*args, **kwargs):
        if next(calls) == at:
            raise OSError(error_number, os.strerror(error_number))
        return function(*args, **kwargs)

    return fail_once


# 9 files are synced, then 8 folders, then the last.
@pytest.mark.parametrize("at", range(18))
def test_a_failed_sync_leaves_nothing_and_the_next_append_works(store, writer, monkeypatch, at):
    monkeypatch.setattr(os, "fsync", failing(os.fsync, at, errno.ENOSPC))
    with pytest.raises(StoreUnavailable, match="No space left"):
        writer.append(make_symbolised(waits=WAITS), COST)
    assert files(store) == []
    writer.append(make_symbolised(waits=WAITS), COST)
    assert len(files(store)) == 9  # the definitions too: what failed was not remembered as written


@pytest.mark.parametrize("at", range(9))
def test_a_failed_rename_leaves_nothing(store, writer, monkeypatch, at):
    monkeypatch.setattr(Path, "rename", failing(Path.rename, at, errno.EIO))
    with pytest.raises(StoreUnavailable, match="Input/output error"):
        writer.append(make_symbolised(waits=WAITS), COST)
    assert files(store) == []


def test_a_window_without_its_nodes_segment_is_not_read(store, writer):
    writer.append(make_symbolised(waits=WAITS), COST)
    assert [len(store.segments(table, 0, 2**62)) for table in WINDOW_TABLES] == [1, 1, 1, 1]
    next((store.root / "l0/node-a/nodes").iterdir()).unlink()
    assert [len(store.segments(table, 0, 2**62)) for table in WINDOW_TABLES] == [0, 0, 0, 0]


def test_a_window_without_accounts_has_no_segments_of_them(store, writer):
    writer.append(make_symbolised(), COST)
    assert store.segments("sched_delay", 0, 2**62) == store.segments("interference", 0, 2**62) == []


def test_who_waited_and_for_whom_is_found_among_the_cgroups(store, writer):
    writer.append(make_symbolised(waits=[("db", "[kworker]", "kernel", (5_000,))]), COST)
    workload = {row["cg"]: row["workload"] for row in rows(store, "cgroups")}
    (pair,) = rows(store, "interference")
    assert (workload[pair["victim_cg"]], workload[pair["aggressor_cg"]]) == ("db", "[kworker]")
    assert (pair["cause"], pair["delay_ns"]) == ("kernel", 5_000)


def test_delays_of_an_incomplete_window_are_moved_aside(store):
    with StoreWriter(store, "node-a") as writer:
        writer.append(make_symbolised(waits=WAITS), COST)
    next((store.root / "l0/node-a/nodes").iterdir()).unlink()
    with StoreWriter(store, "node-a") as writer:
        assert {name.split("/")[2] for name in writer.moved_segments} == set(WINDOW_TABLES)


def test_a_start_clears_what_a_crash_left(store):
    with StoreWriter(store, "node-a") as writer:
        for window in range(4):
            writer.append(make_symbolised(START_NS + window * WINDOW_NS), COST)
        assert writer.moved_segments == ()
    folder = store.root / "l0/node-a"
    (folder / "nodes" / "_01ARZ3NDEKTSV4RRFFQ69G5FAV.tmp").write_bytes(b"PAR1")
    first, second, third, fourth = sorted(path.name for path in (folder / "nodes").iterdir() if path.suffix != ".tmp")
    (folder / "nodes" / first).unlink()  # its samples are an incomplete window
    torn = folder / "samples_10s" / second
    torn.write_bytes(torn.read_bytes()[:-1])
    flipped = folder / "samples_raw" / third
    whole, middle = flipped.read_bytes(), pq.read_metadata(flipped).row_group(0).column(1).dictionary_page_offset - 2
    flipped.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with StoreWriter(store, "node-a") as writer:
        moved = writer.moved_segments
    expected = [f"samples_10s/{first}", f"samples_10s/{second}", f"samples_raw/{first}", f"samples_raw/{third}"]
    assert list(moved) == [f"l0/node-a/{name}" for name in expected]
    assert all((store.root / "trash/bad/node-a" / name).exists() for name in expected)
    assert not list(folder.rglob("*.tmp"))
    assert [path.name for path in store.segments("samples_10s", 0, 2**62)] == [third, fourth]


def test_a_second_writer_of_a_node_is_refused_until_the_first_closes(store):
    with StoreWriter(store, "node-a"):
        with pytest.raises(StoreUnavailable, match="another coprof agent writes as node 'node-a'"):
            StoreWriter(store, "node-a")
        StoreWriter(store, "node-b").close()
    StoreWriter(store, "node-a").close()


@pytest.mark.parametrize("removed", [".", "l0", "l0/node-a", "l0/node-a/nodes"])
def test_a_store_that_is_removed_under_its_writer_is_made_again(store, writer, removed):
    writer.append(make_symbolised(), COST)
    definitions = rows(store, "frames")
    shutil.rmtree(store.root / removed)
    writer.append(make_symbolised(START_NS + WINDOW_NS), COST)
    assert not writer.is_refusing
    assert len(Store.open(store.root).window_segments("node-a")) == 1
    assert rows(store, "frames")[-len(definitions) :] == definitions
    with pytest.raises(StoreUnavailable, match="another coprof agent writes"):
        StoreWriter(store, "node-a")


def test_a_removed_store_that_another_took_is_refused_until_it_goes(store, writer):
    shutil.rmtree(store.root)
    with StoreWriter(store, "node-a"):
        with pytest.raises(StoreUnavailable, match="another coprof agent writes"):
            writer.append(make_symbolised(), COST)
        assert writer.is_refusing
    writer.append(make_symbolised(), COST)
    assert not writer.is_refusing


def test_a_store_is_written_as_long_as_its_writer_lives(store):
    assert not is_written(store.root)
    with StoreWriter(store, "node-a"):
        assert is_written(store.root)
    assert not is_written(store.root)


def test_a_store_that_cannot_be_written_is_refused(store):
    (store.root / "l0").write_text("in the way")
    with pytest.raises(StoreUnavailable, match="cannot write to"):
        StoreWriter(store, "node-a")


def test_a_frame_that_gets_its_name_later_is_written_again(store, writer):
    symbolised = make_symbolised()
    states = np.array(symbolised.frames["state"].to_pylist(), object)
    names = symbolised.frames.column_names
    unresolved = symbolised.frames.set_column(names.index("state"), "state", [["pending"] * len(states)])
    writer.append(replace(symbolised, frames=unresolved), COST)
    writer.append(make_symbolised(START_NS + WINDOW_NS), COST)
    assert len(rows(store, "frames")) == len(states) + (states == "ok").sum()
