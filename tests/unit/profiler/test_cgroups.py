"""Lives of cgroups: what a sample's kernel id meant at the time of the sample."""

import dataclasses
import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler.cgroups import (
    CGROUP_EVENT,
    MAX_REMOVED,
    PATH_LIMIT_BYTES,
    RETENTION_NS,
    SCAN_PAUSE_NS,
    SHARE_AGE_NS,
    CgroupAction,
    CgroupTable,
    cgroup_key,
)
from profiler.hierarchy import Hierarchy
from profiler.workloads import load_rules

S = 1_000_000_000
START = 1_772_366_400 * S
RULES = load_rules()
MADE, REMOVED, RENAMED = CgroupAction
ID = 2**40 + 7  # no inode of the tree below; above 32 bits, as on hosts that have been up for long


class Clock:
    now_ns = START

    def __call__(self):
        return self.now_ns


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def table(tmp_path, clock):
    (tmp_path / "batch").mkdir()
    (tmp_path / "web").mkdir()
    (tmp_path / "batch/cpu.idle").write_text("1\n")
    return make_table(tmp_path, clock)


def make_table(tmp_path, clock):
    return CgroupTable(Hierarchy("v1", tmp_path, 1), RULES, node_name="n1", boot_id="b1", clock_ns=clock)


def inode(table, name):
    return (table.hierarchy.mount_point / name).stat().st_ino


def events(*rows):
    return np.array(list(rows), CGROUP_EVENT)


def look_up(table, *samples):
    """Return the life of each (kernel id, seconds after START)."""
    kernel_ids = np.array([kernel_id for kernel_id, _ in samples], np.uint64)
    lives = table.lives(kernel_ids, np.array([START + int(after_s * S) for _, after_s in samples], np.int64))
    return [lives.cgroups[row] for row in lives.rows]


def test_a_scan_names_what_is_there(table):
    table.scan()
    web, batch, root = look_up(table, (inode(table, "web"), 1), (inode(table, "batch"), 1), (inode(table, "."), 1))
    assert (web.path, web.workload, web.service_class) == ("/web", "web", "online")
    assert (batch.path, batch.service_class) == ("/batch", "offline")
    assert (root.path, root.workload, root.service_class) == ("/", "(root)", "system")
    assert web.start_ns == web.end_ns == 0


def test_rows_index_only_the_cgroups_used(table):
    table.scan()
    web = inode(table, "web")
    lives = table.lives(np.full(5, web, np.uint64), np.full(5, START))
    assert lives.rows.tolist() == [0] * 5 and lives.rows.dtype == np.int32
    assert [cgroup.path for cgroup in lives.cgroups] == ["/web"]
    assert lives.unnamed == 0
    nothing = table.lives(np.empty(0, np.uint64), np.empty(0, np.int64))
    assert nothing.rows.tolist() == [] and nothing.cgroups == ()


def test_a_removed_cgroup_keeps_its_name_until_it_is_forgotten(table, clock):
    table.observe(events((START, ID, MADE, b"/docker/" + b"a" * 64)))
    table.observe(events((START + S, ID, REMOVED, b"")))
    [cgroup] = look_up(table, (ID, 0.5))
    assert cgroup.workload == "docker/aaaaaaaaaaaa"
    assert (cgroup.start_ns, cgroup.end_ns) == (START, START + S)
    clock.now_ns += RETENTION_NS + 2 * S
    table.observe(events())
    [forgotten] = look_up(table, (ID, 0.5))
    assert forgotten.path == f"(gone, id {ID})"


def test_an_id_that_comes_back_is_another_life(table):
    table.observe(
        events(
            (START + 3 * S, ID, MADE, b"/second"),
            (START, ID, MADE, b"/first"),
            (START + 2 * S, ID, REMOVED, b"/first"),
        )
    )
    before, first, between, second = look_up(table, (ID, -1), (ID, 1), (ID, 2.5), (ID, 3))
    assert before == first == between
    assert (first.path, second.path) == ("/first", "/second")
    assert first.cg == cgroup_key("n1", "b1", ID, 0)
    assert second.cg == cgroup_key("n1", "b1", ID, START + 3 * S) != first.cg


def test_an_id_that_comes_back_after_it_was_forgotten_is_still_another_life(table, clock):
    table.observe(events((START, ID, MADE, b"/first"), (START + S, ID, REMOVED, b"")))
    clock.now_ns += RETENTION_NS + 2 * S
    table.observe(events((clock.now_ns, ID, MADE, b"/second"), (clock.now_ns, ID + 1, MADE, b"/other")))
    second, other = look_up(table, (ID, 700), (ID + 1, 700))
    assert second.cg == cgroup_key("n1", "b1", ID, clock.now_ns)
    assert other.cg == cgroup_key("n1", "b1", ID + 1, 0)


