"""perf events and raw tracepoints: open them and attach loaded programs. A closed descriptor detaches.

BCC could attach as well, but only inside the process that keeps the compiler. One event a CPU, system-wide: hardware
cycles where there is a PMU, else the cpu-clock timer.
"""

from __future__ import annotations

import ctypes as ct
import errno
import fcntl
import os
from pathlib import Path

from profiler.errors import BadInput, KernelFeatureMissing, NoPermission
from profiler.node import decode_cpu_list

EVENTS = ("auto", "cycles", "cpu-clock")

_TYPE_HARDWARE, _TYPE_SOFTWARE = 0, 1
_CONFIG = {"cycles": (_TYPE_HARDWARE, 0), "cpu-clock": (_TYPE_SOFTWARE, 0)}
_IOC_ENABLE, _IOC_SET_BPF = 0x2400, 0x40042408
_FLAG_FREQUENCY = 1 << 10
_FD_CLOEXEC = 8
_SYSCALL = {"x86_64": 298, "aarch64": 241}


class _Attributes(ct.Structure):
    """The first 112 bytes of `struct perf_event_attr` (version 5), most of them left 0."""

    _fields_ = (
        ("type", ct.c_uint32),
        ("size", ct.c_uint32),
        ("config", ct.c_uint64),
        ("sample_period_or_freq", ct.c_uint64),
        ("sample_type", ct.c_uint64),
        ("read_format", ct.c_uint64),
        ("flags", ct.c_uint64),
        ("rest", ct.c_uint64 * 8),
    )


def choose_event(wanted: str) -> str:
    """Return the event to sample on: `wanted`, or for "auto" cycles where a PMU counts them, else cpu-clock."""
    if wanted not in EVENTS:
        raise BadInput(f"unknown sampling event {wanted!r}; choose {', '.join(EVENTS)}")
    if wanted == "cpu-clock":
        return wanted
    try:
        os.close(_open("cycles", 49, 0))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise _refused(error) from None
        if wanted == "auto":
            return "cpu-clock"
        raise KernelFeatureMissing("no hardware PMU counts cycles here; use --event cpu-clock") from None
    return "cycles"


def attach_sampler(event: str, hz: int, cpu: int, program_fd: int) -> int | None:
    """Sample `event` at `hz` on `cpu` into the program; returns the event's descriptor, None if the CPU went away."""
    try:
        fd = _open(event, hz, cpu)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return None
        if error.errno in (errno.EACCES, errno.EPERM):
            raise _refused(error) from None
        raise KernelFeatureMissing(f"perf event {event} at {hz} Hz on CPU {cpu}: {error.strerror}") from None
    try:
        fcntl.ioctl(fd, _IOC_SET_BPF, program_fd)
        fcntl.ioctl(fd, _IOC_ENABLE, 0)
    except OSError as error:
        os.close(fd)
        raise KernelFeatureMissing(
            f"perf event {event} on CPU {cpu} takes no BPF program: {error.strerror}; run coprof check"
        ) from None
    return fd


def attach_raw_tracepoint(tracepoint: str, program_fd: int) -> int:
    """Run the program at every hit of the raw tracepoint; returns the link's descriptor."""
    libbpf = ct.CDLL("libbpf.so.1", use_errno=True)
    fd: int = libbpf.bpf_raw_tracepoint_open(tracepoint.encode(), program_fd)
    if fd < 0:
        raise KernelFeatureMissing(f"raw tracepoint {tracepoint}: {os.strerror(ct.get_errno())}; run coprof check")
    return fd


def online_cpus() -> set[int]:
    """CPUs that are up now."""
    return set(decode_cpu_list(Path("/sys/devices/system/cpu/online").read_text()))


def _open(event: str, hz: int, cpu: int) -> int:
    kind, config = _CONFIG[event]
    attributes = _Attributes(type=kind, config=config, size=ct.sizeof(_Attributes), flags=1)  # flag 1: start disabled
    if event == "cpu-clock":
        attributes.sample_period_or_freq = 1_000_000_000 // hz
    else:
        attributes.sample_period_or_freq, attributes.flags = hz, 1 | _FLAG_FREQUENCY
    machine = os.uname().machine
    if machine not in _SYSCALL:
        raise KernelFeatureMissing(f"machine {machine!r} is not known to coprof; it runs on {', '.join(_SYSCALL)}")
    libc = ct.CDLL(None, use_errno=True)
    fd: int = libc.syscall(ct.c_long(_SYSCALL[machine]), ct.byref(attributes), -1, cpu, -1, _FD_CLOEXEC)
    if fd < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return fd


def _refused(error: OSError) -> NoPermission:
    return NoPermission(
        f"perf_event_open is refused ({error.strerror}); run as root or with CAP_PERFMON, "
        "or lower kernel.perf_event_paranoid"
    )
