"""`coprof record`: capture for a while, or while a command runs, then say what was captured.

The whole machine is recorded, neighbours too. A command given after `--` runs in a cgroup of its own, so that it
shows as a workload of its own.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from analysis.overview import Overview, read_overview
from profiler.errors import BadInput, StoreUnavailable
from profiler.sampler import Sampler
from profiler.saved_windows import FILE_SUFFIX, save
from profiler.window import Window
from profiler.workloads import load_rules
from storage.store import Store, has_format
from storage.writer import StoreWriter, is_written
from ui.agent import CostMeter, interrupt_on_signals, stop_on_signals, store_windows
from ui.child import CgroupChild
from ui.cli import EXIT_FAILED
from ui.commands.agent import rules_file, sampler_settings
from ui.config import Config
from ui.losses import describe_losses
from ui.messages import say
from ui.options import RECORDING, config_option
from ui.tables import print_rows
from ui.timespan import parse_duration


@click.command(context_settings={"ignore_unknown_options": False})
@config_option
@click.option("--duration", metavar="S", help="How long to record: seconds, or such as 5m.")
@click.option("-o", "--output", "store_path", type=click.Path(path_type=Path), help=f"Store; else a new {RECORDING}.")
@click.option("--hz", type=click.IntRange(1, 999), help="Samples a second on each CPU.")
@click.option("--event", type=click.Choice(["auto", "cycles", "cpu-clock"]), help="What ticks.")
@click.option(
    "--windows", "windows_path", type=click.Path(file_okay=False, path_type=Path), help="Also save raw windows."
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
@click.pass_context
def command(
    ctx: click.Context,
    config: Config,
    duration: str | None,
    store_path: Path | None,
    hz: int | None,
    event: str | None,
    windows_path: Path | None,
    arguments: tuple[str, ...],
) -> None:
    """Capture for a while, or while a command runs."""
    duration_s = None if duration is None else _seconds(duration)
    if duration_s is None and not arguments:
        raise BadInput("how long to record is not said; give --duration, or a command after --")
    interrupt_on_signals()
    sampler = Sampler(sampler_settings(config.agent, hz, event), load_rules(rules_file(config.agent)))
    child = CgroupChild(arguments, sampler.hierarchy) if arguments else None
    if windows_path:
        _make_folder(windows_path)
    raw = RawWindows(windows_path)
    started_ns = time.time_ns()
    with ExitStack() as stack:
        stack.enter_context(sampler)
        stop_on_signals(sampler)
        # Only now: when sampling cannot begin, or we are interrupted before, there is no store, and the default
        # recording of before stays where it is.
        store = Store.open(store_path or _fresh_recording(), create=True)
        writer = stack.enter_context(StoreWriter(store, sampler.node.name))
        if child:
            stack.enter_context(child)
        stack.enter_context(_stopped_when_over(sampler, duration_s, child))
        windows = raw.kept(_shown_progress(sampler, duration_s))
        refused = store_windows(windows, writer, CostMeter(sampler.bpf_bytes), say)
    if child:
        say(f"{child.outcome()}")
    _summarise(read_overview(store, started_ns, time.time_ns()), store, is_default=store_path is None)
    if refused or raw.unsaved:
        ctx.exit(EXIT_FAILED)


def _seconds(text: str) -> float:
    seconds = float(text) if text.replace(".", "", 1).isdecimal() else parse_duration(text) / 1e9
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise BadInput(f"duration {text!r} is none to record for; give one above 0 seconds and below 292 years")
    return seconds


def _fresh_recording() -> Path:
    """The default recording's path; an older recording there becomes `.old`, as perf does."""
    old = RECORDING.with_name(RECORDING.name + ".old")
    try:
        if not has_format(RECORDING):  # nothing there, or nothing of ours: opening it says so
            return RECORDING
        if is_written(RECORDING) or is_written(old):
            raise StoreUnavailable(f"another recording writes to {RECORDING}: name another store with -o")
        if has_format(old):
            shutil.rmtree(old)
        RECORDING.rename(old)
    except OSError as error:
        raise StoreUnavailable(
            f"the recording {RECORDING} of before cannot become {old}: {error.strerror}; name another store with -o"
        ) from None
    return RECORDING


@contextmanager
def _stopped_when_over(sampler: Sampler, duration_s: float | None, child: CgroupChild | None) -> Iterator[None]:
    """Stop the sampler after the duration or when the child has ended, whichever comes first."""
    timer = threading.Timer(threading.TIMEOUT_MAX if duration_s is None else duration_s, sampler.stop)
    timer.daemon = True
    timer.start()
    if child is not None:
        threading.Thread(target=_stop_after, args=(child, sampler), daemon=True).start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _stop_after(child: CgroupChild, sampler: Sampler) -> None:
    child.wait()
    sampler.stop()


def _shown_progress(sampler: Sampler, duration_s: float | None) -> Iterator[Window]:
    """Pass windows on; on a terminal, show how far the recording is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from sampler
        return
    columns = (TextColumn("recording"), BarColumn(), TimeElapsedColumn(), TextColumn("{task.fields[samples]} samples"))
    samples = 0
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=duration_s, samples=0)
        is_over = threading.Event()
        ticker = threading.Thread(target=_tick, args=(progress, is_over), daemon=True)
        ticker.start()
        try:
            for window in sampler:
                samples += len(window.samples)
                progress.update(task, samples=samples)
                yield window
        finally:
            is_over.set()
            ticker.join()


def _tick(progress: Progress, is_over: threading.Event) -> None:
    started_s = time.monotonic()
    while not is_over.wait(0.2):
        progress.update(progress.task_ids[0], completed=time.monotonic() - started_s)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"{folder} cannot be made: {error.strerror}; choose another with --windows") from None


@dataclass
class RawWindows:
    """A folder of raw windows under names that sort by time; None keeps none. One that cannot be saved is counted."""

    folder: Path | None
    unsaved: int = 0

    def kept(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Pass windows on, and save each after it was used: the store comes first."""
        for window in windows:
            yield window
            if self.folder:
                self._save(window, self.folder / f"{window.start_ns}{FILE_SUFFIX}")
        if self.unsaved > 1:
            say(f"{self.unsaved} raw windows were not saved")

    def _save(self, window: Window, path: Path) -> None:
        try:
            save(window, path)
        except StoreUnavailable as error:
            if not self.unsaved:
                say(f"raw window not saved, recording goes on: {error}")
            self.unsaved += 1


def _summarise(overview: Overview, store: Store, is_default: bool) -> None:
    total_ns = sum(share.cpu_ns for share in overview.workloads) or 1
    rows = [
        {
            "workload": share.workload,
            "class": share.service_class,
            "cpu_s": f"{share.cpu_ns / 1e9:.2f}",
            "share": f"{share.cpu_ns / total_ns:.1%}",
            "samples": share.samples,
        }
        for share in overview.workloads
    ]
    print_rows(rows, "table", right=("cpu_s", "share", "samples"))
    for line in describe_losses(overview.counters, overview.bad_segments):
        say(f"lost: {line}")
    if not overview.counters["samples"]:
        click.echo(f"no samples in {store.root}")
        return
    where = "" if is_default else f" --store {store.root}"
    click.echo(f"\n{overview.counters['samples']:,} samples in {store.root}; see them: coprof flame{where}")
