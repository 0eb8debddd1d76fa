"""Goals and verdicts in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from pegel_bench.goals import Against, Goal
from pegel_bench.report.table import heading, number
from pegel_bench.result import Report
from pegel_bench.verdict import Verdict, judge

HEADINGS = ("row", "figure", "goal", "median", "range", "rounds", "")
_CONTEXT = "row"


def text(goal: Goal) -> str:
    """The goal in one line."""
    return f"{label(goal)}: {heading(goal.figure)} {_bound(goal)}{_against(goal)}"


def label(goal: Goal) -> str:
    """What is measured, in one line."""
    case = ", ".join(f"{key} {value}" for key, value in goal.where.items() if key != _CONTEXT)
    row = str(goal.where.get(_CONTEXT, goal.workload))
    return f"{row}, {case}" if case else row


def lines(verdicts: Sequence[Verdict]) -> list[list[str]]:
    """A row of cells for each verdict, under HEADINGS."""
    found = []
    for verdict in verdicts:
        goal, summary = verdict.goal, verdict.found
        cells = ["", "", ""]
        if summary is not None:
            kind = "rate"
            cells = [
                number(summary.median, kind),
                f"{number(summary.low, kind)}-{number(summary.high, kind)}",
                str(summary.rounds),
            ]
        held = {True: "holds", False: "missed", None: "not measured"}[verdict.holds]
        figure = f"{heading(goal.figure)}{_against(goal)}"
        found.append([label(goal), figure, _bound(goal), *cells, held])
    return found


def tally(verdicts: Sequence[Verdict]) -> str:
    """How many hold, in one sentence."""
    judged = [verdict.holds for verdict in verdicts if verdict.holds is not None]
    left = len(verdicts) - len(judged)
    sentence = f"{sum(judged)} of {len(judged)} goals hold"
    return sentence + (f"; {left} were not measured (most need --compare)" if left else "")


def show(console: Console, report: Report) -> None:
    """A table of the verdicts; nothing where the run has no goals."""
    verdicts = judge(report)
    if not verdicts:
        return
    table = Table(title="goals: median of the rounds", title_justify="left", box=box.SIMPLE_HEAD,
                  pad_edge=False)  # fmt: skip
    right = {"goal", "median", "range", "rounds"}
    for name in HEADINGS:
        table.add_column(name, justify="right" if name in right else "left")
    for line in lines(verdicts):
        style = {"holds": "green", "missed": "yellow"}.get(line[-1], "dim")
        table.add_row(*line[:-1], f"[{style}]{line[-1]}[/]")
    console.print(table)
    console.print(tally(verdicts), highlight=False)


def _bound(goal: Goal) -> str:
    unit = "×" if goal.against is not Against.NOTHING else ""
    return f"{'≤' if goal.less else '≥'} {goal.bound:,.5g}{unit}"


def _against(goal: Goal) -> str:
    if goal.against is Against.TARGET:
        return " of the other's"
    if goal.against is Against.CASE:
        return " of " + ", ".join(f"{key} {value}" for key, value in goal.over.items()
                                  if key != _CONTEXT)  # fmt: skip
    return ""
