"""Choosing and opening sampling events, with the system call replaced: what the kernel refuses gets a way out."""

import ctypes as ct
import errno
import os

import pytest

from profiler import perf_events
from profiler.errors import BadInput, KernelFeatureMissing, NoPermission
from profiler.perf_events import attach_sampler, choose_event

REFUSALS = (errno.EPERM, errno.EACCES)


class Kernel:
    """Stands for opening an event: keeps what was asked for, and raises the error it was given."""

    def __init__(self):
        self.error = 0
        self.asked = []
        self.opened = []

    def open(self, event, hz, cpu):
        self.asked.append((event, hz, cpu))
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        self.opened.append(os.open("/dev/null", os.O_RDONLY))
        return self.opened[-1]


@pytest.fixture
def kernel(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(perf_events, "_open", kernel.open)
    return kernel


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_an_unknown_event_is_refused_with_the_known_ones(kernel):
    with pytest.raises(BadInput, match=r"unknown sampling event 'instructions'; choose auto, cycles, cpu-clock"):
        choose_event("instructions")
    assert not kernel.asked


def test_the_clock_is_taken_unseen(kernel):
    assert choose_event("cpu-clock") == "cpu-clock"
    assert not kernel.asked


@pytest.mark.parametrize("wanted", ["auto", "cycles"])
def test_cycles_are_taken_where_they_open_and_the_trial_is_closed(kernel, wanted):
    assert choose_event(wanted) == "cycles"
    assert not is_open(kernel.opened[0])


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EOPNOTSUPP, errno.ENODEV])
def test_without_a_pmu_auto_is_the_clock_and_cycles_an_error_with_a_way_out(kernel, code):
    kernel.error = code
    assert choose_event("auto") == "cpu-clock"
    with pytest.raises(KernelFeatureMissing, match=r"no hardware PMU .* --event cpu-clock"):
        choose_event("cycles")


@pytest.mark.parametrize("code", REFUSALS)
@pytest.mark.parametrize("call", [lambda: choose_event("auto"), lambda: attach_sampler("cycles", 49, 0, 3)])
def test_a_refusal_is_no_missing_pmu(kernel, code, call):
    kernel.error = code
    with pytest.raises(NoPermission, match=r"CAP_PERFMON.*perf_event_paranoid"):
        call()


def test_an_event_that_does_not_open_is_named(kernel):
    kernel.error = errno.EINVAL
    with pytest.raises(KernelFeatureMissing, match="perf event cpu-clock at 49 Hz on CPU 3: Invalid argument"):
        attach_sampler("cpu-clock", 49, 3, program_fd=-1)


def test_an_event_that_takes_no_program_is_closed_again(kernel):
    with pytest.raises(KernelFeatureMissing, match=r"on CPU 3 takes no BPF program: .*; run coprof check"):
        attach_sampler("cpu-clock", 49, 3, program_fd=-1)  # /dev/null knows no such ioctl
    assert not is_open(kernel.opened[0])


def test_an_unknown_machine_is_told_before_anything_is_called(monkeypatch):
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "n", "6.1", "#1", "vax")))
    with pytest.raises(KernelFeatureMissing, match="machine 'vax' is not known"):
        choose_event("auto")


@pytest.mark.parametrize(
    ("event", "period_or_hz", "kind", "flags"),
    [("cpu-clock", 1_000_000_000 // 49, 1, 1), ("cycles", 49, 0, 1 | 1 << 10)],
)
def test_the_clock_has_a_period_and_cycles_a_frequency(monkeypatch, event, period_or_hz, kind, flags):
    calls = []

    class Libc:
        def syscall(self, _number, attributes, *rest):
            calls.append((bytes(attributes._obj), rest))
            return 77

    monkeypatch.setattr(ct, "CDLL", lambda *_, **__: Libc())
    assert perf_events._open(event, 49, 5) == 77
    ((attributes, rest),) = calls
    asked = perf_events._Attributes.from_buffer_copy(attributes)
    assert (asked.type, asked.size, asked.sample_period_or_freq) == (kind, 112, period_or_hz)
    assert asked.flags == flags, "bit 0: starts disabled, bit 10: a frequency"
    assert rest == (-1, 5, -1, 8), "any process, CPU 5, no group, closed on exec"
