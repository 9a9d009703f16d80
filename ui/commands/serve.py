"""`coprof serve`: show a store in a browser. Needs no privileges beyond reading the store."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import click

from storage.store import Store
from ui.config import Config
from ui.options import config_option, store_option, written_store
from ui.web.app import create_app
from ui.web.server import Server, require_loopback

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


@click.command()
@config_option
@store_option
@click.option("--host", help="Loopback address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on; 0 takes any free one.")
def command(config: Config, store_path: Path | None, host: str | None, port: int | None) -> None:
    """Show a store in a browser."""
    store = Store.open(written_store(config, store_path))
    address = require_loopback(host or config.viewer.host)
    app = create_app(store, allowed_hosts=LOOPBACK_NAMES | {address})
    server = Server(app, address, config.viewer.port if port is None else port)
    signal.signal(signal.SIGTERM, _exit)
    click.echo(f"viewer at {server.address} for {store.root}")
    server.run()


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
