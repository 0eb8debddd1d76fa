"""Small worlds of Raft are seen whole; and a Raft that lacks a rule is caught in one."""

from __future__ import annotations

import pytest

from tests.simulation.raft.model.__main__ import SMALL, explore
from tests.simulation.raft.model.world import Bounds
from tests.simulation.raft.mutants import MUTANTS, take_away

STATES = {
    "two elections": 12_011,
    "a leader faster than its disk, and a crash": 20_211,
    "messages in any order": 6_384,
}


@pytest.mark.parametrize("name", SMALL)
def test_every_state_of_a_small_world_keeps_the_promises(name: str) -> None:
    result = explore(SMALL[name])
    assert result.error is None, result.trace
    assert result.whole
    assert result.states == STATES[name], "the protocol has other states now: say why"


@pytest.mark.parametrize(
    ("mutant", "bounds"),
    [
        ("two votes in a term", Bounds(term=1, proposals=0, ordered=True)),
        ("votes for a log that lacks entries", Bounds(proposals=0, ordered=True)),
        (
            "answers leave before the sync",
            Bounds(proposals=0, crashes=1, slow_disks=True, ordered=True),
        ),
    ],
)
def test_a_missing_rule_is_caught(
    mutant: str, bounds: Bounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert mutant in MUTANTS
    take_away(mutant, monkeypatch)
    result = explore(bounds, states_max=60_000)
    assert result.error is not None
    assert result.trace
