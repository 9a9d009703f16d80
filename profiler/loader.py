"""BPF sources to loaded programs and mapped memory, without kernel headers and without keeping a compiler.

`load` compiles one C file in a child process (see `profiler.compiler`) against a tree made from the running kernel's
BTF, and returns descriptors. Maps made with `BPF_F_MMAPABLE` become numpy arrays that share memory with the kernel.

Kernel limits: 5.5 and later (mapped arrays); perf-event programs and raw tracepoints; no kprobes anywhere.
"""

from __future__ import annotations

import ctypes as ct
import errno
import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from profiler.btf import Btf
from profiler.errors import KernelFeatureMissing, NoPermission
from profiler.hierarchy import Hierarchy

SOURCES = Path(__file__).parent / "bpf"
COMPILE_TIMEOUT_S = 60
MAX_DESCRIPTORS = 64


@dataclass(frozen=True)
class Loaded:
    """Descriptors of one BPF object, by the names in its C file.

    Closing them unloads the programs; mapped maps live as long as the arrays that share their memory.
    """

    maps: Mapping[str, int]
    programs: Mapping[str, int]

    def map_array(self, name: str, dtype: npt.DTypeLike, count: int) -> npt.NDArray[np.void]:
        """Map `count` values of the array map `name`, each of `dtype`; reads and writes are shared with the kernel."""
        value_bytes = -(-np.dtype(dtype).itemsize // 8) * 8  # the kernel rounds each value up to 8
        if value_bytes != np.dtype(dtype).itemsize:
            raise ValueError(f"{name}: a value of {np.dtype(dtype).itemsize} bytes is not a multiple of 8")
        length = -(-value_bytes * count // mmap.PAGESIZE) * mmap.PAGESIZE
        memory = mmap.mmap(self.maps[name], length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        return np.frombuffer(memory, dtype=dtype, count=count)

    def bpf_bytes(self) -> int:
        """Kernel memory held by maps and programs, as the kernel accounts it."""
        return sum(_memlock_bytes(fd) for fd in (*self.maps.values(), *self.programs.values()))

    def close(self) -> None:
        for fd in (*self.maps.values(), *self.programs.values()):
            os.close(fd)


def possible_cpus() -> int:
    """Number of CPUs that this kernel may ever bring up: sizes per-CPU tables."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def sampling_defines(hierarchy: Hierarchy) -> dict[str, int | None]:
    """What every program that tells CPUs and cgroups apart is compiled with."""
    defines: dict[str, int | None] = {"COPROF_CPUS": possible_cpus()}
    return defines | {"COPROF_CGROUP_V2": None} if hierarchy.mode == "v2" else defines


def load(source: str, defines: Mapping[str, int | None], maps: Sequence[str], programs: Mapping[str, str]) -> Loaded:
    """Compile and load `bpf/<source>`; `defines` become -D flags.

    `programs` maps names to "perf_event" or "raw_tracepoint".
    Raises `KernelFeatureMissing` when there is no BTF or the verifier refuses, `NoPermission` when BPF is refused.
    """
    flags = [f"-I{SOURCES}", "-Wno-unknown-warning-option"]
    flags += [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in defines.items()]
    request = {"source": str(SOURCES / source), "flags": flags, "maps": list(maps), "programs": dict(programs)}
    require_bpf()
    with tempfile.TemporaryDirectory(prefix="coprof-btf-") as tree:
        with Btf() as btf:
            btf.write_tree(Path(tree))
        descriptors = _compile(request, tree)
    return Loaded({name: descriptors[name] for name in maps}, {name: descriptors[name] for name in programs})


def _compile(request: Mapping[str, object], tree: str) -> dict[str, int]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environment = {**os.environ, "BCC_KERNEL_SOURCE": tree, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-P", "-m", "profiler.compiler"]  # -P: run nothing from the working directory
    with ours, theirs, tempfile.TemporaryFile() as messages:
        with subprocess.Popen(
            command,
            stdin=theirs.fileno(),
            stdout=messages,
            stderr=messages,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches us alone, and we end the child
        ) as child:
            answer, fds = b"", list[int]()
            try:
                theirs.close()
                ours.settimeout(COMPILE_TIMEOUT_S)
                ours.send(json.dumps(request).encode())
                answer, fds, _, _ = socket.recv_fds(ours, 1 << 16, MAX_DESCRIPTORS)
            except (TimeoutError, ConnectionError):
                pass  # it says why in its messages
            finally:
                if not answer:
                    child.kill()
        for fd in fds:
            os.set_inheritable(fd, False)  # recv_fds of Python 3.11 ignores its flags, so not by MSG_CMSG_CLOEXEC
        if answer:
            return dict(zip(json.loads(answer), fds, strict=True))
        messages.seek(0)
        if os.environ.get("COPROF_DEBUG"):
            print(messages.read().decode()[-3500:])
            messages.seek(0)
        raise _compile_error(str(request["source"]), messages.read().decode(errors="replace"))


def _compile_error(source: str, messages: str) -> KernelFeatureMissing:
    """The line of clang, the verifier or Python that says most, in one sentence."""
    if "No module named 'bcc'" in messages:
        return KernelFeatureMissing("python3-bpfcc is not installed; apt-get install python3-bpfcc")
    lines = [line.strip() for line in messages.splitlines() if line.strip()]
    errors = [line for line in lines if " error: " in line]  # of clang, the first is the cause
    refusals = [line for line in lines if "invalid" in line or "unknown func" in line]  # of the verifier, the last
    said = (errors[:1] or refusals[-1:] or lines[-1:] or ["the compiler gave no answer"])[0]
    return KernelFeatureMissing(f"{Path(source).name} was not accepted by this kernel: {said}; run coprof check")


def require_bpf() -> None:
    """Ask the kernel for the smallest map there is: tells a refusal apart from a failing compiler.

    bpf(BPF_MAP_CREATE) with an array of one u64; errors are EPERM (no right), ENOSYS (no BPF).
    """
    attributes = (ct.c_uint32 * 18)(2, 4, 8, 1)  # BPF_MAP_TYPE_ARRAY, key, value, entries; the rest is 0
    fd = ct.CDLL(None, use_errno=True).syscall(
        ct.c_long(_bpf_syscall()), 0, ct.byref(attributes), ct.sizeof(attributes)
    )
    if fd >= 0:
        os.close(fd)
        return
    code = ct.get_errno()
    if code == errno.ENOSYS:
        raise KernelFeatureMissing("this kernel has no bpf(2); boot one built with CONFIG_BPF_SYSCALL=y")
    raise NoPermission(
        f"the kernel refuses BPF to uid {os.geteuid()} ({os.strerror(code)}); "
        "run as root, or with CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN (containers also: seccomp)"
    )


def _bpf_syscall() -> int:
    numbers = {"x86_64": 321, "aarch64": 280}
    machine = os.uname().machine
    if machine not in numbers:
        raise KernelFeatureMissing(f"machine {machine!r} is not known to coprof; it runs on {', '.join(numbers)}")
    return numbers[machine]


def _memlock_bytes(fd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == "memlock":
            return int(value)
    return 0
