"""A follower's watch between its requests: what is read, what wakes it, what it may not miss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.seams.beat import BEAT
from pegel_broker.replication import standing as standing_module
from pegel_broker.replication.fetch_session import FetchSession
from pegel_broker.replication.fetching import Reader
from pegel_broker.replication.results import FetchItem, FetchPlan, PartitionFetchResult
from pegel_broker.replication.standing import MAX_PER_FOLLOWER, Answered
from pegel_controller.metadata import records as r
from tests.support.replicas import TOPIC, TOPIC_ID, Replicas, turns

PARTITIONS = 50


def item(partition: int, offset: int = 0) -> FetchItem:
    return FetchItem(TOPIC, TOPIC_ID, partition, offset, 1 << 20, 0, -1, 0)


class Follower:
    """Broker 2, played by hand; ``reads`` are the partitions that the leader looked at."""

    def __init__(self, replicas: Replicas, reads: list[int], session_id: int = 7) -> None:
        self.replicas, self.reads = replicas, reads
        self.session = FetchSession(session_id, 1)

    def ask(
        self,
        *named: FetchItem,
        forgotten: Sequence[int] = (),
        max_wait_ms: int = 60_000,
        max_bytes: int = 1 << 20,
    ) -> Answered | asyncio.Future[Answered]:
        self.reads.clear()
        manager = self.replicas.members[1].manager
        plan = FetchPlan(named, max_wait_ms, 1, max_bytes, 2, self.replicas.members[2].epoch)
        keys = [(TOPIC, TOPIC_ID, number) for number in forgotten]
        return manager.standing.fetch(plan, self.session, named, keys, lambda found: found)

    def waits(self, *named: FetchItem, **more: Sequence[int]) -> asyncio.Future[Answered]:
        found = self.ask(*named, forgotten=more.get("forgotten", ()))
        assert isinstance(found, asyncio.Future)
        return found


def told(answered: Answered | asyncio.Future[Answered]) -> dict[int, PartitionFetchResult]:
    """Partition → result, of an answer that is there."""
    if isinstance(answered, asyncio.Future):
        assert answered.done()
        answered = answered.result()
    return {i.partition: result for i, result in zip(*answered, strict=True)}


@asynccontextmanager
async def leading(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Replicas, Follower]]:
    """Broker 1 leads ``PARTITIONS``; both followers are in the ISR, and gone."""
    reads: list[int] = []
    read = Reader.read

    def counted(self: Reader, number: int, asked: FetchItem) -> PartitionFetchResult:
        reads.append(asked.partition)
        return read(self, number, asked)

    async with Replicas() as replicas:
        replicas.create(1, 2, 3, partitions=PARTITIONS)
        replicas.tell(1)
        await replicas.kill(2)
        await replicas.kill(3)
        monkeypatch.setattr(Reader, "read", counted)
        yield replicas, Follower(replicas, reads)


def everything() -> list[FetchItem]:
    return [item(number) for number in range(PARTITIONS)]


def test_only_what_is_named_or_changed_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            waiting = follower.waits(*everything())
            assert sorted(follower.reads) == list(range(PARTITIONS))
            follower.reads.clear()
            await replicas.produce(1, b"a", acks=1, partition=7)
            answered = told(waiting)
            assert answered[7].size > 0
            assert set(answered) == set(range(PARTITIONS))  # all was news to the first request
            assert follower.reads == [7]
            waiting = follower.waits(item(7, 1))
            assert follower.reads == [7]
            follower.reads.clear()
            await replicas.produce(1, b"b", acks=1, partition=9)
            assert list(told(waiting)) == [7, 9]
            assert set(follower.reads) <= {7, 9}

    asyncio.run(main())


def test_a_record_between_two_requests_is_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            waiting = follower.waits(*everything())
            await replicas.produce(1, b"a", acks=1, partition=7)
            assert waiting.done()
            await replicas.produce(1, b"b", acks=1, partition=8)
            answered = told(follower.ask(item(7, 1)))
            assert answered[8].size > 0

    asyncio.run(main())


def test_what_did_not_fit_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            for number in (3, 4, 5):
                await replicas.produce(1, b"x" * 100, acks=1, partition=number)
            got: dict[int, int] = {}
            named: list[FetchItem] = everything()
            for _ in range(3):  # room for one batch at a time
                answered = told(follower.ask(*named, max_bytes=150))
                fresh = {n: r for n, r in answered.items() if r.size}
                assert len(fresh) == 1
                got |= {n: r.size for n, r in fresh.items()}
                named = [item(n, 1) for n in fresh]
            assert set(got) == {3, 4, 5}
            assert not follower.waits(*named).done()

    asyncio.run(main())


def test_a_new_high_watermark_is_told_when_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            waiting = follower.waits(*everything())
            await replicas.produce(1, b"a", acks=1, partition=7)
            assert waiting.done()
            # Broker 3 gets it too; that moves the high watermark once 2 asks for what follows.
            leader = replicas.members[1].hosted(7)
            leader.core.on_fetch(0.0, 3, replicas.members[3].epoch, 1, 0, 1)
            found = follower.ask(item(7, 1), max_wait_ms=0)
            assert leader.core.high_watermark == 1
            assert told(found)[7].high_watermark == 1

    asyncio.run(main())


def test_a_leader_that_is_replaced_tells_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            waiting = follower.waits(*everything())
            replicas.elect(2)
            replicas.tell(1)
            await turns()
            assert told(waiting)[0].error is ErrorCode.FENCED_LEADER_EPOCH
            # It stays an error, and is said again, until the follower leaves it out.
            assert told(follower.ask())[0].error is ErrorCode.FENCED_LEADER_EPOCH
            assert not follower.waits(forgotten=[0]).done()

    asyncio.run(main())


def test_what_is_forgotten_wakes_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            follower.waits(*everything())
            waiting = follower.waits(forgotten=[7])
            await replicas.produce(1, b"a", acks=1, partition=7)
            await turns()
            assert not waiting.done()
            assert not replicas.members[1].hosted(7).watchers
            # Named again it is read again.
            assert told(follower.ask(item(7)))[7].size > 0

    asyncio.run(main())


def test_a_full_round_finds_what_nobody_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            waiting = follower.waits(*everything())
            await replicas.produce(1, b"a", acks=1, partition=7)
            assert waiting.done()
            assert not follower.waits(item(7, 1)).done()
            replicas.members[1].hosted(9).log.log_start_offset = 0
            assert not set(follower.reads) - {7}
            monkeypatch.setattr(standing_module, "FULL_ROUND_SECONDS", 0.0)
            (watch,) = [w for w in replicas.members[1].hosted(9).watchers if w.waits_for_appends]
            assert isinstance(watch, standing_module.StandingFetch)
            watch._full_round_at = 0.0
            follower.waits()
            assert sorted(follower.reads) == list(range(PARTITIONS))

    asyncio.run(main())


def test_a_follower_that_reconnects_leaves_no_watches_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            waiting = [
                Follower(replicas, follower.reads, session_id).waits(*everything())
                for session_id in range(1, 3 * MAX_PER_FOLLOWER)
            ]
            assert len(replicas.members[1].hosted(0).watchers) == MAX_PER_FOLLOWER
            assert sum(w.done() for w in waiting) == len(waiting) - MAX_PER_FOLLOWER
            assert told(waiting[0]) == {}
            assert len(replicas.members[1].manager.purgatory) == MAX_PER_FOLLOWER

    asyncio.run(main())


def test_a_broker_that_is_removed_leaves_no_watches_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            waiting = follower.waits(*everything())
            one, epoch = replicas.members[1], replicas.members[2].epoch
            replicas.commit([r.BrokerFencedRecord(2, epoch)])
            replicas.tell(1)
            assert len(one.hosted(0).watchers) == 1
            replicas.commit([r.BrokerUnregisteredRecord(2, epoch)])
            replicas.tell(1)
            assert told(waiting) == {}
            assert not one.hosted(0).watchers
            assert not one.manager.standing.knows(2)
            assert not one.manager.standing._by_follower

    asyncio.run(main())


def test_a_connection_that_breaks_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            follower.waits(*everything()).cancel()
            await turns()
            assert len(replicas.members[1].manager.purgatory) == 0
            await replicas.produce(1, b"a", acks=1, partition=7)
            assert told(follower.ask())[7].size > 0

    asyncio.run(main())


def test_a_topic_made_again_is_watched_where_it_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            waiting = follower.waits(*everything())
            manager = replicas.members[1].manager
            before = manager.hosted(TOPIC, 7)
            assert before is not None
            manager._hosted.pop((TOPIC, 7))
            before.fail_waiting(ErrorCode.NOT_LEADER_OR_FOLLOWER)
            await turns()
            assert told(waiting)[7].error
            assert not before.watchers
            manager._hosted[TOPIC, 7] = before
            waiting = follower.waits()
            await replicas.produce(1, b"a", acks=1, partition=7)
            assert told(waiting)[7].size > 0

    asyncio.run(main())


def test_a_wait_is_long_only_after_an_answer_without_news(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How far the others have come wakes nobody, and is not to be told a minute late."""

    async def main() -> None:
        async with leading(monkeypatch) as (replicas, follower):
            clock = replicas.members[1].manager.clock

            def wait(*named: FetchItem) -> tuple[float, int]:
                """For how long a request waits, and what its answer holds when the time is up."""
                waiting = follower.waits(*named)
                (watch,) = replicas.members[1].hosted(0).watchers
                assert isinstance(watch, standing_module.StandingFetch)
                assert watch._wait is not None
                deadline = watch._wait.deadline
                watch.expire(watch._wait)
                return deadline - clock.monotonic(), len(told(waiting))

            short = standing_module.NEWS_WAIT_SECONDS
            seconds, held = wait(*everything())
            assert (seconds <= short, held) == (True, PARTITIONS)
            seconds, held = wait()
            assert (seconds <= short, held) == (True, 0)
            seconds, held = wait()
            assert (seconds > 60 - BEAT - short, held) == (True, 0)
            assert wait(item(7))[0] > short  # what it names itself is no news yet
            assert wait()[0] <= short

    asyncio.run(main())
