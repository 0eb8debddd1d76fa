"""A broker's session with the controller, which a script plays."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel_broker.heartbeat import DISK_STALL_MAX, HEARTBEAT_TIMEOUT, BrokerSession
from pegel_controller.metadata import MetadataDelta, MetadataImage, encode_records
from pegel_controller.metadata import records as r
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerUnavailableError

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
        world = World(self.clock, None, None, None, random.Random(1))  # type: ignore[arg-type]
        registration = m.RegisterBrokerRequest(1, ME, "localhost", 9092)
        self.session = BrokerSession(
            world, self.controller, registration, interval,  # type: ignore[arg-type]
            lambda delta, _image: self.changes.append(delta),
            self.leases.append, self._on_lost, self._on_hand_over, lambda: self.stalled,
            lambda: self.untold,
        )  # fmt: skip

    def _on_lost(self) -> None:
        self.lost += 1

    def _on_hand_over(self, partitions: tuple[m.HandOver, ...]) -> tuple[m.HandOver, ...]:
        self.asked.append(partitions)
        return self.resigned

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.001)

    async def beats(self, count: int) -> None:
        await self.until(lambda: len(self.controller.named("heartbeat")) >= count)


def _run(test: Callable[[Session], Coroutine[Any, Any, None]], interval: float = NEVER) -> None:
    async def body() -> None:
        session = Session(interval)
        await test(session)
        await session.session.close()

    asyncio.run(body())


def _entry(index: int, *records: r.Record) -> m.MetadataEntry:
    return m.MetadataEntry(index, 1, encode_records(records))


def _registered(incarnation: UUID = ME, epoch: int = 11) -> r.Record:
    return r.BrokerRegisteredRecord(1, epoch, incarnation, "localhost", 9092, None, "boot")


def test_it_registers_before_it_beats() -> None:
    async def main(s: Session) -> None:
        s.session.start()
        await s.beats(1)
        names = [name for name, _ in s.controller.calls if name != "metadata_fetch"]
        assert names[:2] == ["register_broker", "heartbeat"]
        assert s.controller.named("heartbeat")[0].broker_epoch == 11

    _run(main)


def test_a_lease_counts_from_the_sending() -> None:
    """Not from the answer: the controller may have counted for as long as that took."""

    async def main(s: Session) -> None:
        s.controller.takes = 0.25
        s.controller.heartbeats = [m.HeartbeatResponse(fenced=False, lease_ms=1_200)]
        s.session.start()
        await s.beats(1)
        await s.until(lambda: bool(s.leases))
        sent_at = 100.25  # after the registration, which took as long
        assert s.leases[0] == sent_at + 1.2

    _run(main)


def test_a_fenced_broker_is_eager_and_has_no_lease() -> None:
    async def main(s: Session) -> None:
        s.controller.heartbeats = [
            m.HeartbeatResponse(fenced=True), m.HeartbeatResponse(fenced=True),
            m.HeartbeatResponse(fenced=False, lease_ms=1_000),
        ]  # fmt: skip
        s.session.start()
        await s.until(s.session.unfenced.is_set)  # though the interval is an hour
        assert len(s.controller.named("heartbeat")) == 3
        assert len(s.leases) == 1
        assert s.lost == 2

    _run(main)


def test_a_fence_is_told_at_once_and_so_is_its_end() -> None:
    async def main(s: Session) -> None:
        good = m.HeartbeatResponse(fenced=False, lease_ms=1_000)
        s.controller.heartbeats = [good, m.HeartbeatResponse(fenced=True), good]
        s.session.start()
        await s.until(s.session.unfenced.is_set)
        assert s.lost == 0
        s.session.wake()
        await s.beats(3)
        await s.until(lambda: len(s.leases) == 2)
        assert s.lost == 1
        assert s.session.unfenced.is_set()

    _run(main)


def test_a_registration_that_is_gone_is_made_again() -> None:
    async def main(s: Session) -> None:
        for error in (ErrorCode.STALE_BROKER_EPOCH, ErrorCode.BROKER_ID_NOT_REGISTERED):
            s.controller.heartbeats = [
                m.HeartbeatResponse(error=error), m.HeartbeatResponse(fenced=False, lease_ms=1),
            ]  # fmt: skip
            before = len(s.controller.named("register_broker"))
            if not s.session._tasks:
                s.session.start()
                before += 1
            s.session.wake()
            await s.until(
                lambda want=before + 1: len(s.controller.named("register_broker")) == want
            )
            await s.until(s.session.unfenced.is_set)
            assert s.session.broker_epoch == s.controller.epoch
        assert s.lost >= 2
        assert not any(lease > s.clock.now + 1 for lease in s.leases)

    _run(main)


def test_a_controller_that_hangs_is_left() -> None:
    async def main(s: Session) -> None:
        s.controller.heartbeats = [
            ControllerUnavailableError("no answer"), m.HeartbeatResponse(fenced=False),
        ]  # fmt: skip
        s.session.start()
        await s.until(s.session.unfenced.is_set)
        assert s.controller.drops == 1
        assert s.leases == []

    _run(main)


def test_leaders_are_asked_away_before_the_end() -> None:
    async def main(s: Session) -> None:
        good = m.HeartbeatResponse(fenced=False, lease_ms=1_000)
        s.controller.heartbeats = [good]
        s.session.start()
        await s.until(s.session.unfenced.is_set)
        s.controller.heartbeats = [good, good, m.HeartbeatResponse(should_shut_down=True)]
        assert await s.session.shut_down(20)
        assert s.controller.named("heartbeat")[-1].wants_shutdown
        # And where nobody answers, it goes all the same.
        other = Session()
        other.session.start()
        assert not await other.session.shut_down(0.01)
        await other.session.close()

    _run(main)


def test_what_is_handed_over_is_said_until_it_is_heard() -> None:
    async def main(s: Session) -> None:
        partition = (TOPIC_ID, 0, 7)
        s.controller.heartbeats = [
            m.HeartbeatResponse(fenced=False, hand_over=(partition,)),
            m.HeartbeatResponse(fenced=False),
        ]  # fmt: skip
        s.resigned = (partition,)
        s.session.start()
        await s.until(lambda: len(s.controller.named("resign")) == 1)
        assert s.asked[0] == (partition,)
        s.session.wake()
        await s.until(lambda: len(s.controller.named("resign")) == 2)
        assert all(
            (x.broker_epoch, x.partitions) == (11, (partition,))
            for x in s.controller.named("resign")
        )

    _run(main)


def test_the_past_is_taken_as_a_whole_and_then_change_by_change() -> None:
    async def main(s: Session) -> None:
        s.session.start()
        topic = r.TopicRecord("t", TOPIC_ID)
        await s.controller.metadata.put(
            m.MetadataFetchResponse(entries=(_entry(1, _registered()),), commit_index=2)
        )
        await s.until(lambda: len(s.controller.named("metadata_fetch")) == 2)
        assert s.changes == []
        assert s.session.image.index == 0
        await s.controller.metadata.put(
            m.MetadataFetchResponse(entries=(_entry(2, topic),), commit_index=2)
        )
        await s.until(lambda: len(s.changes) == 1)
        assert s.session.image.index == 2
        assert list(s.changes[0].topics_changed) == [TOPIC_ID]
        again = _entry(2, topic)
        await s.controller.metadata.put(
            m.MetadataFetchResponse(
                entries=(again, _entry(3, r.TopicRemovedRecord(TOPIC_ID))), commit_index=3
            )
        )
        await s.until(lambda: len(s.changes) == 2)
        assert list(s.changes[1].topics_deleted) == [TOPIC_ID]
        assert [x.from_index for x in s.controller.named("metadata_fetch")] == [0, 1, 2, 3]

    _run(main)


def test_roles_of_an_earlier_life_are_not_taken() -> None:
    async def main(s: Session) -> None:
        s.session.start()
        earlier = _registered(UUID(int=77), 5)
        await s.controller.metadata.put(
            m.MetadataFetchResponse(entries=(_entry(1, earlier),), commit_index=1)
        )
        await s.until(lambda: len(s.controller.named("metadata_fetch")) == 2)
        assert s.changes == []
        assert s.session.image.index == 0, "applied is what the broker has taken"
        await s.controller.metadata.put(
            m.MetadataFetchResponse(entries=(_entry(2, _registered()),), commit_index=2)
        )
        await s.until(lambda: len(s.changes) == 1)
        assert s.changes[0].brokers_changed[1].new is not None

    _run(main)


def test_what_is_applied_is_told_with_each_heartbeat() -> None:
    async def main(s: Session) -> None:
        s.session.start()
        await s.controller.metadata.put(
            m.MetadataFetchResponse(entries=(_entry(4, _registered()),), commit_index=4)
        )
        await s.until(lambda: s.controller.named("heartbeat")[-1:] != [] and (
            s.controller.named("heartbeat")[-1].applied_index == 4
        ))  # fmt: skip
        assert isinstance(s.session.image, MetadataImage)

    _run(main)


@pytest.mark.parametrize("others", [True, False])
def test_a_broker_whose_disk_hangs_asks_to_be_fenced_where_others_can_lead(others: bool) -> None:
    async def main(s: Session) -> None:
        other = r.BrokerRegisteredRecord(2, 12, UUID(int=2), "localhost", 9093, None, "boot")
        records = [_registered(), r.BrokerUnfencedRecord(1, 11)]
        records += [other, r.BrokerUnfencedRecord(2, 12)] if others else []
        s.session.image = MetadataImage().apply(records, 1)
        s.session.start()

        async def asked() -> bool:
            """What the next heartbeats ask for, all of them sent from now on."""
            sent = len(s.controller.named("heartbeat"))
            await s.beats(sent + 3)
            return s.controller.named("heartbeat")[-1].wants_fence

        s.stalled = DISK_STALL_MAX - 0.1
        assert not await asked()
        s.stalled = DISK_STALL_MAX
        assert await asked() is others
        s.stalled = 0.0
        assert not await asked()

    _run(main, interval=0.001)


class HungDisk(Session):
    """Of an unfenced broker, with another that could lead; what it had lost at each wish."""

    def __init__(self, interval: float) -> None:
        super().__init__(interval)
        self.lost_when_asked: list[int] = []
        other = r.BrokerRegisteredRecord(2, 12, UUID(int=2), "localhost", 9093, None, "boot")
        records = [_registered(), r.BrokerUnfencedRecord(1, 11)]
        records += [other, r.BrokerUnfencedRecord(2, 12)]
        self.session.image = MetadataImage().apply(records, 1)
        self.controller.heartbeats = [m.HeartbeatResponse(fenced=False, lease_ms=1_200)]
        send = self.controller.call

        async def call(method: str, request: Wire, timeout: float, **more: object) -> Wire:
            if isinstance(request, m.HeartbeatRequest) and request.wants_fence:
                self.lost_when_asked.append(self.lost)
            return await send(method, request, timeout, **more)

        self.controller.call = call  # type: ignore[method-assign]

    async def asks(self, times: int) -> None:
        before = len(self.lost_when_asked)
        await self.until(lambda: len(self.lost_when_asked) >= before + times)


def test_writes_are_refused_before_a_fence_is_asked_for() -> None:
    """As for SIGTERM and for a hand-over: the controller elects others at once."""

    async def main() -> None:
        s = HungDisk(interval=0.001)
        s.session.start()
        await s.until(lambda: bool(s.leases) and not s.session.fenced)
        s.stalled = DISK_STALL_MAX
        await s.asks(3)
        assert s.lost_when_asked[0] == 1, "it holds its lease while another is elected"
        leases = len(s.leases)
        await s.asks(3)
        assert len(s.leases) == leases, "it takes a lease from an answer to its wish"
        await s.session.close()

    asyncio.run(main())


def test_a_fence_is_asked_for_until_it_is_heard_of() -> None:
    """Nobody answered: the wish may have been read, or may yet be, when the disk is well again."""

    async def main() -> None:
        s = HungDisk(interval=0.001)
        s.session.start()
        await s.until(lambda: bool(s.leases) and not s.session.fenced)
        s.controller.heartbeats = [ControllerUnavailableError("no answer")]
        s.stalled = DISK_STALL_MAX
        await s.asks(1)
        s.stalled = 0.0
        s.controller.heartbeats = [m.HeartbeatResponse(fenced=False, lease_ms=1_200)]
        leases = len(s.leases)
        await s.asks(3)
        assert len(s.leases) == leases
        s.controller.heartbeats = [
            m.HeartbeatResponse(fenced=True), m.HeartbeatResponse(fenced=False, lease_ms=1_200),
        ]  # fmt: skip
        await s.until(lambda: len(s.leases) > leases)
        assert not s.controller.named("heartbeat")[-1].wants_fence
        await s.session.close()

    asyncio.run(main())


def test_a_broker_with_something_to_tell_is_not_elected_before_it_is_told() -> None:
    """It stays fenced until the controller knows which of its logs are damaged (seed 180)."""

    async def main(s: Session) -> None:
        s.untold = True
        s.controller.heartbeats = [m.HeartbeatResponse(fenced=True)]
        s.session.start()
        await s.beats(1)
        assert s.controller.named("heartbeat")[0].wants_fence
        s.untold = False
        s.controller.heartbeats = [m.HeartbeatResponse(fenced=False)]
        s.session.wake()
        await s.beats(2)
        assert not s.controller.named("heartbeat")[-1].wants_fence
        s.untold = True  # a log that fails while others lead by this broker fences nobody
        s.session.wake()
        await s.beats(3)
        assert not s.controller.named("heartbeat")[-1].wants_fence

    _run(main)


def test_a_broker_leaves_a_controller_that_hangs_before_it_has_registered() -> None:
    """It stayed with it for ever, and asked nobody else (seed 2779)."""

    async def main(s: Session) -> None:
        s.controller.hangs = True
        s.session.start()
        await s.beats(1)
        assert s.controller.drops == 1
        assert len(s.controller.named("register_broker")) == 2

    _run(main)
