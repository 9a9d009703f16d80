"""What profiling costs: coprof's agent beside `perf record -a -g` and bcc's `profile`, with all CPUs busy.

Two loads run the whole time, in cgroups of their own. At each rate the tools take turns, `--rounds` times; then the
agent alone is switched on and off, in alternating order, to see what the loads lose. Printed are medians, with the
least and the most beside them. Whatever else runs on the machine disturbs: `CPU of others` says how much there was.

Needs root, gcc, and the peers that `make bench-setup` installs; a peer that is missing is named and left out. All
that it started ends with it, also when it fails or is killed.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tools
from loads import Load, running_loads
from measuring import UNITS, Figures, NotMeasured, measure, measure_loss
from meters import bpf_statistics

from profiler.errors import CoprofError
from profiler.hierarchy import detect_hierarchy
from profiler.node import read_node
from profiler.perf_events import choose_event
from ui.tables import print_json, print_rows

TOOLS = ("coprof", "perf record", "bcc profile")


@dataclass(frozen=True)
class Plan:
    """What to measure, and for how long."""

    rates_hz: list[int]
    windows: int  # of the agent, for which each tool is measured
    window_s: int
    rounds: int
    pairs: int
    event: str

    def make_tool(self, name: str, hz: int, folder: Path) -> tools.Tool:
        if name == "coprof":
            return tools.coprof(folder, hz, self.window_s)
        return tools.perf_record(folder, hz, self.event) if name == "perf record" else tools.bcc_profile(folder, hz)


@dataclass(frozen=True)
class Result:
    """One figure of one tool at one rate, over all runs."""

    figure: str
    unit: str
    hz: int
    tool: str
    median: float
    least: float
    most: float
    runs: int

    def as_text(self) -> str:
        digits = 0 if abs(self.median) >= 100 else 2
        spread = f" ({self.least:.{digits}f} to {self.most:.{digits}f})" if self.runs > 1 else ""
        return f"{self.median:.{digits}f}{spread}"


def main() -> None:
    options = _parse_options()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and tools inherit that
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("overhead: ended by a signal"))
    plan = _make_plan(options)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="coprof-bench-") as folder,
            bpf_statistics(),
            running_loads(detect_hierarchy("auto"), Path(folder)) as loads,
        ):
            results, missing = run(plan, loads, Path(folder))
    except (CoprofError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"overhead: {error}")
    except KeyboardInterrupt:
        sys.exit("overhead: interrupted")
    _print(plan, results, missing, options.format)


def run(plan: Plan, loads: Sequence[Load], folder: Path) -> tuple[list[Result], dict[str, str]]:
    """Measure everything; returns the figures, and for each tool that could not be measured why."""
    runs: dict[tuple[int, str], list[Figures]] = defaultdict(list)
    missing: dict[str, str] = {}
    for hz, name, pair in _steps(plan):
        if name in missing:
            continue
        with tempfile.TemporaryDirectory(dir=folder) as place:
            tool = plan.make_tool(name, hz, Path(place))
            try:
                if pair is None:
                    figures = measure(tool, Path(place), plan.windows, plan.window_s, loads)
                else:
                    figures = measure_loss(tool, Path(place), plan.window_s, loads, is_on_first=pair % 2 == 1)
            except NotMeasured as reason:
                missing[name] = str(reason)
                continue
        runs[hz, name].append(figures)
    return [result for (hz, name), found in runs.items() for result in _summarise(hz, name, found)], missing


def _steps(plan: Plan) -> Iterator[tuple[int, str, int | None]]:
    """Rate, tool, and the number of the pair when it is to be compared with nothing at all."""
    for hz in plan.rates_hz:
        for turn in range(plan.rounds):
            for name in TOOLS if turn % 2 == 0 else reversed(TOOLS):
                _say(f"{hz} Hz, round {turn + 1} of {plan.rounds}: {name}")
                yield hz, name, None
        for pair in range(plan.pairs):
            _say(f"{hz} Hz, with and without coprof: pair {pair + 1} of {plan.pairs}")
            yield hz, "coprof", pair


def _summarise(hz: int, name: str, runs: Sequence[Figures]) -> Iterator[Result]:
    for figure in dict.fromkeys(figure for figures in runs for figure in figures):
        values = [figures[figure] for figures in runs if figure in figures]
        unit = UNITS[figure.partition(" (")[0]]
        yield Result(figure, unit, hz, name, statistics.median(values), min(values), max(values), len(values))


def _print(plan: Plan, results: Sequence[Result], missing: dict[str, str], form: str) -> None:
    scenario = _scenario(plan)
    notes = [f"{name}: not measured: {reason}" for name, reason in missing.items()]
    if form == "json":
        print_json({"scenario": scenario, "results": [vars(result) for result in results], "not_measured": notes})
        return
    print(scenario)
    for hz in plan.rates_hz:
        of_rate = [result for result in results if result.hz == hz]
        print(f"\n{hz} Hz")
        print_rows(_rows(of_rate), "table", right=TOOLS)
    for note in notes:
        print(f"\n{note}")


def _rows(results: Sequence[Result]) -> list[dict[str, str]]:
    """A row a figure, a column a tool."""
    texts = {(result.figure, result.tool): result.as_text() for result in results}
    units = {result.figure: result.unit for result in results}
    order = sorted(units, key=lambda figure: list(UNITS).index(figure.partition(" (")[0]))
    return [
        {"figure": figure, "unit": units[figure]} | {name: texts.get((figure, name), "") for name in TOOLS}
        for figure in order
    ]


def _scenario(plan: Plan) -> str:
    node = read_node()
    return (
        f"{node.cpus} CPUs ({node.model}, Linux {node.kernel}) kept busy by deepcalls (C) and python, on {plan.event}; "
        f"{plan.windows} windows of {plan.window_s} s a run, {plan.rounds} rounds, {plan.pairs} pairs; "
        "median (least to most)"
    )


def _make_plan(options: argparse.Namespace) -> Plan:
    window_s = 5 if options.short else 10
    seconds = options.seconds or (5 if options.short else 20)
    return Plan(
        rates_hz=options.hz or ([49] if options.short else [49, 199]),
        windows=max(1, -(-seconds // window_s)),
        window_s=window_s,
        rounds=options.rounds or (1 if options.short else 2),
        pairs=options.pairs if options.pairs is not None else (0 if options.short else 3),
        event=choose_event("auto"),
    )


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what coprof's agent and its peers cost.")
    parser.add_argument("--short", action="store_true", help="one round at 49 Hz with windows of 5 s, under a minute")
    parser.add_argument("--seconds", type=int, help="length of each run; 20, short 5, rounded up to whole windows")
    parser.add_argument("--hz", type=int, action="append", help="rate; may be repeated; 49 and 199, short 49")
    parser.add_argument("--rounds", type=int, help="runs of each tool at each rate; 2, short 1")
    parser.add_argument("--pairs", type=int, help="comparisons with and without the agent; 3, short 0")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
