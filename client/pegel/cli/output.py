"""Tables for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence

import click


def print_json(document: object) -> None:
    """One JSON document on one line."""
    click.echo(json.dumps(document, ensure_ascii=False))


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str = "",
    right: Iterable[int] = (),
) -> None:
    """A table: drawn on a terminal, plain columns elsewhere (which ``awk`` can read).

    Args:
        right: indexes of columns of numbers, which are aligned to the right.
    """
    text = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(columns, text, title, set(right))
        return
    widths = [max(map(len, column)) for column in zip(columns, *text, strict=True)]
    for row in ([name.upper() for name in columns], *text):
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        click.echo("  ".join(cells).rstrip())


def _print_rich(
    columns: Sequence[str], rows: Sequence[Sequence[str]], title: str, right: set[int]
) -> None:
    # Imported here: rich takes longer to load than most commands take to run.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text.from_ansi(cell) for cell in row))
    Console().print(table)


def highlight(text: str, color: str) -> str:
    """Coloured on a terminal, plain elsewhere."""
    return click.style(text, fg=color) if sys.stdout.isatty() else text


def numbers(values: Iterable[int]) -> str:
    """``1,2,3``."""
    return ",".join(map(str, values))
