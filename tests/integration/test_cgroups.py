"""Names of real cgroups, under the cpu controller's hierarchy and under the cgroup2 mount of this machine.

Needs root, and for the second half a cgroup2 mount, also on hosts whose controllers are on v1.
"""

import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from profiler.cgroups import CGROUP_EVENT, CgroupAction, CgroupTable
from profiler.hierarchy import describe_limits, detect_hierarchy, is_whole_hierarchy
from profiler.node import read_node
from profiler.workloads import load_rules

POD_UID = "214f3ba8-4b69-4bdb-a7d5-5ecc73f04ae9"
CONTAINER_ID = "d4e8e05a546c86b6443f101966c618e47753ed01fa9929cae00d3b692f7a9f80"


@pytest.fixture(params=["auto", "v2"])
def hierarchy(request):
    return detect_hierarchy(request.param)


@pytest.fixture
def made(hierarchy):
    """A function that makes cgroups below one of this test's own; all of them go when the test ends."""
    top = hierarchy.mount_point / f"coprof-test-{os.getpid()}-{hierarchy.mode}"
    top.mkdir()

    def make(name):
        (top / name).mkdir(parents=True)
        return top / name

    yield make
    for directory, _, _ in os.walk(top, topdown=False):
        Path(directory).rmdir()


@pytest.fixture
def table(hierarchy):
    node = read_node()
    return CgroupTable(hierarchy, load_rules(), node_name=node.name, boot_id=node.boot_id)


def path_in(hierarchy, directory):
    return f"/{directory.relative_to(hierarchy.mount_point)}"


def look_up(table, *kernel_ids):
    kernel_ids = np.array(kernel_ids, np.uint64)
    lives = table.lives(kernel_ids, np.full(len(kernel_ids), time.time_ns()))
    return [lives.cgroups[row] for row in lives.rows]


def kernel_path(pid, hierarchy):
    """Return the path of a process's cgroup as the kernel tells it."""
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, _, path = line.split(":", 2)
        if int(number) == hierarchy.hierarchy_id:
            return path
    raise AssertionError(f"no line for hierarchy {hierarchy.hierarchy_id}")


def test_the_hierarchy_of_this_machine(hierarchy):
    assert hierarchy.mount_point.is_dir()
    assert (hierarchy.mode == "v2") == (hierarchy.hierarchy_id == 0)
    assert is_whole_hierarchy(hierarchy)
    assert describe_limits(hierarchy) == ""
    assert kernel_path("self", hierarchy).startswith("/")


def test_a_scan_finds_every_cgroup_of_a_tree(hierarchy, table, made):
    top = made("a/b/c").parents[2]
    for name in ("a/d", "e"):
        made(name)
    table.scan()
    directories = [Path(directory) for directory, _, _ in os.walk(top)]
    assert len(directories) == 6
    cgroups = look_up(table, *(directory.stat().st_ino for directory in directories))
    assert [cgroup.path for cgroup in cgroups] == [path_in(hierarchy, directory) for directory in directories]
    assert len({cgroup.cg for cgroup in cgroups}) == 6


def test_a_process_is_where_its_cgroup_id_says(hierarchy, table, made):
    group = made("busy")
    table.scan()
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            (group / "cgroup.procs").write_text(str(process.pid))
            [cgroup] = look_up(table, group.stat().st_ino)
            assert cgroup.path == kernel_path(process.pid, hierarchy) == path_in(hierarchy, group)
        finally:
            process.kill()


def test_a_cgroup_made_after_the_scan_is_found_when_it_is_sampled(hierarchy, table, made):
    first = made("first")
    [cgroup] = look_up(table, first.stat().st_ino)
    assert cgroup.path == path_in(hierarchy, first)


def test_a_removed_cgroup_keeps_its_name(hierarchy, table, made):
    pod = made(f"kubepods/besteffort/pod{POD_UID}/{CONTAINER_ID}")
    kernel_id, path = pod.stat().st_ino, path_in(hierarchy, pod)
    table.scan()
    [before] = look_up(table, kernel_id)
    pod.rmdir()
    removed_ns = time.time_ns()
    event = (removed_ns, kernel_id, CgroupAction.REMOVED, path.encode())
    table.observe(np.array([event], CGROUP_EVENT))
    [after] = look_up(table, kernel_id)
    assert (after.cg, after.path, after.end_ns) == (before.cg, path, removed_ns)
    assert (after.pod_uid, after.container_id, after.service_class) == (POD_UID, CONTAINER_ID, "offline")


def test_a_directory_made_again_under_the_same_name_is_another_cgroup(table, made):
    group = made("again")
    first_id = group.stat().st_ino
    table.scan()
    group.rmdir()
    group.mkdir()
    second_id = group.stat().st_ino
    table.scan()
    first, second = look_up(table, first_id, second_id)
    assert first.path == second.path
    assert first.cg != second.cg
    assert first.end_ns and not second.end_ns


@pytest.mark.parametrize("hierarchy", ["auto"], indirect=True)
@pytest.mark.parametrize("is_idle", [False, True])
def test_the_cpu_share_gives_the_class_and_children_inherit_it(hierarchy, table, made, is_idle):
    child, other = made("share/child"), made("other")
    file, least = ("cpu.weight", "1") if hierarchy.mode == "v2" else ("cpu.shares", "2")
    (child.parent / ("cpu.idle" if is_idle else file)).write_text("1" if is_idle else least)
    table.scan()
    cgroups = look_up(table, child.parent.stat().st_ino, child.stat().st_ino, other.stat().st_ino)
    assert [cgroup.service_class for cgroup in cgroups] == ["offline", "offline", "online"]
    assert cgroups[1].workload == path_in(hierarchy, child).lstrip("/")
