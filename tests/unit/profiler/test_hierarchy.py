"""Hierarchies from recorded mountinfo texts, and scans of directory trees that stand in for cgroup file systems."""

import os
from pathlib import Path

import pytest

from profiler.errors import BadInput, KernelFeatureMissing
from profiler.hierarchy import (
    Hierarchy,
    describe_limits,
    detect_hierarchy,
    printable,
    read_cpu_share,
    read_mounts,
    scan_cgroups,
)
from profiler.workloads import CpuShare

# CentOS 7: systemd with controllers on v1 only, cpu and cpuacct together.
V1 = """\
17 36 0:16 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw
23 17 0:19 / /sys/fs/cgroup rw,nosuid,nodev,noexec shared:8 - tmpfs tmpfs rw,mode=755
24 23 0:20 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
26 23 0:22 / /sys/fs/cgroup/cpuset rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,cpuset
27 23 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,cpu,cpuacct
28 23 0:24 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:12 - cgroup cgroup rw,memory
36 0 253:0 / / rw,relatime shared:1 - xfs /dev/mapper/vg_root-lv_root rw,attr2,inode64,noquota
"""
# Ubuntu 20.04: systemd's hybrid layout.
HYBRID = """\
31 22 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:9 - tmpfs tmpfs ro,mode=755
32 31 0:27 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
33 31 0:28 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,xattr,name=systemd
37 31 0:32 / /sys/fs/cgroup/cpuset rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,cpuset
38 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:17 - cgroup cgroup rw,cpu,cpuacct
"""
# Fedora, Debian 12, GKE with containerd: one cgroup2 mount.
V2 = """\
27 34 0:24 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
35 27 0:28 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_localevents
44 34 0:41 / /proc/sys/fs/binfmt_misc rw,relatime - autofs systemd-1 rw
"""
# A Firecracker VM without systemd: cpu and cpuacct apart, no tags.
APART = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
# A Docker container on a v1 host, without a cgroup namespace of its own.
CONTAINER_V1 = """\
5631 5630 0:529 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
5633 5631 0:33 /docker/4f2a /sys/fs/cgroup/cpu,cpuacct ro,nosuid,nodev,noexec master:12 - cgroup cgroup rw,cpu,cpuacct
"""
# A pod with the host's hierarchy mounted beside its own, in a cgroup namespace.
CONTAINER_V2 = """\
749 741 0:28 /../../.. /host/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate
750 741 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup2 rw,nsdelegate
"""


def cgroups(cpu_id):
    return f"#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpuset\t3\t1\t1\ncpu\t{cpu_id}\t70\t1\ncpuacct\t9\t1\t1\n"


@pytest.fixture
def proc(tmp_path):
    def make(mountinfo, cpu_id):
        (tmp_path / "self").mkdir(exist_ok=True)
        (tmp_path / "self/mountinfo").write_text(mountinfo)
        if cpu_id is not None:
            (tmp_path / "cgroups").write_text(cgroups(cpu_id))
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("mountinfo", "cpu_id", "mode", "expected"),
    [
        (V1, 4, "auto", Hierarchy("v1", Path("/sys/fs/cgroup/cpu,cpuacct"), 4)),
        (HYBRID, 7, "auto", Hierarchy("hybrid", Path("/sys/fs/cgroup/cpu,cpuacct"), 7)),
        (HYBRID, 7, "v2", Hierarchy("v2", Path("/sys/fs/cgroup/unified"), 0)),
        (HYBRID, 7, "v1", Hierarchy("v1", Path("/sys/fs/cgroup/cpu,cpuacct"), 7)),
        (V2, 0, "auto", Hierarchy("v2", Path("/sys/fs/cgroup"), 0)),
        (V2, None, "auto", Hierarchy("v2", Path("/sys/fs/cgroup"), 0)),
        (V1 + V2, 0, "auto", Hierarchy("v2", Path("/sys/fs/cgroup"), 0)),
        (APART, 1, "auto", Hierarchy("hybrid", Path("/sys/fs/cgroup/cpu"), 1)),
        (APART, 1, "v2", Hierarchy("v2", Path("/sys/fs/cgroup/unified"), 0)),
        (CONTAINER_V1, 4, "auto", Hierarchy("v1", Path("/sys/fs/cgroup/cpu,cpuacct"), 4, "/docker/4f2a")),
        (CONTAINER_V2, 0, "auto", Hierarchy("v2", Path("/host/sys/fs/cgroup"), 0, "/../../..")),
    ],
)
def test_detect_hierarchy(proc, mountinfo, cpu_id, mode, expected):
    assert detect_hierarchy(mode, proc=proc(mountinfo, cpu_id)) == expected


