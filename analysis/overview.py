"""A time range of a store at a glance: which nodes and workloads, how many cores over time, what was lost.

A window belongs to a range when its start lies in it. Damaged segments are left out and named in the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.choice import require_known
from analysis.flame import sum_counters
from analysis.timeline import NamedSums, Series, Windows, cores_over_time, decode_windows, gap_ns, name_sums
from storage.engine import Scan
from storage.queries import count_by_quality, read_cgroups, read_nodes, sum_by_cgroup
from storage.store import Store


@dataclass(frozen=True)
class NodeSummary:
    """A node of the store, as its newest window in the range (else in the store) describes it."""

    name: str
    kernel: str
    cpus: int
    sample_hz: int
    sample_event: str
    cgroup_mode: str
    agent_version: str
    last_ns: int  # end of the newest window in the store
    windows: int  # in the range


@dataclass(frozen=True)
class WorkloadShare:
    """CPU time of one workload in the range."""

    workload: str
    service_class: str
    cpu_ns: int
    samples: int
    cgroups: int  # cgroups of the workload that have samples in the range


@dataclass(frozen=True)
class AgentShare:
    """What the agents themselves cost in the range; `None` when the range holds no window."""

    cpu_pct: float | None  # of one CPU, mean over the windows of all nodes
    rss_bytes: int | None  # newest
    bpf_bytes: int | None  # newest


@dataclass(frozen=True)
class Overview:
    """The answer to "what is in this range, and how much of it can be trusted"."""

    first_ns: int | None  # start of the oldest window of the store, `None` when it is empty
    last_ns: int | None  # end of the newest
    nodes: tuple[NodeSummary, ...]
    workloads: tuple[WorkloadShare, ...]  # by cpu_ns, largest first
    series: Series
    counters: dict[str, int]  # every key of `profiler.window.COUNTERS`, summed
    windows: int
    gap_ns: int  # time in the range between two windows of the same node, summed over nodes
    quality: dict[str, float]  # share of samples by how the user part of their stack ended; sums to 1, or empty
    agent: AgentShare
    bad_segments: tuple[str, ...]  # damaged files that were left out, relative to the store


def read_overview(store: Store, since_ns: int, until_ns: int, node: str | None = None) -> Overview:
    """Summarise the windows that start in `[since_ns, until_ns)`, of one node or of all."""
    if node is not None:
        require_known("node", node, store.node_names())
    scan = Scan(store, since_ns, until_ns, node)
    known = decode_windows(read_nodes(scan, with_surroundings=True))
    windows = known.between(since_ns, until_ns)
    sums = name_sums(sum_by_cgroup(scan, "cpu"), read_cgroups(scan))
    workloads = _shares(sums)
    quality = count_by_quality(scan, "cpu")
    samples = sum(quality.values())
    return Overview(
        first_ns=int(known.start_ns.min()) if len(known) else None,
        last_ns=int(known.end_ns.max()) if len(known) else None,
        nodes=_node_summaries(known, windows),
        workloads=workloads,
        series=cores_over_time(windows, sums, list(dict.fromkeys(share.workload for share in workloads))),
        counters=sum_counters(windows.rows),
        windows=len(windows),
        gap_ns=gap_ns(known, since_ns, until_ns),
        quality={name: count / samples for name, count in quality.items()} if samples else {},
        agent=_agent_share(windows),
        bad_segments=scan.bad_segments,
    )


def _shares(sums: NamedSums) -> tuple[WorkloadShare, ...]:
    shares = []
    for row in np.unique(sums.workload).tolist():
        own = sums.workload == row
        cpu_ns, samples = int(sums.value_ns[own].sum()), int(sums.samples[own].sum())
        workload, service_class = sums.workloads[row]
        shares.append(WorkloadShare(workload, service_class, cpu_ns, samples, len(np.unique(sums.cg[own]))))
    return tuple(sorted(shares, key=lambda share: (-share.cpu_ns, share.workload, share.service_class)))


def _node_summaries(known: Windows, windows: Windows) -> tuple[NodeSummary, ...]:
    described = ("kernel", "cpus", "sample_hz", "sample_event", "cgroup_mode", "agent_version")
    summaries = []
    for name in np.unique(known.node).tolist():
        in_range, own = windows.of_node(name), known.of_node(name)
        newest = (in_range if len(in_range) else own).rows.select(described).to_pylist()[-1]
        summaries.append(NodeSummary(name=name, last_ns=int(own.end_ns.max()), windows=len(in_range), **newest))
    return tuple(summaries)


def _agent_share(windows: Windows) -> AgentShare:
    covered_ns = int((windows.end_ns - windows.start_ns).sum())
    if not covered_ns:
        return AgentShare(None, None, None)
    newest = windows.rows.slice(int(np.argmax(windows.start_ns)), 1).to_pylist()[0]
    cpu_ns = int(np.asarray(windows.rows["agent_cpu_ns"]).sum())
    return AgentShare(100 * cpu_ns / covered_ns, newest["agent_rss_bytes"], newest["bpf_bytes"])
