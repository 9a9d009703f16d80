"""What a process, its BPF objects and the machine used: readings to subtract from each other, all from outside.

CPU time is the process's own CPU clock, exact to the nanosecond and with threads that have ended. Its split into user
and system is the kernel's, which on most kernels is told from where timer ticks fell: over some ten seconds it is
right to about a tenth.
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_STATISTICS_RUN_TIME = 0  # BPF_STATS_RUN_TIME


@dataclass(frozen=True)
class Usage:
    """CPU time since a process began, and of the children that it has waited for."""

    cpu_ns: int
    user_ns: int
    children_ns: int


@dataclass(frozen=True)
class Memory:
    """Memory of a process now. `pss_bytes` shares pages with the other processes that map them."""

    rss_bytes: int
    pss_bytes: int


@dataclass(frozen=True)
class BpfUsage:
    """BPF objects that a process holds: their kernel memory, and what its programs have run so far."""

    memory_bytes: int
    runs: int
    run_ns: int


@dataclass(frozen=True)
class Machine:
    """CPU time of all CPUs since boot; steal is what the hypervisor gave to others."""

    busy_ns: int
    steal_ns: int


def read_cpu_ns(pid: int) -> int:
    """Return the CPU time of a process, user and system."""
    return time.clock_gettime_ns((~pid << 3) | 2)  # clock_getcpuclockid(3), which Python has for threads only


def read_usage(pid: int) -> Usage:
    """Read the CPU time of a process; source: proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    user, system, children_user, children_system = map(int, fields[11:15])
    cpu_ns = read_cpu_ns(pid)
    return Usage(cpu_ns, cpu_ns * user // max(1, user + system), (children_user + children_system) * _TICK_NS)


def read_memory(pid: int) -> Memory:
    """Read the resident memory of a process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kilobytes = {key: int(value.split()[0]) for key, _, value in (line.partition(":") for line in lines)}
    return Memory(kilobytes["Rss"] * 1024, kilobytes["Pss"] * 1024)


def read_bpf(pid: int) -> BpfUsage:
    """Read what BPF objects a process holds by descriptor; run times are 0 outside `bpf_statistics`."""
    described = [_read_fdinfo(path) for path in Path(f"/proc/{pid}/fdinfo").iterdir()]
    # A mapped map has two descriptors, one of them the mapping's.
    objects = {(f.get("map_id"), f.get("prog_id")): f for f in described if "map_id" in f or "prog_id" in f}.values()
    return BpfUsage(
        sum(int(fields.get("memlock", 0)) for fields in objects),
        sum(int(fields.get("run_cnt", 0)) for fields in objects),
        sum(int(fields.get("run_time_ns", 0)) for fields in objects),
    )


def read_machine() -> Machine:
    """Read the time of all CPUs; source: proc_stat(5)."""
    with open("/proc/stat") as lines:
        _, user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = next(lines).split()
    return Machine(sum(map(int, (user, nice, system, irq, softirq))) * _TICK_NS, int(steal) * _TICK_NS)


@contextmanager
def bpf_statistics() -> Iterator[None]:
    """Have the kernel time every run of a BPF program; ends with this process at the latest."""
    libbpf = ct.CDLL("libbpf.so.1", use_errno=True)
    fd = libbpf.bpf_enable_stats(_STATISTICS_RUN_TIME)
    if fd < 0:
        code = ct.get_errno() or errno.EPERM
        raise OSError(code, f"BPF statistics are refused: {os.strerror(code)}; run as root")
    try:
        yield
    finally:
        os.close(fd)


def _read_fdinfo(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:  # closed meanwhile
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
