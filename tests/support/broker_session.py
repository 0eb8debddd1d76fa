"""A broker's session with the controller, which a script plays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

from pegel.seams import World
from pegel_broker.heartbeat import HEARTBEAT_TIMEOUT, BrokerSession
from pegel_controller.metadata import MetadataDelta
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerUnavailableError
from pegel_controller.rpc.recovery_messages import LogEnd, ReportLogEndsResponse, Wanted

ME = UUID(int=1)
TOPIC_ID = UUID(int=9)
NEVER = 3_600.0


class HandClock:
    """Monotonic time that only the script moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)


class Controller:
    """A channel whose answers the test gives: ``heartbeats`` in order, the last one for ever."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.calls: list[tuple[str, Any]] = []
        self.heartbeats: list[m.HeartbeatResponse | Exception] = [m.HeartbeatResponse()]
        self.metadata: asyncio.Queue[m.MetadataFetchResponse] = asyncio.Queue()
        self.takes = 0.0  # how long an answer is under way
        self.epoch = 10
        self.drops = 0
        self.hangs = False
        self.lost: list[Exception] = []  # what becomes of reports of log ends

    def named(self, method: str) -> list[Any]:
        return [request for name, request in self.calls if name == method]

    async def call(self, method: str, request: Wire, timeout: float, **_: object) -> Wire:
        self.calls.append((method, request))
        if method == "metadata_fetch":
            return await self.metadata.get()
        await asyncio.sleep(0)
        self.clock.now += self.takes
        if method == "register_broker":
            if self.hangs:
                raise ControllerUnavailableError("no answer")
            self.epoch += 1
            return m.RegisterBrokerResponse(broker_epoch=self.epoch)
        if method == "resign":
            return m.ResignResponse()
        if method == "report_log_ends":
            if self.lost:
                raise self.lost.pop()
            return ReportLogEndsResponse()
        assert method == "heartbeat"
        assert timeout == HEARTBEAT_TIMEOUT
        answer = self.heartbeats.pop(0) if len(self.heartbeats) > 1 else self.heartbeats[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def drop(self) -> None:
        self.drops += 1
        self.hangs = False  # the next connection leads to another


class Session:
    """The session under test and what it told its broker."""

    def __init__(self, interval: float = NEVER) -> None:
        self.clock = HandClock()
        self.controller = Controller(self.clock)
        self.leases: list[float] = []
        self.lost = 0
        self.changes: list[MetadataDelta] = []
        self.asked: list[tuple[m.HandOver, ...]] = []
        self.resigned: tuple[m.HandOver, ...] = ()
        self.stalled = 0.0
        self.untold = False
        self.wanted: list[tuple[Wanted, ...]] = []
        self.ends: tuple[LogEnd, ...] = ()
        world = World(self.clock, None, None, None, random.Random(1))  # type: ignore[arg-type]
        registration = m.RegisterBrokerRequest(1, ME, "localhost", 9092)
        self.session = BrokerSession(
            world, self.controller, registration, interval,  # type: ignore[arg-type]
            lambda delta, _image: self.changes.append(delta),
            self.leases.append, self._on_lost, self._on_hand_over, lambda: self.stalled,
            lambda: self.untold, log_ends=self._log_ends,
        )  # fmt: skip

    def _on_lost(self) -> None:
        self.lost += 1

    def _on_hand_over(self, partitions: tuple[m.HandOver, ...]) -> tuple[m.HandOver, ...]:
        self.asked.append(partitions)
        return self.resigned

    def _log_ends(self, wanted: tuple[Wanted, ...]) -> tuple[LogEnd, ...]:
        self.wanted.append(wanted)
        return self.ends

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    async def beats(self, count: int) -> None:
        await self.until(lambda: len(self.controller.named("heartbeat")) >= count)


def run(test: Callable[[Session], Coroutine[Any, Any, None]], interval: float = NEVER) -> None:
    async def body() -> None:
        session = Session(interval)
        await test(session)
        await session.session.close()

    asyncio.run(body())
