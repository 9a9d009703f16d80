"""Questions to a store that is empty, damaged, or asked by several threads."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sample_windows import CALLS, START_NS, WAITS, WINDOW_NS, make_symbolised

from profiler.errors import StoreUnavailable
from storage.engine import Scan
from storage.queries import (
    count_by_quality,
    read_cgroups,
    read_frames,
    read_nodes,
    read_stacks,
    read_wait_buckets,
    sum_by_cgroup,
    sum_by_stack,
    sum_delays,
    sum_interference,
)
from storage.rows import AgentCost
from storage.schema import TABLES
from storage.store import Store
from storage.writer import StoreWriter

ALWAYS = (0, 2**62)
SAMPLES = sum(count for _, _, count in CALLS)


def make_store(root, windows=3):
    store = Store.open(root, create=True)
    with StoreWriter(store, "node-a") as writer:
        for window in range(windows):
            writer.append(make_symbolised(START_NS + window * WINDOW_NS, waits=WAITS), AgentCost())
    return store


def count_samples(scan):
    return int(np.sum(sum_by_stack(scan, read_cgroups(scan), "cpu", is_choice=False)["count"]))


def test_an_empty_store_answers_with_empty_tables(tmp_path):
    scan = Scan(make_store(tmp_path / "s", 0), *ALWAYS)
    assert count_samples(scan) == 0
    assert count_by_quality(scan, "cpu") == {}
    tables = (sum_by_cgroup(scan, "cpu"), read_nodes(scan), read_nodes(scan, with_surroundings=True))
    assert [len(rows) for rows in tables] == [0, 0, 0]
    assert [len(rows) for rows in (sum_delays(scan), read_wait_buckets(scan), sum_interference(scan))] == [0, 0, 0]
    assert len(read_stacks(scan, np.array([1]))) == len(read_frames(scan, np.array([1]))) == 0


@pytest.mark.parametrize("folder", ["it's", "a[1]*", "day=1", "ü ;--"])
def test_the_place_of_a_store_may_have_any_name(tmp_path, folder):
    store = make_store(tmp_path / folder / "s", 2)
    make_store(tmp_path / "a1x" / "s", 1)  # what the second name would match as a pattern
    assert count_samples(Scan(store, *ALWAYS)) == 2 * SAMPLES


def test_windows_belong_to_the_range_that_they_start_in(tmp_path):
    store = make_store(tmp_path / "s")
    middle = START_NS + WINDOW_NS
    for since, until, windows in [(0, middle, 1), (middle, middle + 1_000, 1), (middle + 1_000, 2**62, 1)]:
        scan = Scan(store, since, until)
        assert (count_samples(scan), len(read_nodes(scan))) == (windows * SAMPLES, windows)


def test_any_truncated_segment_is_absent_and_named(tmp_path):
    store = make_store(tmp_path / "s", 2)
    torn = store.segments("samples_10s", *ALWAYS)[0]
    whole = torn.read_bytes()
    for length in (0, 4, 11, len(whole) // 2, len(whole) - 8, len(whole) - 1):
        torn.write_bytes(whole[:length])
        scan = Scan(store, *ALWAYS)
        assert count_samples(scan) == SAMPLES
        assert scan.bad_segments == (store.relative(torn),)


@pytest.mark.parametrize("table", list(TABLES))
def test_a_segment_of_rubbish_between_its_magic_is_found_out(tmp_path, table):
    store = make_store(tmp_path / "s", 2)
    bad = store.segments(table, *ALWAYS)[0]
    whole = bad.read_bytes()
    bad.write_bytes(whole[:4] + bytes(byte ^ 0x55 for byte in whole[4:-8]) + whole[-8:])
    scan = Scan(store, *ALWAYS)
    count_samples(scan)
    count_by_quality(scan, "cpu")
    read_nodes(scan)
    read_frames(scan, np.array([1]))
    sum_delays(scan)
    sum_interference(scan)
    expected = () if table in ("samples_raw", "builds") else (store.relative(bad),)  # these are not asked here
    assert scan.bad_segments == expected


def test_no_flipped_bit_stops_an_answer(tmp_path):
    store = make_store(tmp_path / "s", 2)
    bad = store.segments("samples_10s", *ALWAYS)[0]
    whole = bad.read_bytes()
    for at in range(0, len(whole), 41):
        bad.write_bytes(whole[:at] + bytes([whole[at] ^ (1 << at % 8)]) + whole[at + 1 :])
        assert len(sum_by_cgroup(Scan(store, *ALWAYS), "cpu")) >= 3, at


def test_a_segment_that_goes_while_it_is_asked_for_is_not_called_damaged(tmp_path):
    store = make_store(tmp_path / "s", 2)
    paths = store.segments("nodes", *ALWAYS)
    paths[0].unlink()
    scan = Scan(store, *ALWAYS)
    rows = scan.query("SELECT * FROM nodes", ["nodes"], segments={"nodes": paths})
    assert (len(rows), scan.bad_segments) == (1, ())


def test_an_error_that_is_nobodys_damage_is_reported(tmp_path):
    with pytest.raises(StoreUnavailable, match="cannot read"):
        Scan(make_store(tmp_path / "s", 1), *ALWAYS).query("SELECT no_such_column FROM nodes", ["nodes"])


def test_threads_do_not_see_each_others_tables(tmp_path):
    stores = [make_store(tmp_path / f"s{windows}", windows) for windows in (1, 2, 3)]
    with ThreadPoolExecutor(6) as pool:
        counts = list(pool.map(lambda store: count_samples(Scan(store, *ALWAYS)), stores * 6))
    assert counts == [SAMPLES, 2 * SAMPLES, 3 * SAMPLES] * 6


def test_reading_writes_nothing(tmp_path):
    store = make_store(tmp_path / "s", 1)
    before = sorted((path, path.stat().st_mtime_ns) for path in store.root.rglob("*"))
    count_samples(Scan(store, *ALWAYS))
    assert sorted((path, path.stat().st_mtime_ns) for path in store.root.rglob("*")) == before


def test_the_newest_name_of_a_cgroup_holds(tmp_path):
    store = make_store(tmp_path / "s", 1)
    renamed = make_symbolised(START_NS + WINDOW_NS)
    for cgroup in renamed.window.cgroups:
        object.__setattr__(cgroup, "workload", "a-" + cgroup.workload)
    with StoreWriter(store, "node-a") as writer:
        writer.append(renamed, AgentCost())
    names = read_cgroups(Scan(store, *ALWAYS))["workload"].to_pylist()
    assert sorted(names) == ["a-batch", "a-kthreads", "a-web"]
