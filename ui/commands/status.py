"""`coprof status`: how a store and the agents that write it are: windows, losses, stack quality, own cost."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from analysis.overview import read_overview
from profiler.window import LOSSES
from storage.store import Store
from ui.cli import EXIT_CANNOT_TELL
from ui.config import Config
from ui.losses import coverage, describe_losses
from ui.messages import say
from ui.options import chosen_range, config_option, format_option, range_options, read_store, store_option
from ui.tables import FORMATS, print_json, print_rows
from ui.timespan import TimeRange, format_time

STALE_NS = 150_000_000_000  # twice the longest window and then some: an agent that wrote nothing for so long is gone


@click.command()
@config_option
@store_option
@range_options
@format_option(*FORMATS)
@click.pass_context
def command(
    ctx: click.Context,
    config: Config,
    store_path: Path | None,
    since: str | None,
    until: str | None,
    last: str | None,
    form: str,
) -> None:
    """Tell how a store and its agents are."""
    store = read_store(config, store_path)
    span = chosen_range(store, since, until, last)
    nodes = [_describe(store, node, span) for node in store.node_names() if store.window_segments(node)]
    if form == "json":
        print_json({"store": str(store.root), "nodes": nodes})
    elif form == "csv":
        print_rows([_flat(node) for node in nodes], form)
    else:
        for node in nodes:
            _print_node(node)
    if not nodes:
        say(f"{store.root} holds no windows yet; an agent writes one every 10 s")
        ctx.exit(EXIT_CANNOT_TELL)


def _describe(store: Store, node: str, span: TimeRange) -> dict[str, Any]:
    """One node as JSON shows it; ratios from 0 to 1."""
    overview = read_overview(store, span.since_ns, span.until_ns, node)
    summary = next(summary for summary in overview.nodes if summary.name == node)
    age_ns = max(0, time.time_ns() - summary.last_ns)
    kept = coverage(overview.counters)
    cpu_pct = overview.agent.cpu_pct
    return {
        "node": node,
        "agent": "running" if age_ns < STALE_NS else "not running",
        "last_window": format_time(summary.last_ns // 1_000_000_000 * 1_000_000_000),
        "last_window_age_s": age_ns // 1_000_000_000,
        "windows": overview.windows,
        "gap_s": round(overview.gap_ns / 1e9, 1),
        "samples": overview.counters["samples"],
        "coverage": None if kept is None else round(kept, 4),
        "sample_hz": summary.sample_hz,
        "sample_event": summary.sample_event,
        "cgroup_mode": summary.cgroup_mode,
        "stack_quality": {name: round(share, 4) for name, share in overview.quality.items()},
        "losses": {name: overview.counters[name] for name in LOSSES},
        "bad_segments": list(overview.bad_segments),
        "agent_cpu_pct": None if cpu_pct is None else round(cpu_pct, 2),
        "agent_rss_bytes": overview.agent.rss_bytes,
        "bpf_bytes": overview.agent.bpf_bytes,
    }


def _flat(node: dict[str, Any]) -> dict[str, Any]:
    """The same with one value a column, for CSV."""
    nested = ("stack_quality", "losses", "bad_segments")
    plain = {name: value for name, value in node.items() if name not in nested}
    return {**plain, **node["losses"], "bad_segments": len(node["bad_segments"])}


def _print_node(node: dict[str, Any]) -> None:
    kept = node["coverage"]
    quality = ", ".join(f"{name.replace('_', ' ')} {share:.1%}" for name, share in node["stack_quality"].items())
    lines = {
        "agent": f"{node['agent']}, last window {node['last_window_age_s']} s ago ({node['last_window']})",
        "windows": f"{node['windows']:,}, {node['gap_s']} s without one",
        "samples": f"{node['samples']:,} at {node['sample_hz']} Hz on {node['sample_event']}"
        + ("" if kept is None else f", {kept:.0%} of what busy CPU time calls for"),
        "user stacks": quality or "no samples",
        "cgroups": node["cgroup_mode"],
        "own cost": _cost(node),
    }
    lost = describe_losses(node["losses"], node["bad_segments"]) or ["nothing"]
    rows = [{"": name, node["node"]: text} for name, text in lines.items()]
    rows += [{"": "lost" if number == 0 else "", node["node"]: text} for number, text in enumerate(lost)]
    print_rows(rows, "table")


def _cost(node: dict[str, Any]) -> str:
    if node["agent_cpu_pct"] is None:
        return "not known"
    memory, bpf = node["agent_rss_bytes"] / 2**20, node["bpf_bytes"] / 2**20
    return f"{node['agent_cpu_pct']} % of one CPU, {memory:.0f} MiB resident, {bpf:.1f} MiB in BPF maps"
