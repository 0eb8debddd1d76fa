"""One input, one frame: what a guided fuzzer plays to a target, and examples to begin with."""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import Iterator

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.messages import decode as decode_raft
from tests.fuzz import frames
from tests.fuzz.campaign import Errors, FuzzError
from tests.fuzz.targets import (
    TARGETS,
    BrokerTarget,
    ClientTarget,
    ControllerTarget,
    HttpTarget,
)

CHECK_EVERY = 500
INPUTS_OF_A_CONNECTION = 20
_GREETINGS = ("", "broker", "controller")


class Player:
    """Plays inputs to one target, and makes it anew after ``inputs_of_a_life``."""

    def __init__(self, name: str, inputs_of_a_life: int) -> None:
        self.name = name
        self.inputs_of_a_life = inputs_of_a_life
        self.played = 0
        self.errors = Errors()
        self.unhandled: list[str] = []
        logger = logging.getLogger("pegel")
        logger.addHandler(self.errors)
        logger.propagate = False

    def close(self) -> None:
        logger = logging.getLogger("pegel")
        logger.removeHandler(self.errors)
        logger.propagate = True

    async def start(self) -> None:
        self.target = TARGETS[self.name]()
        await self.target.start(random.Random(0))
        await self.target.connect()
        asyncio.get_running_loop().set_exception_handler(
            lambda _loop, context: self.unhandled.append(repr(context))
        )

    async def play(self, data: bytes) -> None:
        """Raises FuzzError where the target hides an error, AssertionError where it serves none."""
        self.played += 1
        if self.played % self.inputs_of_a_life == 0:
            await self.target.stop()
            await self.start()
        if self.played % INPUTS_OF_A_CONNECTION == 0 or self.target.closed:
            await self.target.connect()
        self._feed(data)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if self.played % CHECK_EVERY == 0:
            await self.target.check()
        if self.errors.seen or self.unhandled:
            raise FuzzError(f"{self.errors.seen[:3]}; {self.unhandled[:3]}")

    def _feed(self, data: bytes) -> None:
        target = self.target
        if isinstance(target, BrokerTarget):
            target.feed(frames.framed(data))
        elif isinstance(target, ControllerTarget):
            self._feed_controller(target, data)
        elif isinstance(target, ClientTarget):
            if data[:1] == b"B":
                target.feed(data)
            elif len(data) >= 5 and struct.unpack_from(">hh", data, 1) in target.known:
                target.feed(b"R" + data[1:])
        else:
            target.feed(data)

    def _feed_controller(self, target: ControllerTarget, data: bytes) -> None:
        """The first byte says who sends it."""
        greeting = _GREETINGS[data[0] % 3] if data else ""
        if greeting == "controller" and _is_of_a_term_to_come(data[1:]):
            return  # a peer that speaks Raft and lies can take a quorum's place
        if greeting != target.greeted or target.closed:
            target.begin(greeting, 1 if greeting == "controller" else 2)
        target.feed(frames.framed(data[1:]))

    def examples(self, r: random.Random) -> Iterator[bytes]:
        """Valid inputs of each kind."""
        target = self.target
        if isinstance(target, BrokerTarget):
            yield from target.valid
        elif isinstance(target, ControllerTarget):
            yield from (b"\1" + body for body in target.valid)
            yield from (b"\2" + push for push in target.pushes)
            yield from (b"\0" + frames.hostile_msgpack(r) for _ in range(8))
            for number, greeting in enumerate(_GREETINGS[1:], 1):
                yield b"\0" + frames.hello(greeting, number)[4:]
        elif isinstance(target, ClientTarget):
            for key, version, body in target.responses:
                yield struct.pack(">chh", b"R", key, version) + body[4:]
            yield from (b"B" + batch for batch in target.batches)
        else:
            assert isinstance(target, HttpTarget)
            yield from (frames.http_request(r) for _ in range(50))


def _is_of_a_term_to_come(frame: bytes) -> bool:
    at = frame.find(b"raft")
    if at < 0:
        return False
    for start in range(at + 4, min(at + 12, len(frame))):
        try:
            if decode_raft(frame[start:]).term > 0:
                return True
        except (RaftError, ValueError):
            continue
    return False
