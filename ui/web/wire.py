"""Answers to the plain values that the browser gets as JSON.

A flame graph travels in columns, rows in pre-order, every text once:

    unit      "ns"
    tree      depth, frame, self, samples: one entry a row. The parent of a row is the last row before it that is one
              level up; its total is its self value plus the totals of its children, so neither is sent
    frames    name, module, kind, state: one entry a distinct frame, as positions in `strings`
    strings   every distinct text
    nodes     rows of the full tree; more than were sent when small ones were summed as "(other)"
    windows, losses, bad_segments   what the numbers rest on

Times are Unix milliseconds, because a double holds no Unix nanoseconds. Names are passed on as they are: whoever shows
them makes them harmless. A value that is not known is null, never 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from analysis.calltree import CallTree, prune
from analysis.flame import Flame
from analysis.overview import NodeSummary, Overview
from profiler.window import LOSSES
from ui.timespan import TimeRange

MS_NS = 1_000_000
DEFAULT_MAX_NODES = 65_536  # a busy host has some 30,000: with fewer, the list of functions would lack what was cut

Document = dict[str, Any]


def flame_document(flame: Flame, max_nodes: int = DEFAULT_MAX_NODES) -> Document:
    """Return the flame graph with at most `max_nodes` rows; what is cut is summed as "(other)"."""
    return {
        **tree_document(prune(flame.tree, max_nodes)),
        "nodes": len(flame.tree.parent),
        "windows": flame.windows,
        "losses": losses(flame.counters),
        "bad_segments": list(flame.bad_segments),
    }


def tree_document(tree: CallTree) -> Document:
    """Return the columns of a tree with only those frames that it uses."""
    used, frame = np.unique(tree.name, return_inverse=True)
    strings: dict[str, int] = {}

    def positions(texts: tuple[str, ...]) -> list[int]:
        return [strings.setdefault(texts[row], len(strings)) for row in used.tolist()]

    frames = {
        "name": positions(tree.names),
        "module": positions(tree.modules),
        "kind": positions(tree.kinds),
        "state": positions(tree.states),
    }
    return {
        "unit": tree.unit,
        "tree": {
            "depth": tree.depth.tolist(),
            "frame": frame.tolist(),
            "self": tree.self_value.tolist(),
            "samples": tree.samples.tolist(),
        },
        "frames": frames,
        "strings": list(strings),
    }


def overview_document(overview: Overview, asked: TimeRange) -> Document:
    """Return the overview with cores in place of CPU time; `cores` is null where no window was stored."""
    covered_ns = _covered_ns(overview, asked)
    series = overview.series
    return {
        "first_ms": _ms(overview.first_ns),
        "last_ms": _ms(overview.last_ns),
        "cpus": sum(node.cpus for node in overview.nodes),
        "nodes": [_node_document(node) for node in overview.nodes],
        "workloads": [
            {
                "workload": share.workload,
                "service_class": share.service_class,
                "cpu_ns": share.cpu_ns,
                "cores": share.cpu_ns / covered_ns if covered_ns else None,
                "samples": share.samples,
                "cgroups": share.cgroups,
            }
            for share in overview.workloads
        ],
        "series": {
            "step_ms": series.step_ns / MS_NS,
            "times_ms": (series.starts_ns / MS_NS).tolist(),
            "names": list(series.cores),
            "cores": [
                [None if np.isnan(value) else round(value, 5) for value in line.tolist()]
                for line in series.cores.values()
            ],
        },
        "windows": overview.windows,
        "covered_ms": covered_ns / MS_NS,
        "gap_ms": overview.gap_ns / MS_NS,
        "losses": losses(overview.counters),
        "samples": overview.counters.get("samples", 0),
        "quality": overview.quality,
        "agent": {
            "cpu_pct": overview.agent.cpu_pct,
            "rss_bytes": overview.agent.rss_bytes,
            "bpf_bytes": overview.agent.bpf_bytes,
        },
        "bad_segments": list(overview.bad_segments),
    }


def losses(counters: dict[str, int]) -> list[Document]:
    """Return every loss that is not zero, with its meaning in words."""
    return [
        {"counter": name, "count": counters[name], "meaning": meaning}
        for name, meaning in LOSSES.items()
        if counters.get(name)
    ]


def _node_document(node: NodeSummary) -> Document:
    return {
        "name": node.name,
        "cpus": node.cpus,
        "kernel": node.kernel,
        "sample_hz": node.sample_hz,
        "sample_event": node.sample_event,
        "agent_version": node.agent_version,
        "last_ms": _ms(node.last_ns),
        "windows": node.windows,
    }


def _covered_ns(overview: Overview, asked: TimeRange) -> int:
    """Return the time that the CPU time was measured in: what mean cores are divided by.

    Steps with a window give it to within a step; a store younger than a step is known better by its own ends.
    """
    if overview.first_ns is None or overview.last_ns is None or not overview.series.cores:
        return 0
    is_covered = ~np.isnan(np.column_stack(list(overview.series.cores.values()))).all(axis=1)
    span_ns = min(asked.until_ns, overview.last_ns) - max(asked.since_ns, overview.first_ns)
    gap_ns = overview.gap_ns // max(1, len(overview.nodes))
    return max(0, min(int(is_covered.sum()) * overview.series.step_ns, span_ns - gap_ns))


def _ms(time_ns: int | None) -> float | None:
    return None if time_ns is None else time_ns / MS_NS
