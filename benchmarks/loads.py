"""The two loads that keep both CPUs busy: real Python, and deep call chains of C. Each runs in a cgroup of its own.

Each counts the work it has finished in a mapped file, so that its throughput is read without disturbing it.
"""

from __future__ import annotations

import mmap
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from meters import read_cpu_ns

from profiler.hierarchy import Hierarchy
from ui.child import CgroupChild

HERE = Path(__file__).parent
START_LIMIT_S = 20


@dataclass(frozen=True)
class Load:
    """A running load."""

    name: str
    pid: int
    finished: mmap.mmap

    def read_finished(self) -> int:
        """Pieces of work finished so far."""
        return int.from_bytes(self.finished[:8], "little")

    def read_cpu_ns(self) -> int:
        """CPU time used so far."""
        return read_cpu_ns(self.pid)


@contextmanager
def running_loads(hierarchy: Hierarchy, folder: Path) -> Iterator[list[Load]]:
    """Run both loads, for as long as the context is entered; files of theirs go to `folder`."""
    program = folder / "deepcalls"
    subprocess.run(
        ["gcc", "-O2", "-g", "-fno-omit-frame-pointer", HERE / "deepcalls.c", "-o", program], check=True, text=True
    )
    commands = {"deepcalls": [str(program)], "python": ["/usr/bin/python3", str(HERE / "stdlib_job.py")]}
    with ExitStack() as stack:
        yield [stack.enter_context(_running(name, command, hierarchy, folder)) for name, command in commands.items()]


@contextmanager
def _running(name: str, command: list[str], hierarchy: Hierarchy, folder: Path) -> Iterator[Load]:
    counter = folder / f"{name}.count"
    counter.write_bytes(bytes(8))
    with (
        counter.open("r+b") as file,
        mmap.mmap(file.fileno(), 8) as finished,
        CgroupChild([*command, str(counter)], hierarchy) as child,
    ):
        deadline_s = time.monotonic() + START_LIMIT_S
        while not any(finished[:8]):
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"load {name} finished nothing within {START_LIMIT_S} s; does it start by hand?")
            time.sleep(0.05)
        yield Load(name, int((child.path / "cgroup.procs").read_text().split()[0]), finished)
