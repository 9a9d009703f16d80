"""The agent: for each window from the sampler, append its symbolised form to the store.

A window that the store refuses is counted and said once; sampling goes on, and so does writing when the store
takes windows again. Losing the process loses the open window only: segments are published whole or not at all.
"""

from __future__ import annotations

import os
import resource
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType

import pyarrow as pa

from profiler.errors import NoPermission, StoreUnavailable
from profiler.sampler import Sampler
from profiler.window import Window
from storage.rows import AgentCost
from storage.writer import StoreWriter
from symbolizer.symbolizer import Symbolizer

LEAST_FILES = 100  # some 60 stay open, and compiling and storing take a few at a time; one a CPU comes on top
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def interrupt_on_signals() -> None:
    """Until there is something to keep, a signal ends the command wherever it is, by `KeyboardInterrupt`."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def stop_on_signals(sampler: Sampler) -> None:
    """From now on a signal ends sampling, and the open window is kept."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sampler.stop())


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def raise_file_limit() -> None:
    """Let this process open as many files as it may: it holds those of the sampled programs.

    Raises `NoPermission` where that is too few for the BPF maps, programs and events alone.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < LEAST_FILES + (os.cpu_count() or 1):
        raise NoPermission(f"only {hard} open files are allowed, too few to sample; ulimit -n 1024 or more")


@dataclass
class CostMeter:
    """What this process used between two readings."""

    bpf_bytes: Callable[[], int]
    _cpu_ns: int = 0

    def read(self) -> AgentCost:
        before, self._cpu_ns = self._cpu_ns, time.process_time_ns()
        rss_bytes = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE_BYTES
        return AgentCost(cpu_ns=self._cpu_ns - before, rss_bytes=rss_bytes, bpf_bytes=self.bpf_bytes())


def store_windows(windows: Iterable[Window], writer: StoreWriter, meter: CostMeter, say: Callable[[str], None]) -> int:
    """Append every window, symbolised; `say` gets lines for the log. Returns how many windows were refused in all."""
    # A window's tables are small and soon gone; Arrow's own allocator would keep 15 to 20 MB of them.
    pa.set_memory_pool(pa.system_memory_pool())
    symbolizer = Symbolizer()
    refused, unsaid = 0, 0
    for window in windows:
        if unsaid:
            dropped = window.count("dropped_windows") + unsaid
            window = replace(window, counters={**window.counters, "dropped_windows": dropped})
        try:
            writer.append(symbolizer.symbolise(window), meter.read())
        except StoreUnavailable as error:
            if not unsaid:
                say(f"window dropped, sampling goes on: {error}")
            refused, unsaid = refused + 1, window.count("dropped_windows") + 1
            continue
        if unsaid:
            say(f"the store takes windows again; {unsaid} were dropped")
        unsaid = 0
    if unsaid > 1:
        say(f"the store took no more windows; {unsaid} were dropped")
    return refused
