"""Small worlds of Raft are seen whole; and a Raft that lacks a rule is caught in one."""

from __future__ import annotations

import pytest

from tests.simulation.raft.model.__main__ import SMALL, explore, main
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


def test_a_broken_promise_is_told_with_its_trace_and_the_command_that_repeats_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "two elections"
    take_away("two votes in a term", monkeypatch)
    monkeypatch.setattr("sys.argv", ["model", "--world", name])
    assert main() == 1
    told, trace, repeat = capsys.readouterr().out.splitlines()
    assert told.startswith(f"{name}: ")
    assert " / " in trace
    assert repeat == f"  repeat: python -m tests.simulation.raft.model --world '{name}'"
