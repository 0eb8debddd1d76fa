"""What a figure is held to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class Against(Enum):
    """What a figure is divided by before it is held to its bound."""

    NOTHING = "nothing"
    # The same case of the target that is compared, round by round.
    TARGET = "target"
    # Another case of the same target, by medians: the rounds of two cases are not alternations.
    CASE = "case"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One bound.

    Attributes:
        where: what the case of a row must hold, such as {"acks": "all"}.
        bound: the highest value that will do, where ``less`` is better, else the lowest.
        over: with Against.CASE, what the case of the divisor differs in.
        figure: name of the figure; its end is the unit.
    """

    workload: str
    where: Mapping[str, object]
    figure: str
    bound: float
    less: bool
    against: Against = Against.TARGET
    over: Mapping[str, object] = field(default_factory=dict)
