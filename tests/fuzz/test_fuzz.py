"""Some thousand hostile frames to each listener and to our client, and those that once hurt."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from pegel.protocol.framing import FrameProtocol
from pegel_broker.network.connection import ClientConnection
from tests.fuzz import frames
from tests.fuzz.__main__ import again, frames_of, life
from tests.fuzz.campaign import FuzzError, run_life, shrink
from tests.fuzz.targets import TARGETS, BrokerTarget, ControllerTarget, HttpTarget

FRAMES = 1_500
CORPUS = [
    line.partition("#")[0].split()
    for line in (Path(__file__).parent / "corpus.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.mark.parametrize("target", sorted(TARGETS))
@pytest.mark.parametrize("seed", [0, 1])
def test_hostile_frames_hurt_nobody(target: str, seed: int) -> None:
    try:
        figures = run_life(target, seed, FRAMES)
    except FuzzError as error:
        raise AssertionError(f"{error}; repeat with: {again(target, seed)}") from error
    assert figures.frames == FRAMES
    assert figures.closed > FRAMES / 20, "most of it is refused"


def test_what_once_hurt_does_so_no_more() -> None:
    kinds = {"broker": BrokerTarget, "controller": ControllerTarget, "http": HttpTarget}

    async def main() -> None:
        for name, kind in kinds.items():
            target = kind()
            await target.start(random.Random(0))
            unhandled: list[object] = []
            asyncio.get_running_loop().set_exception_handler(
                lambda _loop, context, seen=unhandled: seen.append(context)
            )
            for at, greeting, data in CORPUS:
                if at != name:
                    continue
                await target.connect()
                if isinstance(target, ControllerTarget):
                    target.hang_up()
                    assert target.node.addresses.controller is not None
                    target.transport = target.network.connect_to(
                        target.node.addresses.controller[1]
                    )
                    if greeting != "-":
                        target.feed(frames.hello(greeting, 1))
                target.feed(bytes.fromhex(data))
                await asyncio.sleep(0)
                await target.check()
            await target.stop()
            assert not unhandled

    asyncio.run(main())


def test_a_broken_handler_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def handle(self: ClientConnection, frame: memoryview) -> None:
        if len(frame) > 40 and frame[30] == 0:
            raise ZeroDivisionError
        honest(self, frame)

    honest = ClientConnection._handle
    monkeypatch.setattr(ClientConnection, "_handle", handle)
    with pytest.raises(FuzzError, match="ZeroDivisionError") as failed:
        run_life("broker", 0, 300)
    # It shows at the frame that did it, and the fewest frames that fail are few.
    assert failed.value.frame is not None
    fewest = shrink("broker", 0, failed.value)
    assert fewest.stop == failed.value.frame + 1
    assert len(fewest) <= 4
    target, seed, figures, text = life(("broker", 0, fewest))
    assert (target, seed, figures) == ("broker", 0, None)
    assert "ZeroDivisionError" in text
    command = text.splitlines()[-1].split("repeat: ")[1]
    assert command == again("broker", 0, fewest)
    assert frames_of(command.split("--frames ")[1]) == fewest


def test_memory_without_a_limit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def buffer_updated(self: FrameProtocol, size: int) -> None:
        self.hoard = bytes(20 << 20)  # type: ignore[attr-defined]
        honest(self, size)

    honest = FrameProtocol.buffer_updated
    monkeypatch.setattr(FrameProtocol, "buffer_updated", buffer_updated)
    with pytest.raises(FuzzError, match="took"):
        run_life("client", 0, 600)
