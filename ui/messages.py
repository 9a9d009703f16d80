"""Lines for people, on standard error: what a command has to say beside its answer."""

from __future__ import annotations

import click


def say(line: str) -> None:
    """Print one line that says whose it is."""
    click.echo(f"coprof: {line}", err=True)
