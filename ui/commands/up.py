"""`coprof up`: agent and viewer of this machine, as two processes that share nothing but the store.

Ends when told to, or when one of the two ends; then the other is ended too, and its exit code is ours.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import click

from storage.store import Store
from ui.cli import EXIT_FAILED
from ui.config import load_config
from ui.messages import say
from ui.options import config_path_option, store_option, written_store

POLL_S = 0.2
PATIENCE_S = 20  # the agent still writes its open window; then it is killed


@click.command()
@config_path_option
@store_option
@click.option("--hz", type=click.IntRange(1, 999), help="Samples a second on each CPU.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the viewer; 0 takes any free one.")
@click.pass_context
def command(
    ctx: click.Context, config_path: Path | None, store_path: Path | None, hz: int | None, port: int | None
) -> None:
    """Profile this machine and show it in a browser."""
    store = Store.open(written_store(load_config(config_path), store_path), create=True)
    shared = [*_option("--config", config_path), "--store", str(store.root)]
    signal.signal(signal.SIGTERM, _interrupt)
    children: dict[str, subprocess.Popen[str]] = {}
    try:
        viewer = _start("serve", [*shared, *_option("--port", port)], stdout=subprocess.PIPE)
        children["viewer"] = viewer
        # The viewer says its address once the port is bound; without one it has failed, and said why itself.
        if address := viewer.stdout.readline() if viewer.stdout else "":
            click.echo(address.rstrip())
            children["agent"] = _start("agent", [*shared, *_option("--hz", hz)])
        ctx.exit(_wait_for_first(children))
    except KeyboardInterrupt:
        say("stopping")
    finally:
        _end(list(children.values()))


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _start(command_name: str, arguments: Sequence[str], stdout: int | None = None) -> subprocess.Popen[str]:
    # A session of its own: Ctrl-C reaches us alone, and we end the children in order. If we are killed, they end too.
    # -P: nothing is imported from the working directory.
    arguments = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-P", "-m", "ui.cli", command_name, *arguments]
    return subprocess.Popen(arguments, stdout=stdout, text=True, start_new_session=True)


def _wait_for_first(children: Mapping[str, subprocess.Popen[str]]) -> int:
    """Return the exit code of the first to end; whoever was killed could not say so itself."""
    while True:
        for name, child in children.items():
            code = child.poll()
            if code is not None and code < 0:
                say(f"the {name} was ended by signal {-code}; the other is ended too")
            if code is not None:
                return EXIT_FAILED if code < 0 else code
        time.sleep(POLL_S)


def _end(children: Sequence[subprocess.Popen[str]]) -> None:
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            say(f"process {child.pid} does not end; killing it")
            child.kill()
            child.wait()


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
