"""Rows to a table for people, JSON for programs, or CSV for sheets: the `--format` of every command that prints one."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

FORMATS = ("table", "json", "csv")

Row = Mapping[str, Any]


def print_rows(rows: Sequence[Row], form: str, title: str = "", right: Sequence[str] = ()) -> None:
    """Print rows of equal keys; in tables the columns named in `right` are aligned to the right."""
    if form == "json":
        print_json(rows)
    elif form == "csv":
        sys.stdout.write(_as_csv(rows))
    elif rows:
        _console().print(_as_table(rows, title, right))


def print_json(document: Any) -> None:
    """Print one JSON document, readable and ending in a line break."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    if rows:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _as_table(rows: Sequence[Row], title: str, right: Sequence[str]) -> Table:
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name in rows[0]:
        table.add_column(name.replace("_", " "), justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        # Text, not str: names come from other people's programs and must not be read as markup.
        table.add_row(*(Text("" if value is None else str(value)) for value in row.values()))
    return table


def _console() -> Console:
    width = None if sys.stdout.isatty() else 200  # a pipe has no width; do not cut what a program reads
    return Console(file=sys.stdout, width=width, highlight=False)
