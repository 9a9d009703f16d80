"""One run of one tool beside the loads, to figures; and what the loads lose by it.

A tool is measured when it is steady: it has compiled and started, and coprof's agent has closed its first window.
What it used before and after is told apart.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from loads import Load
from meters import BpfUsage, Machine, Memory, Usage, read_bpf, read_machine, read_memory, read_usage
from tools import Tool

START_LIMIT_S = 30
SETTLE_S = 2  # of sampling before it is measured; in these the agent closes its first window
MEMORY_PAUSE_S = 1.0
END_LIMIT_S = 60

UNITS = {
    "CPU in all": "% of one CPU",
    "CPU in user space": "% of one CPU",
    "CPU in system calls": "% of one CPU",
    "CPU until steady": "s",
    "CPU after sampling": "s",
    "RSS, largest": "MiB",
    "PSS, largest": "MiB",
    "BPF memory": "KiB",
    "BPF program": "ns a tick",
    "samples": "1/s",
    "samples expected": "1/s",
    "written": "KiB/s",
    "throughput lost": "%",
    "throughput lost, a CPU second": "%",
    "CPU of others": "% of one CPU",
    "stolen from the machine": "% of one CPU",
}

Figures = dict[str, float]  # by names of UNITS, some of them followed by the name of a load in brackets


class NotMeasured(Exception):
    """Why a tool cannot be measured here, in words."""


@dataclass(frozen=True)
class _Run:
    pid: int
    sampling_since_s: float  # monotonic


@dataclass(frozen=True)
class _Reading:
    at_s: float  # monotonic
    usage: Usage
    bpf: BpfUsage
    machine: Machine
    loads_ns: int


def measure(tool: Tool, folder: Path, windows: int, window_s: int, loads: Sequence[Load]) -> Figures:
    """Run the tool beside the loads, and see what it used in so many windows. Raises `NotMeasured`."""
    children_s = _children_cpu_s()
    with _running(tool, folder, window_s) as run:
        first_ns = time.time_ns() // (window_s * 10**9) * (window_s * 10**9)
        before = _read(run.pid, loads)
        memory = _watch_memory(run.pid, windows * window_s)
        after = _read(run.pid, loads)
        sampled_s = time.monotonic() - run.sampling_since_s
    captured = tool.read_captured(folder, sampled_s, (first_ns, first_ns + windows * window_s * 10**9))
    used_s = (after.usage.cpu_ns + after.usage.children_ns) / 1e9
    return _differences(before, after) | {
        "CPU until steady": (before.usage.cpu_ns + before.usage.children_ns) / 1e9,
        "CPU after sampling": max(0.0, _children_cpu_s() - children_s - used_s),
        "RSS, largest": max(now.rss_bytes for now in memory) / 2**20,
        "PSS, largest": max(now.pss_bytes for now in memory) / 2**20,
        "samples": captured.samples_per_s,
        "samples expected": tool.hz
        * (after.machine.busy_ns - before.machine.busy_ns)
        / 1e9
        / (after.at_s - before.at_s),
        "written": captured.written_bytes / 1024 / sampled_s,
    }


def measure_loss(tool: Tool, folder: Path, window_s: int, loads: Sequence[Load], *, is_on_first: bool) -> Figures:
    """Let the loads work for a window's time with and without the tool; returns what they lost by it."""
    speeds = {}
    for is_on in (is_on_first, not is_on_first):
        if is_on:
            with _running(tool, folder, window_s):
                speeds[is_on] = _speeds(loads, window_s)
        else:
            speeds[is_on] = _speeds(loads, window_s)
    lost = {}
    for load, with_tool, without in zip(loads, speeds[True], speeds[False], strict=True):
        lost[f"throughput lost ({load.name})"] = 100 * (1 - with_tool[0] / without[0])
        lost[f"throughput lost, a CPU second ({load.name})"] = 100 * (1 - with_tool[1] / without[1])
    return lost


