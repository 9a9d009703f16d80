"""`coprof flame`: the flame graph of a part of a store, as folded text or as one HTML file."""

from __future__ import annotations

from pathlib import Path

import click

from analysis.flame import Flame, read_flame
from analysis.folded import folded_lines
from profiler.errors import BadInput
from storage.selection import Selection
from ui.cli import EXIT_CANNOT_TELL
from ui.config import Config
from ui.flamefile import render_flame_html
from ui.losses import describe_losses
from ui.messages import say
from ui.options import chosen_range, config_option, format_option, range_options, read_store, store_option
from ui.timespan import TimeRange, format_time


@click.command()
@config_option
@store_option
@range_options
@click.option("--workload", help="Only this workload.")
@click.option("--cgroup", help="Only this cgroup path, or shell pattern of paths.")
@click.option("--node", help="Only this node.")
@click.option(
    "--unit", type=click.Choice(["ns", "samples"]), default="ns", show_default=True, help="Of folded weights."
)
@format_option("folded", "html")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write, not the terminal."
)
@click.pass_context
def command(
    ctx: click.Context,
    config: Config,
    store_path: Path | None,
    since: str | None,
    until: str | None,
    last: str | None,
    workload: str | None,
    cgroup: str | None,
    node: str | None,
    unit: str,
    form: str,
    output: Path | None,
) -> None:
    """Write a flame graph of a store."""
    store = read_store(config, store_path)
    span = chosen_range(store, since, until, last)
    flame = read_flame(store, Selection(span.since_ns, span.until_ns, workload, cgroup, node))
    for line in describe_losses(flame.counters, flame.bad_segments):
        say(line)
    if not flame.tree.samples[0]:
        say(f"no samples from {_shown(span)}; widen --since, --until or --last")
        ctx.exit(EXIT_CANNOT_TELL)
    _write(_rendered(flame, form, unit, workload or cgroup or "all workloads", span), output)


def _rendered(flame: Flame, form: str, unit: str, title: str, span: TimeRange) -> str:
    if form == "html":
        return render_flame_html(flame, title, f"CPU, {_shown(span)}")
    return "\n".join(folded_lines(flame.tree, count_samples=unit == "samples")) + "\n"


def _shown(span: TimeRange) -> str:
    seconds = (bound_ns // 1_000_000_000 * 1_000_000_000 for bound_ns in (span.since_ns, span.until_ns))
    return " to ".join(map(format_time, seconds))


def _write(text: str, output: Path | None) -> None:
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadInput(f"{output} cannot be written: {error.strerror}; choose another with -o") from None
