"""The kernel's own count of busy CPU time, to hold the number of samples against. Source: proc_stat(5)."""

from __future__ import annotations

import os
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def read_busy_ns(proc_stat: Path = Path("/proc/stat")) -> int:
    """Return the time all CPUs together have spent on user, nice, system, irq and softirq work since boot."""
    with proc_stat.open() as lines:
        _, user, nice, system, _idle, _iowait, irq, softirq, *_ = next(lines).split()
    return sum(map(int, (user, nice, system, irq, softirq))) * _TICK_NS
