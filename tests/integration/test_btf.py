"""Layouts from the running kernel's BTF, and what compiling against them leaves in memory: nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from profiler import layout
from profiler.btf import Btf
from profiler.errors import KernelFeatureMissing
from profiler.hierarchy import detect_hierarchy
from profiler.loader import possible_cpus
from profiler.sampler import load_cgroup_events, load_sampling

# Samples for a moment, then says what it holds in memory, and what of the compiler it maps.
HOLDER = """
from pathlib import Path
from profiler.sampler import Sampler, SamplerSettings
from profiler.workloads import load_rules

with Sampler(SamplerSettings(), load_rules()):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    maps = Path("/proc/self/maps").read_text()
print(int(status["VmRSS"].split()[0]) * 1024, any(name in maps for name in ("libbcc", "libclang", "libLLVM")))
"""


@pytest.mark.parametrize(
    ("struct", "member"),
    [
        ("task_struct", "group_leader"),
        ("css_set", "dfl_cgrp"),
        ("kernfs_node", "dir"),  # in an anonymous union
        ("sk_buff", "next"),  # in an anonymous struct in an anonymous union
    ],
)
def test_members_are_found_at_any_depth(struct, member):
    with Btf() as btf:
        assert btf.has_member(struct, member)


@pytest.mark.parametrize(
    ("struct", "member"),
    [
        ("task_struct", "no_such_member"),
        ("no_such_struct", "pid"),
        ("kernfs_node", "subdirs"),  # of a named struct inside
        ("pid_t", "pid"),  # not a struct
    ],
)
def test_what_is_not_there_is_not_found(struct, member):
    with Btf() as btf:
        assert not btf.has_member(struct, member)


def test_a_missing_file_says_the_way_out(tmp_path):
    with pytest.raises(KernelFeatureMissing, match=r"no BTF at .*/none; boot a kernel built with"):
        Btf(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"text", os.urandom(4096), b"\x9f\xeb\x01\x00" + b"\xff" * 60])
def test_a_file_that_is_no_btf_is_refused(tmp_path, content, capfd):
    file = tmp_path / "vmlinux"
    file.write_bytes(content)
    with pytest.raises(KernelFeatureMissing, match="cannot be parsed"):
        Btf(file)
    assert capfd.readouterr() == ("", "")


def test_the_tree_carries_the_kernels_types(tmp_path):
    with Btf() as btf:
        btf.write_tree(tmp_path)
    types = (tmp_path / "include/vmlinux_btf.h").read_text()
    for declaration in ("struct task_struct {", "struct css_set {", "struct cgroup {", "enum cgroup_subsys_id {"):
        assert declaration in types
    assert types.endswith("\n")


@pytest.mark.parametrize("mode", ["auto", "v2"])
def test_both_programs_compile_and_load(mode):
    before = children_of(os.getpid())
    hierarchy = detect_hierarchy(mode)
    sampling, events = load_sampling(hierarchy), load_cgroup_events(hierarchy)
    try:
        assert list(sampling.programs) == ["on_tick"]
        assert len(events.programs) == 3
        assert not sampling.map_array("cpus", layout.coprof_cpu, possible_cpus())["ticks"].any()
        slots_bytes = possible_cpus() * layout.SAMPLE_SLOTS * layout.coprof_sample.itemsize
        assert sampling.bpf_bytes() > slots_bytes
    finally:
        sampling.close()
        events.close()
    assert children_of(os.getpid()) == before


def test_the_sampler_keeps_no_compiler_in_memory():
    answer = subprocess.run([sys.executable, "-c", HOLDER], capture_output=True, text=True, check=True).stdout.split()
    assert int(answer[0]) < 80 * 2**20
    assert answer[1] == "False"


def children_of(parent):
    """Processes of which `parent` is the parent, zombies too."""
    children = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # gone
            continue
        if int(fields[1]) == parent:
            children.append(file.parent.name)
    return children
