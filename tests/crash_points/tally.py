"""What became of the crash points of one format, and how a violation is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


class CrashPointError(AssertionError):
    """Recovery broke its promise: something was lost, invented, or repaired in silence."""


@dataclass(slots=True)
class Tally:
    """``outcomes`` counts what recovery made of each point: whole, prefix, refused, rebuilt."""

    format: str
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def points(self) -> int:
        return sum(self.outcomes.values())

    def take(self, outcome: str) -> None:
        self.outcomes[outcome] += 1

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {name}" for name, count in sorted(self.outcomes.items()))
        return f"{self.format}: {self.points:,} points ({counts})"


def require(holds: bool, what: str) -> None:
    if not holds:
        raise CrashPointError(what)


@dataclass(slots=True)
class Points:
    """Which points are tried: all, or the one of that name, as it is printed for a repetition."""

    only: str | None = None
    now: str = ""  # the point that is tried
    tried: int = 0

    def wanted(self, name: str) -> bool:
        if self.only is not None and name != self.only:
            return False
        self.now = name
        self.tried += 1
        return True


POINTS = Points()
