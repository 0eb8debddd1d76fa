"""Each transcript is played again and must come out as it stands.

x
the change is then a visible diff, to be committed with its reason.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.golden.raft.player import Player

TRANSCRIPTS = sorted(Path(__file__).parent.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_comes_out_as_it_stands(path: Path, request: pytest.FixtureRequest) -> None:
    before = path.read_text()
    after = Player().play(before)
    if request.config.getoption("--update-golden"):
        path.write_text(after)
    else:
        assert after == before, "if the change is meant: pytest tests/golden/raft --update-golden"


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 16


def test_a_broken_core_changes_a_transcript(monkeypatch: pytest.MonkeyPatch) -> None:
    """The transcripts look: an election without the comparison of logs comes out otherwise."""
    monkeypatch.setattr(
        "pegel_controller.raft.log_view.LogView.is_up_to_date", lambda *_arguments: True
    )
    changed = 0
    for path in TRANSCRIPTS:
        before = path.read_text()
        try:
            changed += Player().play(before) != before
        except Exception:  # an invariant, or a command that no longer applies
            changed += 1
    assert changed
