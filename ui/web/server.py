"""An application to a listening server: waitress, one port, a clean end.

The socket is bound before anything else, so that a taken port is one clear error and the printed address is true.
`stop` may be called from any thread; requests under way are answered first. Refuses unknown addresses, taken ports.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
from typing import Any

from flask import Flask
from waitress.server import create_server
from waitress.wasyncore import close_all

from profiler.errors import BadInput, NoPermission

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7070
THREADS = 8  # a browser opens six connections at once
FINISH_S = 5  # how long `stop` waits for requests under way


class Server:
    """A bound port that answers once `run` is called."""

    def __init__(self, app: Flask, host: str = DEFAULT_HOST, port: int = DEFAULT_PORT) -> None:
        """Bind now; port 0 takes a free one, see `port`."""
        listener = listen(host, port)
        self.host = host
        self.port: int = listener.getsockname()[1]
        self._sockets: dict[int, Any] = {}
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a request that waits a moment is no news
        self._waitress = create_server(
            app, map=self._sockets, sockets=[listener], threads=THREADS, ident=None, clear_untrusted_proxy_headers=True
        )

    @property
    def address(self) -> str:
        """The address to open in a browser."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}/"

    def run(self) -> None:
        """Answer until `stop`, `KeyboardInterrupt` or `SystemExit`."""
        self._waitress.run()
        self._waitress.task_dispatcher.shutdown(cancel_pending=True, timeout=FINISH_S)
        close_all(self._sockets)

    def stop(self) -> None:
        """Make `run` return; safe from another thread, and when called twice or before `run`."""
        if self._sockets:
            # The sockets belong to the thread in `run`: it closes them itself, woken by the trigger.
            self._waitress.trigger.pull_trigger(lambda: close_all(self._sockets))


def require_loopback(host: str) -> str:
    """Return `host` if only this machine can reach it; profiles tell too much to be served to a network unguarded."""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise BadInput(f"{host!r} is not a loopback address; listen on 127.0.0.1 and reach it through an SSH tunnel")
    return host


def listen(host: str, port: int) -> socket.socket:
    """Return a bound socket; `BadInput` for a taken port or an address that is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Only skips the wait for old connections of a port that nobody listens on.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError | OverflowError) -> BadInput | NoPermission:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return BadInput(f"port {port} on {host} is taken; choose another with --port")
    if number in (errno.EACCES, errno.EPERM):
        return NoPermission(f"port {port} on {host} needs more rights; choose one above 1023 with --port")
    return BadInput(f"cannot listen on {host} port {port}: {error}; choose another with --host and --port")