@pytest.mark.parametrize(
    ("mountinfo", "cpu_id", "mode", "error", "says"),
    [
        (V2, 0, "v3", BadInput, "cgroup mode 'v3' is none of auto, v1, hybrid, v2"),
        (V1, 4, "v2", KernelFeatureMissing, "no cgroup2 file system is mounted"),
        (V2, 0, "v1", KernelFeatureMissing, "no v1 hierarchy of the cpu controller is mounted"),
        (V2, 4, "auto", KernelFeatureMissing, "no v1 hierarchy of the cpu controller is mounted"),
        ("", 0, "auto", KernelFeatureMissing, "no cgroup2 file system is mounted"),
    ],
)
def test_detect_hierarchy_refuses(proc, mountinfo, cpu_id, mode, error, says):
    with pytest.raises(error, match=says):
        detect_hierarchy(mode, proc=proc(mountinfo, cpu_id))


def test_without_procfs(tmp_path):
    with pytest.raises(KernelFeatureMissing, match="mountinfo cannot be read: No such file"):
        detect_hierarchy(proc=tmp_path)


def test_mounts_decode_escapes_and_pass_over_broken_lines(tmp_path):
    file = tmp_path / "mountinfo"
    file.write_text(
        "1 2 0:3 / /a\\040b rw shared:1 master:2 - cgroup2 none rw\nbroken - line\n1 2 3 - cgroup2 x rw\n\n"
    )
    assert [mount.mount_point for mount in read_mounts(file)] == [Path("/a b")]


@pytest.mark.parametrize(("root", "prefix"), [("/", ""), ("/docker/4f2a", "/docker/4f2a"), ("/../..", "")])
def test_paths_keep_what_lies_above_a_bind_mount(tmp_path, root, prefix):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/cpu.shares").write_text("1024\n")
    found = dict(scan_cgroups(Hierarchy("v1", tmp_path, 4, root)))
    assert found == {
        tmp_path.stat().st_ino: prefix or "/",
        (tmp_path / "a").stat().st_ino: f"{prefix}/a",
        (tmp_path / "a/b").stat().st_ino: f"{prefix}/a/b",
    }


def test_names_that_are_no_text_are_escaped(tmp_path):
    (tmp_path / os.fsdecode(b"a\xff\x1b[31m")).mkdir()
    found = dict(scan_cgroups(Hierarchy("v2", tmp_path, 0)))
    assert sorted(found.values()) == ["/", r"/a\xff\x1b[31m"]
    assert printable("/a\u202eb") == r"/a\u202eb"
    assert printable("/é") == "/é"


def test_limits_in_words(tmp_path):
    assert describe_limits(Hierarchy("v1", tmp_path, 4, "/docker/4f2a")) == (
        f"only /docker/4f2a of the hierarchy is mounted at {tmp_path}: others have no names"
    )
    assert "a cgroup namespace hides" in describe_limits(Hierarchy("v2", tmp_path, 0))
    assert "No such file" in describe_limits(Hierarchy("v2", tmp_path / "none", 0))


def test_cpu_share_counts_ancestors(tmp_path):
    def write(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    write("idle/cpu.idle", "1\n")
    write("idle/job/cpu.idle", "0\n")
    write("idle/job/cpu.shares", "1024\n")
    write("least/cpu.shares", "2\n")
    write("least/cpu.weight", "100\n")
    write("weight/cpu.weight", "1\n")
    v1, v2 = Hierarchy("hybrid", tmp_path, 1), Hierarchy("v2", tmp_path, 0)
    assert read_cpu_share(v1, "/idle/job") == CpuShare(is_idle=True)
    assert read_cpu_share(v1, "/least/deeper") == CpuShare(is_least_weight=True)
    assert read_cpu_share(v2, "/least") == CpuShare()
    assert read_cpu_share(v2, "/weight") == CpuShare(is_least_weight=True)
    assert read_cpu_share(v1, "/") == CpuShare()
    assert read_cpu_share(v1, "/gone") == CpuShare()
    below = Hierarchy("v1", tmp_path, 1, "/docker/4f2a")
    assert read_cpu_share(below, "/docker/4f2a/idle") == CpuShare(is_idle=True)
    assert read_cpu_share(below, "/idle") == CpuShare()
    assert read_cpu_share(Hierarchy("v1", tmp_path / "least", 1), "/../idle") == CpuShare()
