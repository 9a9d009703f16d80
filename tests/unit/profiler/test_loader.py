"""Compiling and mapping, as far as no BPF is needed: sizes, CPU lists, and errors in one line with a way out."""

import ctypes as ct
import errno
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from profiler import layout, loader
from profiler.errors import KernelFeatureMissing, NoPermission
from profiler.loader import Loaded, possible_cpus, require_bpf

CLANG = """\
/virtual/main.c:9:10: warning: something is unused [-Wunused]
/usr/share/coprof/bpf/sampler.c:80:7: error: no member named 'start_boottime' in 'struct task_struct'
        COPROF_READ(start_ns, leader->start_boottime);
/usr/share/coprof/bpf/sampler.c:90:7: error: use of undeclared identifier 'later'
Traceback (most recent call last):
Exception: Failed to compile BPF module b'sampler.c'
"""
VERIFIER = """\
bpf: Failed to load program: Permission denied
0: R1=ctx() R10=fp0
12: (79) r3 = *(u64 *)(r2 +8)
R2 invalid mem access 'scalar'
processed 13 insns (limit 1000000)

Traceback (most recent call last):
Exception: Failed to load BPF program b'on_tick': Permission denied
"""
NO_BCC = """\
Traceback (most recent call last):
  File "compiler.py", line 22, in <module>
    from bcc import BPF
ModuleNotFoundError: No module named 'bcc'
"""


@pytest.fixture
def loaded():
    """Two maps that are files in memory."""
    maps = {}
    for name in ("cpus", "odd"):
        maps[name] = os.memfd_create(name)
        os.ftruncate(maps[name], 4 * mmap.PAGESIZE)
    loaded = Loaded(maps, {"on_tick": os.open("/dev/null", os.O_RDONLY)})
    yield loaded
    loaded.close()


@pytest.mark.parametrize("dtype", ["<u4", "S17", [("a", "<u8"), ("b", "<u4")]])
def test_values_that_the_kernel_would_round_up_are_refused(loaded, dtype):
    with pytest.raises(ValueError, match=r"odd: a value of .* bytes is not a multiple of 8"):
        loaded.map_array("odd", dtype, 3)


def test_a_mapped_array_shares_memory_both_ways(loaded):
    array = loaded.map_array("cpus", layout.coprof_cpu, 3)
    assert (array.dtype, len(array)) == (layout.coprof_cpu, 3)
    os.pwrite(loaded.maps["cpus"], (7).to_bytes(8, "little"), 2 * layout.coprof_cpu.itemsize)
    assert array["sample_head"].tolist() == [0, 0, 7]
    array["sample_tail"][1] = 5
    assert loaded.map_array("cpus", layout.coprof_cpu, 3)["sample_tail"].tolist() == [0, 5, 0]


def test_a_map_longer_than_a_page_is_mapped_whole(loaded):
    count = 3 * mmap.PAGESIZE // 8 + 1
    array = loaded.map_array("cpus", np.uint64, count)
    array[-1] = 9
    assert os.pread(loaded.maps["cpus"], 1, 8 * (count - 1)) == b"\x09"


def test_closing_closes_maps_and_programs():
    pipes = os.pipe()
    Loaded({"a": pipes[0]}, {"b": pipes[1]}).close()
    for fd in pipes:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


@pytest.mark.parametrize(
    ("listed", "count"), [("0\n", 1), ("0-1\n", 2), ("0-127\n", 128), ("0-3,8-11\n", 12), ("0,2\n", 3)]
)
def test_possible_cpus_are_counted_by_the_highest(monkeypatch, listed, count):
    monkeypatch.setattr(Path, "read_text", lambda path: {"/sys/devices/system/cpu/possible": listed}[str(path)])
    assert possible_cpus() == count


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (NO_BCC, "python3-bpfcc is not installed; apt-get install python3-bpfcc"),
        (CLANG, "no member named 'start_boottime' in 'struct task_struct'; run coprof check"),
        (VERIFIER, "R2 invalid mem access 'scalar'; run coprof check"),
        ("something else\nKilled\n\n", "sampler.c was not accepted by this kernel: Killed; run coprof check"),
        ("", "sampler.c was not accepted by this kernel: the compiler gave no answer; run coprof check"),
    ],
    ids=["no bcc", "clang", "verifier", "other", "silence"],
)
def test_a_failed_compilation_is_one_line_with_its_cause_and_a_way_out(messages, said):
    error = str(loader._compile_error("/usr/share/coprof/bpf/sampler.c", messages))
    assert error.endswith(said)
    assert "\n" not in error


def compile_with(monkeypatch, tmp_path, child, **constants):
    """Compile with a child that runs `child` instead of BCC."""
    script = tmp_path / "child"
    script.write_text(f"#!{sys.executable} -I\nimport json, os, socket, sys, time\n{child}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    for name, constant in constants.items():
        monkeypatch.setattr(loader, name, constant)
    return loader._compile({"source": "sampler.c", "maps": ["a"], "programs": {}}, str(tmp_path))


def test_descriptors_come_back_by_name_and_are_not_inherited(monkeypatch, tmp_path):
    child = """
channel = socket.socket(fileno=0)
assert json.loads(channel.recv(1 << 16))["source"] == "sampler.c"
assert os.environ["BCC_KERNEL_SOURCE"]
assert sys.argv[1:] == ["-P", "-m", "profiler.compiler"], "nothing is imported from the working directory"
pair = os.pipe()
os.write(pair[1], b"through")
socket.send_fds(channel, [json.dumps(["a", "b"]).encode()], pair)
"""
    descriptors = compile_with(monkeypatch, tmp_path, child)
    assert list(descriptors) == ["a", "b"]
    assert os.read(descriptors["a"], 10) == b"through"
    assert not any(map(os.get_inheritable, descriptors.values()))
    for fd in descriptors.values():
        os.close(fd)


def test_a_child_that_fails_is_quoted(monkeypatch, tmp_path):
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(KernelFeatureMissing, match="the verifier says invalid argument; run coprof check"):
        compile_with(monkeypatch, tmp_path, 'sys.exit("the verifier says invalid argument")')
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_child_that_hangs_is_ended(monkeypatch, tmp_path):
    with pytest.raises(KernelFeatureMissing, match="the compiler gave no answer"):
        compile_with(monkeypatch, tmp_path, "time.sleep(600)", COMPILE_TIMEOUT_S=0.2)


@pytest.mark.parametrize(
    ("code", "error", "way_out"),
    [
        (errno.EPERM, NoPermission, "run as root, or with CAP_BPF"),
        (errno.ENOSYS, KernelFeatureMissing, "CONFIG_BPF_SYSCALL=y"),
    ],
)
def test_a_kernel_that_refuses_bpf_is_told_from_one_that_has_none(monkeypatch, code, error, way_out):
    def refuse(*_):
        ct.set_errno(code)
        return -1

    monkeypatch.setattr(ct, "CDLL", lambda *_, **__: type("Libc", (), {"syscall": staticmethod(refuse)}))
    with pytest.raises(error, match=way_out):
        require_bpf()


def test_an_unknown_machine_is_named(monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", "6.1", "#1", "vax")))
    with pytest.raises(KernelFeatureMissing, match="machine 'vax' is not known to coprof; it runs on x86_64"):
        require_bpf()
