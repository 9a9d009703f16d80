"""`coprof neighbours`: who made whom wait for the CPU, and how long: victims, and pairs of workloads by cause.

For people the worst of it: online victims and the largest pairs, unless a victim or an aggressor is named. For
programs (JSON, CSV) every pair of the range.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from analysis.contention import Contention, Pair, Victim, read_contention
from profiler.window import CAUSES, NEIGHBOURS
from ui.cli import EXIT_CANNOT_TELL
from ui.config import Config
from ui.losses import describe_losses
from ui.messages import say
from ui.options import chosen_range, config_option, format_option, range_options, read_store, store_option
from ui.tables import FORMATS, print_rows
from ui.timespan import TimeRange, format_time

SHOWN_ROWS = 20
_VICTIM_KEYS = ("wait_ns", "run_ns", "p50_ns", "p95_ns", "p99_ns", "missed", "lost")
_RIGHT = ("wait/s", "waits", "p50", "p99", "max wait", "delay", "share", "events", "max")
_SPLIT_NAMES = {cause: f"{cause} neighbours" if cause in NEIGHBOURS else cause for cause in CAUSES}
_UNITS_NS = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us"), (1, "ns"))


@click.command()
@config_option
@store_option
@range_options
@click.option("--victim", help="Only waits of this workload.")
@click.option("--aggressor", help="Only what this workload caused.")
@click.option("--node", help="Only this node.")
@format_option(*FORMATS)
@click.pass_context
def command(
    ctx: click.Context,
    config: Config,
    store_path: Path | None,
    since: str | None,
    until: str | None,
    last: str | None,
    victim: str | None,
    aggressor: str | None,
    node: str | None,
    form: str,
) -> None:
    """Tell who made whom wait for the CPU, and how long."""
    store = read_store(config, store_path)
    span = chosen_range(store, since, until, last)
    contention = read_contention(store, span.since_ns, span.until_ns, node, victim, aggressor)
    for line in describe_losses(contention.counters, contention.bad_segments):
        say(line)
    if form == "table":
        _print_tables(contention, is_choice=victim is not None or aggressor is not None)
    else:
        print_rows(_program_rows(contention), form)
    if reason := _why_nothing(contention, span):
        say(reason)
        ctx.exit(EXIT_CANNOT_TELL)


def _why_nothing(contention: Contention, span: TimeRange) -> str:
    """Say why there is no answer; empty where there is one."""
    if not contention.windows:
        return f"no windows from {_shown(span)}; widen --since, --until or --last"
    if not contention.is_accounted:
        return (
            f"no run-queue accounting from {_shown(span)}: an older agent wrote these windows, or the kernel lacks it; "
            "see coprof check there"
        )
    if not contention.victims:
        return f"no such waits from {_shown(span)}; widen --since, --until or --last, or name others"
    return ""


def _program_rows(contention: Contention) -> list[dict[str, Any]]:
    """Each pair and cause, with its victim's figures."""
    victims = {victim.workload: victim for victim in contention.victims}
    return [
        {
            "victim": pair.victim,
            "aggressor": pair.aggressor,
            "cause": pair.cause,
            "delay_ns": pair.delay_ns,
            "share": None if pair.share is None else round(pair.share, 6),
            "events": pair.events,
            "max_ns": pair.max_ns,
            **{key: getattr(victims[pair.victim], key) for key in _VICTIM_KEYS},
        }
        for pair in contention.pairs
    ]


def _print_tables(contention: Contention, is_choice: bool) -> None:
    victims, pairs = (contention.victims, contention.pairs) if is_choice else _online(contention)
    limit = None if is_choice else SHOWN_ROWS
    print_rows([_victim_row(victim, contention.covered_ns) for victim in victims[:limit]], "table", right=_RIGHT)
    if pairs:
        click.echo()
    print_rows([_pair_row(pair) for pair in pairs[:limit]], "table", right=_RIGHT)
    if len(pairs) > len(pairs[:limit]):
        say(f"{len(pairs) - SHOWN_ROWS} smaller pairs not shown; --victim shows all of one")


def _online(contention: Contention) -> tuple[tuple[Victim, ...], tuple[Pair, ...]]:
    """Keep who waited and is online; everybody who waited where nobody is."""
    delayed = {pair.victim for pair in contention.pairs}
    victims = tuple(victim for victim in contention.victims if victim.wait_ns or victim.workload in delayed)
    online = tuple(victim for victim in victims if victim.service_class == "online")
    if victims and not online:
        say("no workload of class online waited; all classes are shown")
    kept = online or victims
    names = {victim.workload for victim in kept}
    return kept, tuple(pair for pair in contention.pairs if pair.victim in names)


def _victim_row(victim: Victim, covered_ns: int) -> dict[str, str]:
    return {
        "victim": victim.workload,
        "class": victim.service_class,
        "wait/s": _readable(victim.wait_ns * 1_000_000_000 // covered_ns) if covered_ns else "",
        "waits": f"{victim.count:,}",
        "p50": _readable(victim.p50_ns),
        "p99": _readable(victim.p99_ns),
        "max wait": _readable(victim.max_ns),
        "waited for": _split(victim),
    }


def _pair_row(pair: Pair) -> dict[str, str]:
    return {
        "victim": pair.victim,
        "aggressor": pair.aggressor or "-",
        "cause": pair.cause,
        "class": pair.aggressor_class or "-",
        "delay": _readable(pair.delay_ns),
        "share": "-" if pair.share is None else f"{pair.share:.1%}",
        "events": f"{pair.events:,}",
        "max": _readable(pair.max_ns),
    }


def _split(victim: Victim) -> str:
    """The causes of a victim's wait that make up a percent or more, largest first."""
    if not victim.wait_ns:
        return "-"
    shares = {cause: delay_ns / victim.wait_ns for cause, delay_ns in victim.cause_ns.items()}
    largest = sorted(shares, key=lambda cause: -shares[cause])
    return ", ".join(f"{_SPLIT_NAMES[cause]} {shares[cause]:.0%}" for cause in largest if shares[cause] >= 0.01)


def _readable(ns: int | None) -> str:
    """Three digits and a unit."""
    if ns is None:
        return "-"
    unit_ns, unit = next((known for known in _UNITS_NS if ns >= 0.9995 * known[0]), _UNITS_NS[-1])
    value = ns / unit_ns
    return f"{value:,.{0 if value >= 100 or unit_ns == 1 else 1 if value >= 10 else 2}f} {unit}"


def _shown(span: TimeRange) -> str:
    seconds = (bound_ns // 1_000_000_000 * 1_000_000_000 for bound_ns in (span.since_ns, span.until_ns))
    return " to ".join(map(format_time, seconds))
