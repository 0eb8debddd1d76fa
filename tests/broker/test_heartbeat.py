"""A broker's session with the controller, which a script plays."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker.heartbeat import DISK_STALL_MAX
from pegel_controller.metadata import MetadataImage, encode_records
from pegel_controller.metadata import records as r
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.channel import ControllerUnavailableError
from pegel_controller.rpc.recovery_messages import LogEnd
from tests.support.broker_session import ME, TOPIC_ID, Session, run


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

    run(main)


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

    run(main)


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

    run(main)


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

    run(main)


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

    run(main)


def test_a_controller_that_hangs_is_left() -> None:
    async def main(s: Session) -> None:
        s.controller.heartbeats = [
            ControllerUnavailableError("no answer"), m.HeartbeatResponse(fenced=False),
        ]  # fmt: skip
        s.session.start()
        await s.until(s.session.unfenced.is_set)
        assert s.controller.drops == 1
        assert s.leases == []

    run(main)


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

    run(main)


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

    run(main)


def test_log_ends_that_are_wanted_are_told_and_the_next_heartbeat_comes_soon() -> None:
    """Partitions wait for a leader, and the controller may want more."""

    async def main(s: Session) -> None:
        wanted = ((TOPIC_ID, 0, 7), (TOPIC_ID, 1, 3))
        s.controller.heartbeats = [
            m.HeartbeatResponse(fenced=False, ends_wanted=wanted),
            m.HeartbeatResponse(fenced=False),
        ]
        s.ends = (LogEnd(TOPIC_ID, 1, 3, 2, 41),)
        s.session.start()
        await s.beats(2)  # the interval of this session is an hour
        assert s.wanted == [wanted]
        (told,) = s.controller.named("report_log_ends")
        assert (told.broker_id, told.broker_epoch, told.ends) == (1, 11, s.ends)

    run(main)


def test_where_no_log_stands_still_nothing_is_told_and_it_is_asked_again() -> None:
    async def main(s: Session) -> None:
        s.controller.heartbeats = [
            m.HeartbeatResponse(fenced=False, ends_wanted=((TOPIC_ID, 0, 7),))
        ]
        s.session.start()
        await s.beats(3)
        assert s.controller.named("report_log_ends") == []
        s.ends = (LogEnd(TOPIC_ID, 0, 7, 2, 41),)
        await s.until(lambda: len(s.controller.named("report_log_ends")) > 0)

    run(main)


def test_log_ends_that_were_not_heard_are_told_again() -> None:
    async def main(s: Session) -> None:
        s.controller.heartbeats = [
            m.HeartbeatResponse(fenced=False, ends_wanted=((TOPIC_ID, 0, 7),))
        ]
        s.ends = (LogEnd(TOPIC_ID, 0, 7, 2, 41),)
        s.controller.lost = [ControllerUnavailableError("cut off")]
        s.session.start()
        await s.until(lambda: len(s.controller.named("report_log_ends")) == 2)
        assert len(s.controller.named("register_broker")) == 1

    run(main)


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

    run(main)


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

    run(main)


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

    run(main)


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

    run(main, interval=0.001)


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

    run(main)


def test_a_broker_leaves_a_controller_that_hangs_before_it_has_registered() -> None:
    """It stayed with it for ever, and asked nobody else (seed 2779)."""

    async def main(s: Session) -> None:
        s.controller.hangs = True
        s.session.start()
        await s.beats(1)
        assert s.controller.drops == 1
        assert len(s.controller.named("register_broker")) == 2

    run(main)
