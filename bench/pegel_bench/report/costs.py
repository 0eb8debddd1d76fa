"""What ``--costs`` found, as tables."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from pegel_bench.costs import KINDS, Costs
from pegel_bench.result import Report, Row

# System calls in the table of their own; all others are added up.
_CALLS_SHOWN = 8
_SHARES = "where the brokers' processor time goes, %"
_CALLS = "system calls of all brokers for one request"


def tables(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, headings, rows of cells) of each table that has rows."""
    shares = [row for row in report.rows if row.costs is not None and row.costs.shares]
    calls = [row for row in report.rows if row.costs is not None and row.costs.calls]
    found = []
    if shares:
        kinds = [k for k in KINDS if any(k in _costs(row).shares for row in shares)]
        lines = [
            [*_names(row), *(f"{_costs(row).shares.get(kind, 0.0) * 100:.0f}" for kind in kinds)]
            for row in shares
        ]
        found.append((_SHARES, ["case", "target", *kinds], lines))
    if calls:
        names = _most_frequent(calls)
        lines = []
        for row in calls:
            counts = _costs(row).calls
            others = sum(n for name, n in counts.items() if name not in names)
            cells = [*(counts.get(name, 0.0) for name in names), others]
            lines.append([*_names(row), *(f"{n:.1f}" for n in cells)])
        found.append((_CALLS, ["case", "target", *names, "others"], lines))
    return found


def show(console: Console, report: Report) -> None:
    """Nothing where nothing was asked for."""
    for title, headings, lines in tables(report):
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
        for number, heading in enumerate(headings):
            table.add_column(heading, justify="left" if number < 2 else "right")
        for line in lines:
            table.add_row(*line)
        console.print(table)


def _costs(row: Row) -> Costs:
    assert row.costs is not None
    return row.costs


def _names(row: Row) -> list[str]:
    return [f"{row.workload}: {row.label}", row.target]


def _most_frequent(rows: list[Row]) -> list[str]:
    highest: dict[str, float] = {}
    for row in rows:
        for name, calls in _costs(row).calls.items():
            highest[name] = max(highest.get(name, 0.0), calls)
    return sorted(highest, key=lambda name: -highest[name])[:_CALLS_SHOWN]
