"""Inputs that a coverage-guided run kept, played again; and how that run tells of a failure."""

from __future__ import annotations

import asyncio
import logging
import random
from pathlib import Path

import pytest

from pegel_broker.network.connection import ClientConnection
from tests.fuzz import guided
from tests.fuzz.campaign import FuzzError
from tests.fuzz.inputs import Player


def _play(target: str, inputs: list[bytes], inputs_of_a_life: int = 1_000) -> int:
    async def main() -> int:
        player = Player(target, inputs_of_a_life)
        try:
            await player.start()
            for data in inputs:
                await player.play(data)
            await player.target.check()
            await player.target.stop()
        finally:
            player.close()
        return player.played

    return asyncio.run(main())


@pytest.mark.parametrize("target", guided.TARGETS)
def test_what_was_kept_hurts_nobody(target: str) -> None:
    inputs = list(guided.kept(target))
    assert len(inputs) >= 20
    assert _play(target, inputs) == len(inputs)


@pytest.mark.parametrize("target", guided.TARGETS)
def test_examples_reach_the_target_and_it_is_made_anew(target: str) -> None:
    async def main() -> None:
        player = Player(target, 20)
        try:
            await player.start()
            examples = list(player.examples(random.Random(0)))
            first = player.target
            for data in random.Random(1).sample(examples, 30):
                await player.play(data)
            assert player.target is not first
            await player.target.stop()
        finally:
            player.close()

    asyncio.run(main())


def test_an_error_that_the_target_hides_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = b"\0\x12\0\0\0\0\0\1\xff\xff"
    honest = ClientConnection._handle

    def handle(self: ClientConnection, frame: memoryview) -> None:
        if frame == hostile:
            raise ZeroDivisionError
        honest(self, frame)

    monkeypatch.setattr(ClientConnection, "_handle", handle)
    with pytest.raises(FuzzError, match="ZeroDivisionError"):
        _play("broker", [hostile])
    assert logging.getLogger("pegel").propagate


def test_an_input_that_failed_stays_and_one_command_plays_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, kept = tmp_path / "found", tmp_path / "kept"
    found.mkdir()
    kept.mkdir()
    monkeypatch.setattr(guided.tempfile, "mkdtemp", lambda prefix: str(kept))
    assert guided._kept_failure("broker", found) == ""
    (found / "failed-crash-1").write_bytes(b"\0\x12\0\0\0\0\0\1\xff\xff")
    told = guided._kept_failure("broker", found)
    file = kept / "failed-crash-1"
    assert told.endswith(f"python -m tests.fuzz.guided broker --play {file}")
    assert guided.play("broker", [file]) == ""

    honest = ClientConnection._handle

    def broken(self: ClientConnection, frame: memoryview) -> None:
        if frame == file.read_bytes():
            raise ZeroDivisionError
        honest(self, frame)

    monkeypatch.setattr(ClientConnection, "_handle", broken)
    assert "ZeroDivisionError" in guided.play("broker", [file])