def test_keys_survive_an_agent_restart(table, tmp_path, clock):
    table.scan()
    (tmp_path / "late").mkdir()
    late = inode(table, "late")
    table.observe(events((START + S, late, MADE, b"/late")))
    again = make_table(tmp_path, clock)
    again.scan()
    for kernel_id in (late, inode(table, "web")):
        assert look_up(table, (kernel_id, 2))[0].cg == look_up(again, (kernel_id, 2))[0].cg


def test_a_cgroup_seen_by_scan_and_event_is_one_life(table):
    table.scan()
    web = inode(table, "web")
    table.observe(events((START - S, web, MADE, b"/web")))
    [cgroup] = look_up(table, (web, 1))
    assert (cgroup.cg, cgroup.start_ns) == (cgroup_key("n1", "b1", web, 0), START - S)
    assert len(table) == 3


def test_made_again_although_its_removal_was_lost(table):
    table.observe(events((START, ID, MADE, b"/first")))
    table.observe(events((START + 60 * S, ID, MADE, b"/second")))
    first, second = look_up(table, (ID, 1), (ID, 61))
    assert (first.path, first.end_ns, second.path) == ("/first", START + 60 * S, "/second")


def test_removed_before_the_first_scan(table):
    table.observe(events((START, ID, REMOVED, b"/brief")))
    [cgroup] = look_up(table, (ID, -1))
    assert (cgroup.path, cgroup.end_ns) == ("/brief", START)


def test_events_of_two_batches_may_be_out_of_order(table):
    table.observe(events((START + S, ID, REMOVED, b"/brief")))
    table.observe(events((START, ID, MADE, b"/brief")))
    [cgroup] = look_up(table, (ID, 0.5))
    assert (cgroup.path, cgroup.start_ns, cgroup.end_ns, len(table)) == ("/brief", START, START + S, 1)


def test_renaming_moves_children_and_workload(table):
    table.observe(
        events(
            (START, ID, MADE, b"/old"),
            (START, ID + 1, MADE, b"/old/child"),
            (START, ID + 2, MADE, b"/older"),
            (START + S, ID, RENAMED, b"/new"),
        )
    )
    cgroups = look_up(table, (ID, 2), (ID + 1, 2), (ID + 2, 2))
    assert [cgroup.path for cgroup in cgroups] == ["/new", "/new/child", "/older"]
    assert [cgroup.workload for cgroup in cgroups] == ["new", "new/child", "older"]
    assert cgroups[0].cg == cgroup_key("n1", "b1", ID, 0)


def test_a_cut_or_empty_path_is_looked_up(table, tmp_path):
    deep = tmp_path.joinpath(*(["d" * 90] * 12))
    deep.mkdir(parents=True)
    path = "/" + str(deep.relative_to(tmp_path))
    deep_id, web = deep.stat().st_ino, inode(table, "web")
    cut = path.encode()[:PATH_LIMIT_BYTES]
    table.observe(events((START, deep_id, MADE, cut), (START, web, MADE, b"")))
    assert [cgroup.path for cgroup in look_up(table, (deep_id, 1), (web, 1))] == [path, "/web"]


def test_a_path_that_nothing_can_tell(table):
    table.scan()
    table.observe(events((START, ID, MADE, b""), (START, ID + 1, MADE, b"/" + b"c" * 998)))
    gone, cut = look_up(table, (ID, 1), (ID + 1, 1))
    assert (gone.path, gone.workload) == (f"(gone, id {ID})", "(unknown)")
    assert cut.path == "/" + "c" * 998
    assert table.lives(np.array([ID, ID, ID + 1, 99], np.uint64), np.full(4, START)).unnamed == 2


def test_an_unknown_id_scans_but_not_too_often(table, tmp_path, clock):
    table.scan()
    (tmp_path / "new").mkdir()
    new = inode(table, "new")
    clock.now_ns += SCAN_PAUSE_NS - 1
    assert look_up(table, (new, 1))[0].path == f"(gone, id {new})"
    clock.now_ns += 1
    named, ghost = look_up(table, (new, 1), (ID, 1))
    assert (named.path, ghost.path, ghost.cg) == ("/new", f"(gone, id {ID})", cgroup_key("n1", "b1", ID, 0))
    assert named.start_ns == 0


def test_an_id_that_a_scan_did_not_find_starts_no_further_scan(table, tmp_path, clock):
    look_up(table, (ID, 1))
    (tmp_path / "new").mkdir()
    clock.now_ns += 10 * SCAN_PAUSE_NS
    look_up(table, (ID, 1))
    assert len(table) == 3
    look_up(table, (ID + 1, 1))
    assert len(table) == 4


