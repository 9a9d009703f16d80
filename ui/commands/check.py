"""`coprof check`: can this machine run coprof, and what is missing: one line each, with the way out."""

from __future__ import annotations

from pathlib import Path

import click

from ui.checks import MISSING, run_checks
from ui.cli import EXIT_FAILED
from ui.config import Config
from ui.options import config_option, format_option, store_option, written_store
from ui.tables import FORMATS, print_rows


@click.command()
@config_option
@store_option
@format_option(*FORMATS)
@click.pass_context
def command(ctx: click.Context, config: Config, store_path: Path | None, form: str) -> None:
    """Tell whether this machine can run coprof, and what is missing."""
    results = run_checks(written_store(config, store_path), config)
    print_rows([result.as_row() for result in results], form)
    if any(result.state == MISSING for result in results):
        ctx.exit(EXIT_FAILED)
