"""Whether the rounds of a run reach its goals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pegel_bench.goals import Against, Goal
from pegel_bench.result import Report, Row, Summary, figure_summary, ratio


@dataclass(frozen=True, slots=True)
class Verdict:
    """A goal and what was measured; ``found`` is None where the run has no rows for it."""

    goal: Goal
    found: Summary | None

    @property
    def holds(self) -> bool | None:
        """By the median of the rounds; None: not measured."""
        if self.found is None:
            return None
        if self.goal.less:
            return self.found.median <= self.goal.bound
        return self.found.median >= self.goal.bound


def judge(report: Report) -> list[Verdict]:
    """Each goal with the first target's figures; the second target is what it is compared with."""
    return [Verdict(goal, _found(goal, report)) for goal in report.goals]


def _found(goal: Goal, report: Report) -> Summary | None:
    first, *others = report.targets
    mine = _rows(report, first, goal.workload, goal.where)
    if goal.against is Against.NOTHING:
        return figure_summary(mine, goal.figure)
    if goal.against is Against.TARGET:
        if not others:
            return None
        return ratio(mine, _rows(report, others[0], goal.workload, goal.where), goal.figure)
    other = _rows(report, first, goal.workload, {**goal.where, **goal.over})
    summary, divisor = figure_summary(mine, goal.figure), figure_summary(other, goal.figure)
    if summary is None or divisor is None or not divisor.median:
        return None
    by = divisor.median
    return Summary(summary.median / by, summary.low / by, summary.high / by, summary.rounds)


def _rows(report: Report, target: str, workload: str, where: Mapping[str, object]) -> list[Row]:
    return [
        row
        for row in report.rows
        if row.target == target
        and row.workload == workload
        and where.items() <= row.case.items()
        and not row.interrupted
    ]