def test_a_scan_ends_what_is_gone_and_a_late_event_corrects_the_time(table, tmp_path, clock):
    table.scan()
    web = inode(table, "web")
    (tmp_path / "web").rmdir()
    clock.now_ns += 60 * S
    table.scan()
    assert look_up(table, (web, 1))[0].end_ns == clock.now_ns
    table.observe(events((START + 5 * S, web, REMOVED, b"/web")))
    [cgroup] = look_up(table, (web, 1))
    assert (cgroup.path, cgroup.end_ns) == ("/web", START + 5 * S)


def test_the_class_follows_cpu_idle(table, tmp_path, clock):
    table.scan()
    web = inode(table, "web")
    assert look_up(table, (web, 1))[0].service_class == "online"
    (tmp_path / "web/cpu.idle").write_text("1\n")
    clock.now_ns += SHARE_AGE_NS
    [offline] = look_up(table, (web, 1))
    assert offline.service_class == "offline"
    (tmp_path / "web/cpu.idle").unlink()
    (tmp_path / "web").rmdir()
    table.observe(events((clock.now_ns, web, REMOVED, b"/web")))
    clock.now_ns += SHARE_AGE_NS
    assert look_up(table, (web, 1)) == [dataclasses.replace(offline, end_ns=clock.now_ns - SHARE_AGE_NS)]


def test_removed_cgroups_are_bounded_in_number(table):
    count = MAX_REMOVED + 100
    rows = [(START + i, ID + i, REMOVED, b"/job") for i in range(count)]
    table.observe(events(*rows))
    assert len(table) == MAX_REMOVED
    assert look_up(table, (ID + count - 1, 0))[0].path == "/job"


def test_hostile_paths_stay_one_line(table):
    table.observe(events((START, ID, MADE, b"/a\xff\n\x1b[2J")))
    assert look_up(table, (ID, 1))[0].path == r"/a\xff\n\x1b[2J"


def test_an_unknown_action_is_an_error(table):
    with pytest.raises(ValueError, match="unknown action 9"):
        table.observe(events((START, ID, 9, b"/a")))


def test_keys_do_not_run_together():
    parts = [("n", "b1", 2, 3), ("nb", "1", 2, 3), ("n", "b1", 23, 0), ("n", "b12", 3, 0), ("n", "b1", 2, 30)]
    keys = {cgroup_key(*part) for part in parts}
    assert len(keys) == len(parts)
    assert all(-(2**63) <= key < 2**63 for key in keys)
    assert cgroup_key("n1", "b1", 7, 0) == -6224640005482320712  # keys are stored: they must never change


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.integers(1, 5)), max_size=25), st.randoms())
def test_lives_match_a_plain_replay(tmp_path_factory, steps, random):
    """Any history of four ids, delivered in batches, against a walk through it one event at a time."""
    history, alive, after_s, delivered = [], set(), 0, 0
    for kernel_id, _, pause_s in steps:
        after_s += 2 * pause_s
        action = REMOVED if kernel_id in alive else MADE
        alive ^= {kernel_id}
        history.append(
            (START + after_s * S, ID + kernel_id, action, f"/p{after_s}".encode() if action == MADE else b"")
        )
    table = make_table(tmp_path_factory.mktemp("empty"), lambda: START)
    while history_left := history[delivered:]:
        batch = history_left[: random.randint(1, len(history_left))]
        table.observe(events(*random.sample(batch, len(batch))))
        delivered += len(batch)
    for kernel_id in {event[1] for event in history}:
        made = [event for event in history if event[1] == kernel_id and event[2] == MADE]
        for event, following in itertools.zip_longest(made, made[1:]):
            at_s = [(event[0] - START) / S] + ([(following[0] - START) / S - 0.5] if following else [after_s + 9])
            assert {cgroup.path for cgroup in look_up(table, *((kernel_id, s) for s in at_s))} == {event[3].decode()}


def test_fifty_thousand_cgroups(tmp_path):
    table = make_table(tmp_path, time.time_ns)
    count = 50_000
    rows = np.zeros(count, CGROUP_EVENT)
    rows["ts_ns"] = START
    rows["kernel_id"] = ID + np.arange(count)
    rows["action"] = MADE
    rows["path"] = [b"/kubepods/burstable/pod214f3ba8-4b69-4bdb-a7d5-5ecc73f04ae9/%064x" % i for i in range(count)]
    table.observe(rows)
    samples = ID + np.random.default_rng(1).integers(0, count, 200_000).astype(np.uint64)
    table.lives(samples, np.full(len(samples), START + S))
    started_ns = time.process_time_ns()
    lives = table.lives(samples[:20_000], np.full(20_000, START + S))
    assert time.process_time_ns() - started_ns < 2_000_000_000
    sampled = np.array([cgroup.kernel_id for cgroup in lives.cgroups], np.uint64)[lives.rows]
    assert (sampled == samples[:20_000]).all()
