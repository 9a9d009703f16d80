"""Options that mean the same in every command: configuration, store, time range, output format."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from storage.store import Store
from ui.config import Config, find_config, load_config, store_directory
from ui.messages import say
from ui.timespan import TimeRange, format_time, parse_range

RECORDING = Path("coprof.store")  # what `coprof record` writes unless told otherwise, as perf does with perf.data
DEFAULT_LAST = "1h"

F = TypeVar("F", bound=Callable[..., Any])


def config_path_option(command: F) -> F:
    """`--config FILE`, given to the command as `config_path`: the file to read, or None for all defaults."""
    return click.option(
        "--config",
        "config_path",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=lambda _ctx, _option, file: find_config(file),
        help="Configuration file; else $COPROF_CONFIG, else /etc/coprof.toml.",
    )(command)


def config_option(command: F) -> F:
    """`--config FILE`, given to the command as `config`, read."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False, path_type=Path),
        callback=lambda _ctx, _option, file: load_config(find_config(file)),
        help="Configuration file; else $COPROF_CONFIG, else /etc/coprof.toml.",
    )(command)


def store_option(command: F) -> F:
    """`--store DIR`; None when it was not given."""
    return click.option("--store", "store_path", type=click.Path(path_type=Path), help="Store to use.")(command)


def range_options(command: F) -> F:
    """`--since`, `--until`, `--last`, to be combined by `chosen_range`."""
    for name, text in (
        ("--last", f"Length of the range, such as 15m; {DEFAULT_LAST} if no start is given."),
        ("--until", "End of the range; the newest data if not given."),
        ("--since", "Start of the range: RFC 3339, or relative such as -30m."),
    ):
        command = click.option(name, help=text)(command)
    return command


def format_option(*formats: str) -> Callable[[F], F]:
    """`--format`, the first being the default."""
    return click.option("--format", "form", type=click.Choice(formats), default=formats[0], show_default=True)


def written_store(config: Config, store_path: Path | None) -> Path:
    """Where an agent writes: as asked, else as configured."""
    return store_path or store_directory(config)


def read_store(config: Config, store_path: Path | None) -> Store:
    """Open the store to read: as asked, else a recording in this directory, else the agent's."""
    if store_path is None and RECORDING.is_dir():
        say(f"reading the recording {RECORDING}; --store {store_directory(config)} names the agent's")
        store_path = RECORDING
    return Store.open(store_path or store_directory(config))


def chosen_range(store: Store, since: str | None, until: str | None, last: str | None) -> TimeRange:
    """Combine the range options. With neither start nor end it ends with the newest data, so old stores answer too."""
    now_ns = time.time_ns()
    if since is None and until is None and (newest_ns := store.newest_window_ns()) is not None:
        until = format_time(newest_ns + 1_000_000)
    return parse_range(since, until, last, now_ns=now_ns, default_last=DEFAULT_LAST)
