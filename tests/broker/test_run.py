"""What a node does with its files before it runs."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from pegel_broker.run import make_private


def test_what_holds_secrets_is_made_private_with_all_below(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("another's")
    below = tmp_path / "raft" / "below"
    below.mkdir(parents=True)
    for path in (tmp_path / "raft" / "1.wal", below / "2.snapshot", outside):
        path.touch()
        path.chmod(0o644)
    for path in (tmp_path / "raft", below):
        path.chmod(0o755)
    (below / "link").symlink_to(outside)
    make_private(tmp_path / "raft")
    modes = {p.name: p.stat().st_mode & 0o777 for p in tmp_path.rglob("*") if not p.is_symlink()}
    assert modes == {
        "raft": 0o700, "below": 0o700, "1.wal": 0o600, "2.snapshot": 0o600, "outside": 0o644,
    }  # fmt: skip
    make_private(tmp_path / "not there")


def test_where_that_is_not_allowed_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refuse)
    with caplog.at_level(logging.WARNING):
        make_private(tmp_path)
    assert "others may read the secrets" in caplog.text
    assert "Operation not permitted" in caplog.text
