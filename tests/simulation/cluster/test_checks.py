"""What the checker excuses: exactly that of which nothing is promised."""

from __future__ import annotations

import pytest

from pegel_controller.metadata.image import PartitionState
from tests.simulation.cluster.checks import _out_of_reach


@pytest.mark.parametrize(
    ("isr", "elr", "last_known", "broken", "excused"),
    [
        ((3,), (), (), 3, True),
        ((), (3,), (), 3, True),
        ((), (3,), (), 1, False),  # another is dead: this one is to lead
        ((), (1, 3), (), 3, False),  # 1 is to lead
        ((1,), (3,), (), 3, False),
        ((), (), (3,), 3, True),
        ((), (), (1,), 3, False),  # both are empty: the last known leader is to lead
        ((), (), (1, 3), 3, False),
        ((), (), (3, 1), 3, True),  # 3 may hold what 1 lacks: only an operator decides for 1
        ((3,), (), (), None, False),  # nobody is broken for ever
    ],
)
def test_only_what_the_broken_node_alone_holds_is_excused(
    isr: tuple[int, ...],
    elr: tuple[int, ...],
    last_known: tuple[int, ...],
    broken: int | None,
    excused: bool,
) -> None:
    """Seed 151: the last of ISR ∪ ELR is dead for ever, and progress was demanded."""
    state = PartitionState((1, 2, 3), isr, -1, 4, 7, elr, last_known)
    assert _out_of_reach(state, broken) is excused