@contextmanager
def _running(tool: Tool, folder: Path, window_s: int) -> Iterator[_Run]:
    """Run the tool until it is steady, then until the context is left."""
    if tool.missing:
        raise NotMeasured(tool.missing)
    process = _start(tool, folder)
    try:
        since_s = _wait_for_sampling(process, folder)
        if tool.is_windowed:
            time.sleep(-time.time() % window_s)
        time.sleep(SETTLE_S)
        yield _Run(process.pid, since_s)
        process.send_signal(signal.SIGINT)
        process.wait(END_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"it did not end within {END_LIMIT_S} s of SIGINT") from None
    finally:
        process.kill()
        process.wait()


def _start(tool: Tool, folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / "output", "wb") as output, open(folder / "messages", "wb") as messages:
        return subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *tool.command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=messages,
            env={**os.environ, **tool.environment},
        )


def _wait_for_sampling(process: subprocess.Popen[bytes], folder: Path) -> float:
    """Wait until the tool has opened its perf events; returns when that was."""
    limit_s = time.monotonic() + START_LIMIT_S
    while not _has_perf_event(process.pid):
        if process.poll() is not None:
            said = (folder / "messages").read_text(errors="replace").strip().splitlines()
            raise NotMeasured(said[-1] if said else f"it ended at once with exit code {process.returncode}")
        if time.monotonic() > limit_s:
            raise NotMeasured(f"it did not begin to sample within {START_LIMIT_S} s")
        time.sleep(0.05)
    return time.monotonic()


def _has_perf_event(pid: int) -> bool:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            if descriptor.readlink().name == "anon_inode:[perf_event]":
                return True
    return False


def _read(pid: int, loads: Sequence[Load]) -> _Reading:
    loads_ns = sum(load.read_cpu_ns() for load in loads)
    return _Reading(time.monotonic(), read_usage(pid), read_bpf(pid), read_machine(), loads_ns)


def _watch_memory(pid: int, seconds: int) -> list[Memory]:
    end_s = time.monotonic() + seconds
    memory = [read_memory(pid)]
    while (left_s := end_s - time.monotonic()) > 0:
        time.sleep(min(left_s, MEMORY_PAUSE_S))
        memory.append(read_memory(pid))
    return memory


def _differences(before: _Reading, after: _Reading) -> Figures:
    pct_a_ns = 100 / (after.at_s - before.at_s) / 1e9
    used_ns = after.usage.cpu_ns - before.usage.cpu_ns
    user_ns = min(used_ns, after.usage.user_ns - before.usage.user_ns)  # the split is an estimate
    others_ns = after.machine.busy_ns - before.machine.busy_ns - (after.loads_ns - before.loads_ns) - used_ns
    figures = {
        "CPU in all": used_ns * pct_a_ns,
        "CPU in user space": user_ns * pct_a_ns,
        "CPU in system calls": (used_ns - user_ns) * pct_a_ns,
        "CPU of others": max(0, others_ns) * pct_a_ns,
        "stolen from the machine": (after.machine.steal_ns - before.machine.steal_ns) * pct_a_ns,
    }
    if runs := after.bpf.runs - before.bpf.runs:
        figures["BPF memory"] = after.bpf.memory_bytes / 1024
        figures["BPF program"] = (after.bpf.run_ns - before.bpf.run_ns) / runs
    return figures


def _speeds(loads: Sequence[Load], seconds: int) -> list[tuple[float, float]]:
    """Work that each load finished, per second and per second of its CPU time."""
    begin_s, before = time.monotonic(), [(load.read_finished(), load.read_cpu_ns()) for load in loads]
    time.sleep(seconds)
    took_s, after = time.monotonic() - begin_s, [(load.read_finished(), load.read_cpu_ns()) for load in loads]
    return [
        ((finished - finished_before) / took_s, (finished - finished_before) / (cpu_ns - cpu_ns_before) * 1e9)
        for (finished_before, cpu_ns_before), (finished, cpu_ns) in zip(before, after, strict=True)
    ]


def _children_cpu_s() -> float:
    """CPU time of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
