"""The profilers under measurement: how each is started, and what it says it has captured.

All sample the whole machine with stacks, on the same event. They differ in what they do meanwhile: coprof resolves
and stores every window, perf writes raw samples, bcc's profile counts in the kernel; the last two leave the naming of
addresses to the end.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from analysis.overview import read_overview
from profiler.btf import Btf
from storage.store import Store


@dataclass(frozen=True)
class Captured:
    """What a tool says that it has, and what it wrote to disk."""

    samples_per_s: float
    written_bytes: int


@dataclass(frozen=True)
class Tool:
    """One profiler. `missing` says why it cannot be measured here, in words."""

    name: str
    hz: int
    command: list[str]
    read_captured: Callable[[Path, float, tuple[int, int]], Captured]  # folder, seconds it ran, measured span (Unix ns)
    environment: Mapping[str, str] = field(default_factory=dict)
    is_windowed: bool = False  # to be measured over whole windows
    missing: str = ""


def coprof(folder: Path, hz: int, window_s: int) -> Tool:
    """The agent, with windows of `window_s`."""
    config = folder / "coprof.toml"
    config.write_text(f"[agent]\nwindow_s = {window_s}\n")
    command = [sys.executable, "-m", "ui.cli", "agent", "--config", str(config), "--hz", str(hz)]
    return Tool("coprof", hz, [*command, "--store", str(folder / "store")], _coprof_captured, is_windowed=True)


def perf_record(folder: Path, hz: int, event: str) -> Tool:
    """`perf record -a -g`; when it ends it reads all its output again, for build IDs."""
    path = shutil.which("perf")
    command = [path or "perf", "record", "-a", "-g", "-e", event, "-F", str(hz), "-o", str(folder / "perf.data")]
    return Tool(
        "perf record", hz, command, _perf_captured, missing="" if path else "perf is not installed (linux-perf)"
    )


def bcc_profile(folder: Path, hz: int) -> Tool:
    """bcc's `profile -a -f`, compiled against a tree from BTF where there are no kernel headers."""
    path = shutil.which("profile-bpfcc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    tree = folder / "tree"
    write_peer_tree(tree)
    return Tool(
        "bcc profile",
        hz,
        [path or "profile-bpfcc", "-a", "-f", "-F", str(hz)],
        _profile_captured,
        {"BCC_KERNEL_SOURCE": str(tree)},
        "" if path else "profile-bpfcc is not installed (bpfcc-tools)",
    )


def write_peer_tree(tree: Path) -> None:
    """Write the tree that coprof compiles against, and what profile's program needs beyond it."""
    with Btf() as btf:
        btf.write_tree(tree)
    for header in ("uapi/linux/bpf_perf_event.h", "linux/sched.h"):  # its types come with those of BTF
        (tree / "include" / header).touch()
    with open(tree / "include/linux/kconfig.h", "a") as kconfig:
        # Only to tell kernel addresses from others, for which any bound above user space does.
        kconfig.write("#define PAGE_OFFSET 0xffff800000000000UL\n")


def _coprof_captured(folder: Path, _seconds: float, span_ns: tuple[int, int]) -> Captured:
    store = Store.open(folder / "store")
    [node] = store.node_names()
    overview = read_overview(store, *span_ns, node)
    covered_s = (span_ns[1] - span_ns[0] - overview.gap_ns) / 1e9
    return Captured(overview.counters["samples"] / covered_s, _size_bytes(store.root))


def _perf_captured(folder: Path, seconds: float, _span_ns: tuple[int, int]) -> Captured:
    said = re.search(r"\(~?(\d+) samples\)", (folder / "messages").read_text())
    return Captured(int(said[1]) / seconds if said else 0.0, _size_bytes(folder / "perf.data"))


def _profile_captured(folder: Path, seconds: float, _span_ns: tuple[int, int]) -> Captured:
    output = folder / "output"
    counts = [int(line.rpartition(" ")[2]) for line in output.read_text(errors="replace").splitlines() if line.strip()]
    return Captured(sum(counts) / seconds, output.stat().st_size)


def _size_bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
