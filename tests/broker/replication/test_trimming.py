"""DeleteRecords (KIP-107): on the leader at once, answered when every live replica has done it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.results import TrimResult
from pegel_controller.metadata import records as r
from tests.support.replicas import TOPIC, TOPIC_ID, Replicas, turns, until


def _trim(
    replicas: Replicas, node_id: int, offset: int, timeout_ms: int = 10_000
) -> asyncio.Future[TrimResult]:
    result = replicas.members[node_id].manager.delete_records(TOPIC, 0, offset, timeout_ms)
    if isinstance(result, asyncio.Future):
        return result
    done: asyncio.Future[TrimResult] = asyncio.get_running_loop().create_future()
    done.set_result(result)
    return done


async def _with_ten_records(replicas: Replicas, **config: object) -> None:
    replicas.create(1, 2, 3, **config)
    replicas.tell()
    for n in range(10):
        assert not (await replicas.produce(1, b"%d" % n)).error


def test_every_replica_deletes_before_it_is_answered() -> None:
    async def main() -> None:
        async with Replicas() as replicas:
            await _with_ten_records(replicas)
            assert await _trim(replicas, 1, 4) == TrimResult(ErrorCode.NONE, 4)
            assert [m.log.log_start_offset for m in replicas.members.values()] == [4, 4, 4]
            assert await _trim(replicas, 1, -1) == TrimResult(ErrorCode.NONE, 10)
            # Again, and less than that: nothing to do.
            assert await _trim(replicas, 1, 3) == TrimResult(ErrorCode.NONE, 10)

    asyncio.run(main())


def test_followers_are_told_at_once() -> None:
    async def main() -> None:
        async with Replicas() as replicas:
            for member in replicas.members.values():
                # Longer than the test may take: only a fetch that is answered early will do.
                member.manager.options = replace(member.manager.options, fetch_wait_max_ms=60_000)
            await _with_ten_records(replicas)
            assert await _trim(replicas, 1, 4) == TrimResult(ErrorCode.NONE, 4)

    asyncio.run(main())


def test_a_follower_that_hangs_times_out_and_a_dead_one_is_not_waited_for() -> None:
    async def main() -> None:
        async with Replicas() as replicas:
            await _with_ten_records(replicas)
            await replicas.kill(3)
            assert (await _trim(replicas, 1, 4, timeout_ms=10)).error is ErrorCode.REQUEST_TIMED_OUT
            waiting = _trim(replicas, 1, 5)
            await turns()
            assert not waiting.done()
            replicas.commit([r.BrokerFencedRecord(3, replicas.members[3].epoch, "killed")])
            replicas.tell(1)
            assert await waiting == TrimResult(ErrorCode.NONE, 5)
            # It is back, and takes the leader's start before it is in sync.
            await replicas.restart(3)
            replicas.tell()
            await until(lambda: replicas.members[3].log.log_start_offset == 5)

    asyncio.run(main())


def test_a_leader_that_is_replaced_answers_who_waits() -> None:
    async def main() -> None:
        async with Replicas() as replicas:
            await _with_ten_records(replicas)
            await replicas.kill(3)
            waiting = _trim(replicas, 1, 5)
            replicas.elect(2)
            replicas.tell(1, 2)
            assert (await waiting).error is ErrorCode.NOT_LEADER_OR_FOLLOWER

    asyncio.run(main())


@pytest.mark.parametrize(
    ("node_id", "offset", "config", "error"),
    [
        (1, 11, {}, ErrorCode.OFFSET_OUT_OF_RANGE),
        (1, -2, {}, ErrorCode.OFFSET_OUT_OF_RANGE),
        (2, 4, {}, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (1, 4, {"cleanup_policy": "compact"}, ErrorCode.POLICY_VIOLATION),
    ],
)
def test_refused(node_id: int, offset: int, config: dict[str, str], error: ErrorCode) -> None:
    async def main() -> None:
        async with Replicas() as replicas:
            await _with_ten_records(replicas)
            replicas.configure(**config)
            replicas.tell()
            assert (await _trim(replicas, node_id, offset)).error is error
            assert replicas.members[1].log.log_start_offset == 0

    asyncio.run(main())


def test_records_of_internal_topics_are_not_deleted() -> None:
    async def main() -> None:
        async with Replicas(1) as replicas:
            name = "__consumer_offsets"
            topic = r.TopicRecord(name, TOPIC_ID)
            replicas.commit([topic, r.PartitionRecord(TOPIC_ID, 0, (1,), (1,), 1)])
            replicas.tell()
            manager = replicas.members[1].manager
            refused = manager.delete_records(name, 0, 0, 0)
            assert refused == TrimResult(ErrorCode.INVALID_TOPIC_EXCEPTION)
            unknown = manager.delete_records("nobody's", 0, 0, 0)
            assert unknown == TrimResult(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)

    asyncio.run(main())


def test_a_leader_without_a_lease_deletes_nothing() -> None:
    async def main() -> None:
        async with Replicas() as replicas:
            await _with_ten_records(replicas)
            replicas.members[1].manager.resign()
            assert (await _trim(replicas, 1, 4)).error is ErrorCode.NOT_LEADER_OR_FOLLOWER

    asyncio.run(main())


def test_the_low_watermark_is_that_of_the_slowest_live_replica() -> None:
    async def main() -> None:
        async with Replicas() as replicas:
            await _with_ten_records(replicas)
            hosted = replicas.members[1].hosted()
            assert await _trim(replicas, 1, 6) == TrimResult(ErrorCode.NONE, 6)
            state = hosted.core.state
            state.followers[2] = replace(state.followers[2], log_start_offset=2)
            assert await _trim(replicas, 1, 1) == TrimResult(ErrorCode.NONE, 2)

    asyncio.run(main())
