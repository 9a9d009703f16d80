"""The command `coprof`: finds a command, runs it, and turns errors into one line and an exit code.

Commands are loaded when they are called, so that the agent does not carry the viewer's packages in memory.
Exit codes: 0 fine, 1 expected failure or threshold crossed, 2 usage, 3 cannot tell, 130 interrupted before there was
anything to keep.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import os
import sys
from typing import Any

import click

from profiler.errors import BadInput, CoprofError
from ui.messages import say

COMMANDS = {
    "up": "profile this machine and show it in a browser: agent and viewer together",
    "agent": "profile this machine into a store",
    "serve": "show a store in a browser",
    "record": "capture for a while, or while a command runs",
    "replay": "store raw windows that record --windows saved",
    "flame": "write a flame graph of a store: folded text or one HTML file",
    "neighbours": "tell who made whom wait for the CPU, and how long",
    "status": "tell how a store and its agents are",
    "check": "tell whether this machine can run coprof, and what is missing",
}
EXIT_FAILED, EXIT_USAGE, EXIT_CANNOT_TELL, EXIT_INTERRUPTED = 1, 2, 3, 130
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


class _LazyGroup(click.Group):
    """A group whose commands are modules of `ui.commands` with an attribute `command`."""

    def main(self, *args: Any, **extra: Any) -> Any:
        _open_closed_stdout()
        try:
            try:
                return super().main(*args, **extra)
            finally:
                sys.stdout.flush()  # or the interpreter does it on its way out, where nobody can mend what it says
        except BrokenPipeError:  # with the last words only; see invoke
            _discard_stdout()
            sys.exit(0)
        except OSError as error:
            if error.filename is not None or error.errno not in _WRITE_ERRORS:
                raise
            _discard_stdout()
            say(f"the answer cannot be written to standard output: {error.strerror}; name another place for it")
            sys.exit(EXIT_FAILED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ui.commands.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            asked = error.ctx.command_path if error.ctx else ctx.command_path
            say(f"{_one_line(error.format_message())}; see {asked} --help")
            ctx.exit(EXIT_USAGE)
        except CoprofError as error:
            say(f"{error}")
            ctx.exit(EXIT_USAGE if isinstance(error, BadInput) else EXIT_FAILED)
        except BrokenPipeError:
            # Whoever read our output has gone (head, less); nothing is wrong, and nothing more can be printed.
            _discard_stdout()
            ctx.exit(0)
        except KeyboardInterrupt:
            ctx.exit(EXIT_INTERRUPTED)


def _open_closed_stdout() -> None:
    """Give a process without standard output one that cannot be written: only who has something to say fails."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", opener=lambda path, _flags: os.open(path, os.O_RDONLY))  # noqa: SIM115


def _discard_stdout() -> None:
    """Let what is still in the buffer go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(message: str) -> str:
    """Bring a message of click's into the form of ours: lower case, without a full stop."""
    text = " ".join(message.split()).rstrip(".")
    return text[:1].lower() + text[1:]


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(importlib.metadata.version("coprof"), prog_name="coprof")
def main() -> None:
    """Continuous profiler for machines where online and offline work share CPUs."""


if __name__ == "__main__":
    main(prog_name="coprof")
