"""`coprof serve`: show a store in a browser. Needs no privileges beyond reading the store."""

from __future__ import annotations

import ipaddress
import signal
from pathlib import Path
from types import FrameType

import click

from profiler.errors import BadInput
from storage.store import Store
from ui.config import Config
from ui.options import config_option, store_option, written_store
from ui.web.app import create_app
from ui.web.server import Server

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


def require_loopback(host: str) -> str:
    """Return `host` if only this machine can reach it; profiles tell too much to be served to a network unguarded."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise BadInput(f"{host!r} is not a loopback address; listen on 127.0.0.1 and reach it through an SSH tunnel")
    return host


def _exit(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
