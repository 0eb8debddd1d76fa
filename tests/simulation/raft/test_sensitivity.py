"""Is the net sensitive? Take one safeguard away at a time: the simulation must notice.

The seeds of the default run notice each of these. To be quick about it, a mutant that is noticed
late is looked for in the histories that begin from a story which leads there (``faults.STORIES``).

Some rules guard against what random histories do not reach in a thousand seeds. They have
transcripts of their own in ``tests/golden/raft``: a snapshot keeps the entries that follow it,
votes of an earlier term do not count, at most one voter changes at a time.
"""

from __future__ import annotations

import pytest

from tests.simulation.raft.mutants import MUTANTS, take_away
from tests.simulation.raft.simulator import run

SEEDS = 400

# name of a mutant: a story that leads there
STORY = {
    "votes while a leader is heard": "forgetful voter",
    "votes at once after a restart": "forgetful voter",
    "commits entries of older terms by counting": "figure 8",
    "counts what the leader has only in memory": "slow leader",
    "reads without asking a quorum": "deposed reader",
    "reads confirmed by a round begun before them": "deposed reader",
    "reads at a commit index from before the own term": "deposed reader",
    "membership changes side by side": "rival memberships",
    "a membership change before an entry of the own term": "rival memberships",
    "a truncated membership stays in force": "rival memberships",
    "a lease trusted while handing over": "late hand-over",
    "a hand-over given up while its target may still obey": "late hand-over",
    "obeys a hand-over of an older leader": "late hand-over",
}


@pytest.mark.parametrize("name", MUTANTS)
def test_each_safeguard_is_missed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(name, monkeypatch)
    for seed in range(SEEDS):
        try:
            run(seed, story=STORY.get(name))
        except Exception:
            return
    pytest.fail(f"{SEEDS} seeds did not miss it")
