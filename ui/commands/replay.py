"""`coprof replay`: symbolise and store raw windows that were saved earlier, as if they had just been captured."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import click

from profiler.saved_windows import replay
from profiler.window import Window
from storage.store import Store
from storage.writer import StoreWriter
from ui.agent import CostMeter, store_windows
from ui.cli import EXIT_FAILED
from ui.messages import say


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="DIR_OR_FILE..."
)
@click.option("-o", "--output", "store_path", type=click.Path(path_type=Path), required=True, help="Store to write to.")
@click.pass_context
def command(ctx: click.Context, paths: tuple[Path, ...], store_path: Path) -> None:
    """Store raw windows that `record --windows` saved."""
    windows = replay(paths)
    first = next(windows)
    store = Store.open(store_path, create=True)
    counted = _Counted(chain([first], windows))
    with StoreWriter(store, first.node.name) as writer:
        refused = store_windows(counted, writer, CostMeter(bpf_bytes=int), say)
    click.echo(f"{counted.windows - refused} windows in {store.root}; see them: coprof flame --store {store.root}")
    if refused:
        ctx.exit(EXIT_FAILED)


class _Counted:
    """Windows, and how many of them have passed."""

    def __init__(self, windows: Iterator[Window]) -> None:
        self.windows = 0
        self._source = windows

    def __iter__(self) -> Iterator[Window]:
        for window in self._source:
            self.windows += 1
            yield window
