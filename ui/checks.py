"""What coprof needs of a machine, each asked of the machine itself: try it, never compare versions.

A check that fails says the way out. `missing` stops coprof, `limited` makes some answers poorer.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from profiler.accounting import load_accounting
from profiler.btf import READ_MEMBERS, VMLINUX, Btf
from profiler.errors import CoprofError
from profiler.hierarchy import describe_limits, detect_hierarchy
from profiler.layout import MAX_FRAMES
from profiler.loader import require_bpf
from profiler.node import read_node
from profiler.perf_events import choose_event, online_cpus
from profiler.sampler import load_cgroup_events, load_sampling
from profiler.workloads import load_rules
from storage.store import require_node_name
from ui.config import Config
from ui.web.server import listen, require_loopback

LEAST_FREE_BYTES = 256 * 2**20
OK, LIMITED, MISSING = "ok", "limited", "missing"


@dataclass(frozen=True)
class Result:
    """One line of the answer."""

    check: str
    state: str  # OK, LIMITED or MISSING
    found: str  # what is there, or what is wrong and the way out

    def as_row(self) -> dict[str, str]:
        return {"check": self.check, "state": self.state, "found": self.found}


def run_checks(store: Path, config: Config) -> list[Result]:
    """Run every check; none changes anything on the machine."""
    checks: list[tuple[str, str, Callable[[], str]]] = [
        ("bcc", MISSING, _check_bcc),
        ("BTF", MISSING, _check_btf),
        ("BPF", MISSING, _check_bpf),
        ("BPF programs", MISSING, lambda: _check_programs(config)),
        ("run-queue accounting", LIMITED, lambda: _check_accounting(config)),
        ("sampling event", MISSING, lambda: _check_event(config)),
        ("hardware PMU", LIMITED, _check_pmu),
        ("cgroups", MISSING, lambda: _check_cgroups(config)),
        ("cgroup names", LIMITED, lambda: _check_cgroup_names(config)),
        ("workload rules", MISSING, lambda: _check_rules(config)),
        ("kernel symbols", LIMITED, _check_kernel_symbols),
        ("stack depth", LIMITED, _check_stack_depth),
        ("node name", MISSING, lambda: _check_node(config)),
        ("store", MISSING, lambda: _check_store(store)),
        ("viewer port", LIMITED, lambda: _check_port(config)),
    ]
    return [_run(name, failure, check) for name, failure, check in checks]


class _Found(Exception):
    """What a check found wrong where no other error says it."""


def _run(name: str, failure: str, check: Callable[[], str]) -> Result:
    try:
        return Result(name, OK, check())
    except (CoprofError, _Found) as error:
        return Result(name, failure, str(error))


def _check_bcc() -> str:
    if importlib.util.find_spec("bcc") is None:
        raise _Found("python3-bpfcc is not installed; apt-get install python3-bpfcc")
    return "python3-bpfcc is installed"


def _check_btf() -> str:
    with Btf() as btf:
        lacking = [
            f"{struct}.{name}"
            for struct, names in READ_MEMBERS.items()
            for name in names
            if not btf.has_member(struct, name)
        ]
    if lacking:
        raise _Found(f"this kernel has no {', '.join(lacking)}; use a kernel from 5.5 on with CONFIG_CGROUPS")
    return f"{VMLINUX} has all members that are read"


def _check_bpf() -> str:
    require_bpf()
    return "maps can be made"


def _check_programs(config: Config) -> str:
    hierarchy = detect_hierarchy(config.agent.cgroup_mode)
    for load in (load_sampling, load_cgroup_events):
        load(hierarchy).close()
    return "compiled without kernel headers, accepted by the verifier"


def _check_accounting(config: Config) -> str:
    load_accounting(detect_hierarchy(config.agent.cgroup_mode)).close()
    return "compiled, accepted by the verifier"


def _check_event(config: Config) -> str:
    event = choose_event(config.agent.event)
    return f"{event} at {config.agent.hz} Hz on {len(online_cpus())} CPUs"


def _check_pmu() -> str:
    if choose_event("auto") != "cycles":
        raise _Found("none: sampling ticks by the clock, and cycles or cache misses are not available")
    return "counts cycles"


def _check_cgroups(config: Config) -> str:
    hierarchy = detect_hierarchy(config.agent.cgroup_mode)
    return f"{hierarchy.mode}, identified by {hierarchy.mount_point}"


def _check_cgroup_names(config: Config) -> str:
    limits = describe_limits(detect_hierarchy(config.agent.cgroup_mode))
    if limits:
        raise _Found(limits)
    return "all of the hierarchy is visible"


def _check_rules(config: Config) -> str:
    load_rules(Path(config.agent.rules) if config.agent.rules else None)
    return config.agent.rules or "the built-in ones"


def _check_kernel_symbols() -> str:
    with open("/proc/kallsyms") as symbols:
        addresses = [int(line.split(maxsplit=1)[0], 16) for line in itertools.islice(symbols, 100)]
    if not any(addresses):
        raise _Found("addresses are hidden; run as root, and set kernel.kptr_restrict to 0 or 1")
    return "/proc/kallsyms shows addresses"


def _check_stack_depth() -> str:
    depth = int(Path("/proc/sys/kernel/perf_event_max_stack").read_text())
    if depth < MAX_FRAMES:
        raise _Found(f"stacks are cut at {depth} frames; sysctl kernel.perf_event_max_stack={MAX_FRAMES}")
    return f"up to {MAX_FRAMES} frames"


def _check_store(store: Path) -> str:
    place = next(folder for folder in (store, *store.parents) if folder.exists())
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise _Found(f"{place} is not a directory that uid {os.geteuid()} may write to; name another with --store")
    free_bytes = shutil.disk_usage(place).free
    if free_bytes < LEAST_FREE_BYTES:
        raise _Found(f"{place} has {free_bytes // 2**20} MiB free; free some, or name another with --store")
    return f"{store}, {free_bytes // 2**30} GiB free"


def _check_node(config: Config) -> str:
    name = read_node(config.agent.node).name
    require_node_name(name)
    return name


def _check_port(config: Config) -> str:
    host, port = require_loopback(config.viewer.host), config.viewer.port
    with listen(host, port):
        return f"{host}:{port} is free"
