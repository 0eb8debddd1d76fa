"""What a campaign found, in words and as one JSON document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pegel_bench.chaos.campaign import Outcome, Round

KINDS = ("lost", "doubled", "reordered")


@dataclass(frozen=True, slots=True)
class Line:
    """One fault over all rounds that had it alone; times in milliseconds."""

    name: str
    rounds: int
    elections: int
    low: float
    middle: float
    p90: float
    high: float


def by_fault(rounds: Sequence[Round]) -> list[Line]:
    """Rounds with two faults are a group of their own."""
    groups: dict[str, list[Round]] = {}
    for one in rounds:
        name = one.faults[0].name if len(one.faults) == 1 else "two faults"
        groups.setdefault(name, []).append(one)
    return [_line(name, groups[name]) for name in sorted(groups)]


def _line(name: str, rounds: Sequence[Round]) -> Line:
    times = sorted(r.unavailable_ms for r in rounds)
    p90 = times[min(len(times) - 1, int(len(times) * 0.9))]
    elections = sum(len(r.elections) for r in rounds)
    return Line(name, len(rounds), elections, times[0], median(times), p90, times[-1])


def count(outcome: Outcome, kind: str) -> int:
    return sum(text.startswith(f"{kind}: ") for _, text in outcome.findings)


def summary(outcome: Outcome) -> str:
    """One line of figures."""
    rounds = outcome.rounds
    sent, acknowledged = sum(r.sent for r in rounds), sum(r.acknowledged for r in rounds)
    found = ", ".join(f"{count(outcome, kind)} {kind}" for kind in KINDS)
    others = len(outcome.findings) - sum(count(outcome, kind) for kind in KINDS)
    return (
        f"{len(rounds)} rounds, {sum(len(r.faults) for r in rounds)} faults, "
        f"{sum(len(r.elections) for r in rounds)} elections; {acknowledged:,} of {sent:,} records "
        f"acknowledged, {sum(r.read for r in rounds):,} read: {found}, {others} other findings"
    )


def table(outcome: Outcome) -> list[list[str]]:
    """Headings and rows: unavailability of the partition that suffered most."""
    rows = [["fault", "rounds", "elections", "min ms", "median ms", "p90 ms", "max ms"]]
    for line in by_fault(outcome.rounds):
        times = [f"{t:,.0f}" for t in (line.low, line.middle, line.p90, line.high)]
        rows.append([line.name, str(line.rounds), str(line.elections), *times])
    return rows


def words(outcome: Outcome) -> list[str]:
    """What a person is told at the end."""
    rows = table(outcome)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["longest time without an acknowledgement, by fault:", ""]
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells))
    lines.append("")
    lines += [f"skipped {name}: {why}" for name, why in sorted(outcome.skipped.items())]
    gave_up: dict[str, int] = {}
    for one in outcome.rounds:
        for name, number in one.gave_up.items():
            gave_up[name] = gave_up.get(name, 0) + number
    lines += [f"{n} records were given up: {name}" for name, n in sorted(gave_up.items())]
    for one, text in outcome.findings[:20]:
        lines.append(f"round {one.number} ({one.name}): {text}")
    if outcome.findings:
        worst = outcome.findings[0][0]
        lines += [
            f"the data is kept in {outcome.kept}",
            f"to repeat: {outcome.options.repeat(worst.number)}",
            *(f"with one of its faults alone: {c}" for c in outcome.options.alone(worst)),
        ]
    lines.append(summary(outcome))
    return lines


def document(outcome: Outcome) -> dict[str, Any]:
    """Everything, for machines."""
    options = outcome.options
    return {
        "seed": options.seed, "brokers": options.brokers, "partitions": options.partitions,
        "replication": options.replication, "min_insync": options.min_insync,
        "settings": dict(options.settings), "topic_config": dict(options.topic_config),
        "ok": not outcome.findings, "kept": outcome.kept, "skipped": outcome.skipped,
        "summary": summary(outcome),
        "unavailable_ms": {
            line.name: {"rounds": line.rounds, "elections": line.elections,
                        "min": round(line.low, 1), "median": round(line.middle, 1),
                        "p90": round(line.p90, 1), "max": round(line.high, 1)}
            for line in by_fault(outcome.rounds)
        },
        "rounds": [one.document() for one in outcome.rounds],
    }  # fmt: skip
