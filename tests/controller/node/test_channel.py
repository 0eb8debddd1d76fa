"""The channel of a broker to the active controller, where its turns fall badly."""

from __future__ import annotations

import asyncio
import random

import pytest

from pegel.seams import World
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerChannel, ControllerUnavailableError
from pegel_controller.rpc.framing import Kind, RpcClosedError, RpcConnection, encode_frame


def test_a_connection_lost_before_its_turn_is_waited_for_again() -> None:
    """Made and lost between the wake of a waiting call and its turn: no reason to give up."""

    async def main() -> None:
        world = World(None, None, None, None, random.Random(1))  # type: ignore[arg-type]
        channel = ControllerChannel(world, 1, {1: ("localhost", 1)}, lambda: "")
        request = m.MetadataFetchRequest(1, 0)
        call = asyncio.create_task(channel.call("metadata_fetch", request, 0.05))
        await asyncio.sleep(0)
        channel._connected.set()
        channel._connected.clear()
        with pytest.raises(ControllerUnavailableError):
            await call

    asyncio.run(main())


def test_a_call_that_a_closed_channel_leaves_behind_ends_by_its_time_out() -> None:
    """It took the old connection for a new one in each turn, and the event loop stood still."""

    async def main() -> None:
        world = World(None, None, None, None, random.Random(1))  # type: ignore[arg-type]
        channel = ControllerChannel(world, 1, {1: ("localhost", 1)}, lambda: "")
        channel._connected.set()  # as a connection leaves it behind
        await channel.close()
        with pytest.raises(ControllerUnavailableError):
            await channel.call("metadata_fetch", m.MetadataFetchRequest(1, 0), 0.05)

    asyncio.run(main())


class Wire(RpcConnection):
    """A connection whose other end is the test."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.aborted = False

    def write(self, pieces: object) -> None:
        """Nobody reads it."""

    def abort(self) -> None:
        self.aborted = True

    def answer(self, number: int, method: str) -> None:
        frame = encode_frame(Kind.RESPONSE, number, method, ["done"])
        self.on_frame(memoryview(frame)[4:])


def test_a_connection_that_is_given_up_is_kept_for_what_must_not_be_sent_twice() -> None:
    """A slow controller was taken for a hung one: a create that it did was called timed out."""

    async def main() -> None:
        wire = Wire()
        poll = wire.call("metadata_fetch", [])
        create = wire.call("create_topics", [], once=True)
        wire.retire("looking for the active controller")
        with pytest.raises(RpcClosedError):
            await poll
        assert not create.done()
        assert not wire.aborted
        wire.answer(2, "create_topics")
        assert await create == ["done"]
        assert wire.aborted

    asyncio.run(main())


def test_a_connection_that_is_given_up_ends_at_once_where_nothing_is_lost() -> None:
    async def main() -> None:
        wire = Wire()
        given_up = wire.call("create_topics", [], once=True)
        given_up.cancel()  # its time was up
        wire.retire("looking for the active controller")
        assert wire.aborted

    asyncio.run(main())
