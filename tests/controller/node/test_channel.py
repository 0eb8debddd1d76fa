"""The channel of a broker to the active controller, where its turns fall badly."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerChannel, ControllerUnavailableError
from pegel_controller.rpc.framing import (
    Kind,
    RpcClosedError,
    RpcConnection,
    decode_frame,
    encode_frame,
)


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
        self.asked: list[str] = []

    def write(self, pieces: Sequence[object]) -> None:
        """Nobody reads it but the test."""
        for piece in pieces:
            assert isinstance(piece, bytes)
            self.asked.append(decode_frame(memoryview(piece)[4:]).method)

    def abort(self) -> None:
        self.aborted = True

    def answer(self, number: int, method: str) -> None:
        frame = encode_frame(Kind.RESPONSE, number, method, ["done"])
        self.on_frame(memoryview(frame)[4:])

    def refuse_next(self, number: int, method: str, code: int) -> None:
        frame = encode_frame(Kind.ERROR, number, method, [code, "no", -1])
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


CREATE = m.CreateTopicsRequest((m.CreatableTopic("t"),))


class Led:
    """A channel whose connections to the active controller are made by the test."""

    def __init__(self) -> None:
        world = World(None, None, None, None, random.Random(1))  # type: ignore[arg-type]
        self.channel = ControllerChannel(world, 1, {1: ("localhost", 1)}, lambda: "")

    def connect(self) -> Wire:
        wire = Wire()
        wire._owner = self.channel
        self.channel._connection = wire
        self.channel._connected.set()
        return wire


def test_what_a_controller_says_it_did_not_do_is_sent_to_the_next_one() -> None:
    """NOT_CONTROLLER: also what may not be done twice."""

    async def main() -> None:
        led = Led()
        first = led.connect()
        call = asyncio.create_task(
            led.channel.call("create_topics", CREATE, 20.0, retry_sent=False)
        )
        await asyncio.sleep(0)
        assert first.asked == ["create_topics"]
        first.refuse_next(1, "create_topics", ErrorCode.NOT_CONTROLLER)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not call.done()
        second = led.connect()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert second.asked == ["create_topics"]
        frame = encode_frame(Kind.RESPONSE, 1, "create_topics", m.CreateTopicsResponse().to_wire())
        second.on_frame(memoryview(frame)[4:])
        assert await call == m.CreateTopicsResponse()

    asyncio.run(main())


@pytest.mark.parametrize("may_be_repeated", [False, True])
def test_what_a_controller_may_have_done_is_repeated_only_where_that_does_no_harm(
    may_be_repeated: bool,
) -> None:
    """Its connection ended without an answer."""

    async def main() -> None:
        led = Led()
        first = led.connect()
        call = asyncio.create_task(
            led.channel.call("create_topics", CREATE, 20.0, retry_sent=may_be_repeated)
        )
        await asyncio.sleep(0)
        first.on_disconnected(None)
        second = led.connect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert second.asked == (["create_topics"] if may_be_repeated else [])
        if may_be_repeated:
            call.cancel()
        else:
            with pytest.raises(ControllerUnavailableError, match="broke during create_topics"):
                await call

    asyncio.run(main())
