"""Results of a run: one row for each measurement, and the ratios between targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pegel_bench.costs import Costs
from pegel_bench.goals import Goal


@dataclass(slots=True, kw_only=True)
class Row:
    """One measurement of one target.

    Attributes:
        workload: name of the sub-command.
        case: what distinguishes this measurement within the run, such as {"acks": "all"}.
        client: who made the load: "raw", "pegel" or "librdkafka".
        round: 1, 2, … : the alternation that it belongs to.
        figures: name → number; the unit is the end of the name.
        curve: points (percentile, milliseconds) of the latencies.
        events: moments of a time line: (milliseconds, text).
        ok: every acknowledged record was there.
        costs: of the first round, where they were asked for.
    """

    target: str
    workload: str
    case: dict[str, Any]
    client: str = ""
    round: int = 1
    figures: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)
    second_curve: list[tuple[float, float]] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    series: list[tuple[float, float]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    ok: bool = True
    verified: bool = False
    interrupted: bool = False
    costs: Costs | None = None

    @property
    def label(self) -> str:
        """The case in one line."""
        return ", ".join(f"{key} {value}" for key, value in self.case.items())

    @property
    def key(self) -> tuple[str, str]:
        return self.workload, self.label


@dataclass(slots=True, kw_only=True)
class Report:
    """Everything that a command measured; ``goals`` are the first target's."""

    command: str
    environment: dict[str, Any]
    setup: dict[str, Any]
    targets: dict[str, dict[str, Any]]
    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(row.ok for row in self.rows)

    @property
    def failures(self) -> list[str]:
        found = []
        for row in self.rows:
            if not row.ok:
                lost, doubled = row.figures.get("lost", 0), row.figures.get("doubled", 0)
                found.append(
                    f"{row.target}, {row.label}: {lost:,.0f} acknowledged records lost, "
                    f"{doubled:,.0f} doubled"
                )
        return found

    @property
    def notes(self) -> list[str]:
        return list(dict.fromkeys(
            f"{row.target}, {row.label}: {note}" for row in self.rows for note in row.notes
        ))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Summary:
    """Median, lowest and highest of the rounds."""

    median: float
    low: float
    high: float
    rounds: int


def summarize(values: Sequence[float]) -> Summary:
    return Summary(statistics.median(values), min(values), max(values), len(values))


def grouped(rows: Sequence[Row]) -> dict[tuple[str, str], dict[str, list[Row]]]:
    """(workload, case) → target → its rows in the order of rounds; all in order of appearance."""
    found: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for row in rows:
        found.setdefault(row.key, {}).setdefault(row.target, []).append(row)
    return found


def ratio(first: Sequence[Row], second: Sequence[Row], figure: str) -> Summary | None:
    """First over second, round by round; None where a round lacks the figure."""
    by_round = {row.round: row.figures.get(figure) for row in second}
    ratios = []
    for row in first:
        mine, other = row.figures.get(figure), by_round.get(row.round)
        if mine is not None and other:
            ratios.append(mine / other)
    return summarize(ratios) if ratios else None


def figure_summary(rows: Sequence[Row], figure: str) -> Summary | None:
    values = [row.figures[figure] for row in rows if figure in row.figures]
    return summarize(values) if values else None


Progress = Callable[[str], None]
