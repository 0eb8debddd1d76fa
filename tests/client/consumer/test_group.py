"""A consumer in a group: sharing, giving back, committing, and being thrown out."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Coroutine

import pytest

from pegel.client import AsyncClient
from pegel.config import ClientOptions
from pegel.consumer.consumer import Consumer
from pegel.consumer.group import GroupSession
from pegel.consumer.membership import Phase
from pegel.errors import CommitFailedError, GroupError, NoOffsetError, RequestTimeoutError
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.heartbeat import HeartbeatRequest
from pegel.protocol.messages.join_group import JoinGroupRequest
from pegel.protocol.messages.leave_group import LeaveGroupRequest
from pegel.protocol.messages.offset_commit import OffsetCommitRequest
from pegel.record import encode_batch
from pegel.types import CommittedOffset, TopicPartition
from tests.client.sync.served import served
from tests.support.fake_broker import FakeCluster, Fault

Body = Callable[[FakeCluster, AsyncClient], Coroutine[None, None, None]]
OPTIONS = ClientOptions(request_timeout=2.0, connect_timeout=2.0, topic_grace=0.05, stall=0.05)
T = [TopicPartition("t", i) for i in range(4)]


def run(
    body: Body, brokers: int = 1, partitions: int = 4, options: ClientOptions = OPTIONS
) -> None:
    async def main() -> None:
        async with FakeCluster(brokers) as cluster:
            cluster.add_topic("t", partitions=partitions)
            async with AsyncClient(
                cluster.bootstrap, options=options, rng=random.Random(3)
            ) as client:
                async with asyncio.timeout(20):
                    await body(cluster, client)
        await asyncio.sleep(0)
        assert not asyncio.all_tasks() - {asyncio.current_task()}

    asyncio.run(main())
    assert not [t for t in threading.enumerate() if t.name == "pegel-heartbeats"]


def fill(cluster: FakeCluster, count: int, batch: int = 10) -> None:
    """``count`` more records into every partition; the values name it and their offset."""
    for index, log in enumerate(cluster.topics["t"].partitions):
        for start in range(log.log_end_offset, log.log_end_offset + count, batch):
            log.append(
                encode_batch([b"%d:%d" % (index, start + i) for i in range(batch)], timestamps=1000)
            )


def member(client: AsyncClient, **options: object) -> Consumer:
    settings = {"group": "g", "offset_reset": "earliest", "heartbeat_interval": 0.02, **options}
    return client.consumer("t", **settings)  # type: ignore[arg-type]


async def drain(consumer: Consumer, into: list[bytes | None], count: int) -> None:
    while len(into) < count:
        batch = await consumer.next_batch(timeout=5)
        assert batch is not None, f"{len(into)} of {count}"
        into += batch.values


async def committed(cluster: FakeCluster, end: int, *partitions: TopicPartition) -> None:
    """Wait until the group has these offsets."""
    offsets = cluster.group("g").offsets
    while any(offsets.get(tp, (-1,))[0] != end for tp in partitions):
        await asyncio.sleep(0.005)


def test_reads_commits_and_goes_on_where_it_stopped() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 20)
        seen: list[bytes | None] = []
        async with member(client) as consumer:
            await drain(consumer, seen, 80)
            assert sorted(consumer.assignment) == T
            await consumer.next_batch(timeout=0.01)  # came back: the last batch is finished
            await committed(cluster, 20, *T)
            assert await consumer.committed() == dict.fromkeys(T, CommittedOffset(20, 0, ""))
        assert not cluster.group("g").members  # it left
        fill(cluster, 10)
        again: list[bytes | None] = []
        async with member(client) as consumer:
            await drain(consumer, again, 40)
        assert len(set(seen + again)) == 120

    run(body)


def test_a_batch_whose_body_failed_is_not_committed() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)

        async def work() -> None:
            async with member(client) as consumer:
                async for _ in consumer.batches():
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()
        assert not cluster.group("g").offsets
        async with member(client) as consumer:
            await consumer.next_batch()
        assert not cluster.group("g").offsets  # nobody came back for more

    run(body)


def test_record_by_record_commits_what_the_reader_got_to() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        async with member(client) as consumer:
            got = [await anext(consumer) for _ in range(13)]
            assert await consumer.position((got[-1].topic, got[-1].partition)) == 3
        # The record in hand is not known to be finished.
        assert sorted(o for o, _, _ in cluster.group("g").offsets.values()) == [2, 10]
        async with member(client) as consumer:
            rest = [await anext(consumer) for _ in range(28)]
        assert [r for r in rest if r in got] == got[-1:]
        assert len({r.value for r in got + rest}) == 40

    run(body)


def test_two_members_share_and_hand_over_without_a_gap() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 20)
        first: list[bytes | None] = []
        second: list[bytes | None] = []
        given_back: list[TopicPartition] = []
        async with member(client, on_revoked=given_back.extend) as one:
            await drain(one, first, 80)
            async with member(client) as two:
                reading = asyncio.create_task(drain(two, second, 20))
                while len(one.assignment) != 2:
                    await one.next_batch(timeout=0.02)
                assert sorted(given_back + one.assignment) == T
                fill(cluster, 10)
                await reading
                await drain(one, first, 100)
                await two.next_batch(timeout=0.01)  # came back: the last batch is finished
                assert sorted(one.assignment + two.assignment) == T
            while len(one.assignment) != 4:
                await one.next_batch(timeout=0.02)
            fill(cluster, 10)
            await drain(one, first, 140)
        assert len(first + second) == len(set(first + second)) == 160

    run(body)


@pytest.mark.parametrize("assignor", ["range", "roundrobin", "sticky"])
def test_eager_members_give_everything_back_before_they_join(assignor: str) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        events: list[tuple[str, int]] = []
        hooks = {
            "on_assigned": lambda ps: events.append(("+", len(ps))),
            "on_revoked": lambda ps: events.append(("-", len(ps))),
        }
        async with member(client, assignors=[assignor], **hooks) as one:
            await one.wait_for_assignment(5)
            async with member(client, assignors=[assignor]) as two:
                waiting = asyncio.create_task(two.wait_for_assignment(5))
                while len(one.assignment) != 2:
                    await one.next_batch(timeout=0.02)
                assert len(await waiting) == 2
        assert events[:3] == [("+", 4), ("-", 4), ("+", 2)]

    run(body)


def test_partitions_are_given_back_between_two_records() -> None:
    """In the midst of a large batch: a slow body must not hold up the whole group."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 1000, batch=1000)
        async with member(client) as one:
            seen = [await anext(one) for _ in range(5)]
            async with member(client) as two:
                waiting = asyncio.create_task(two.wait_for_assignment(5))
                while len(one.assignment) != 2:
                    seen.append(await anext(one))
                    await asyncio.sleep(0.001)
                await waiting
                other: list[bytes | None] = []
                while len(two.assignment) != 2:
                    await asyncio.sleep(0.005)
                await drain(two, other, 1)
                assert len(seen) < 1000
                mine = {r.value for r in seen}
                # What was given back goes on at the record at which it was stopped.
                assert not mine & set(other)

    run(body)


def test_heartbeats_go_on_while_the_loop_is_blocked() -> None:
    async def main(cluster: FakeCluster) -> None:
        async with (
            AsyncClient(cluster.bootstrap, options=OPTIONS) as client,
            member(client) as consumer,
        ):
            await consumer.wait_for_assignment(5)
            before = len(cluster.requests(HeartbeatRequest))
            deadline = time.monotonic() + 10
            while len(cluster.requests(HeartbeatRequest)) < before + 5:
                time.sleep(0.01)  # the loop is blocked, as by a long computation
                assert time.monotonic() < deadline, "no heartbeat while it is blocked"

    with served() as cluster:  # brokers on a loop of their own: this one will be blocked
        cluster.add_topic("t", partitions=4)
        asyncio.run(main(cluster))


def test_a_reader_that_does_not_come_back_leaves_the_group() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 20)
        lost: list[TopicPartition] = []
        async with member(client, max_poll_interval=0.1, on_lost=lost.extend) as consumer:
            await consumer.next_batch()
            while not cluster.requests(LeaveGroupRequest):
                await asyncio.sleep(0.01)
            await consumer.next_batch()
            assert sorted(lost) == T
            assert not cluster.group("g").offsets  # too late to commit the first batch
            assert len(await consumer.wait_for_assignment(5)) == 4

    run(body)


def test_a_commit_of_a_member_that_was_thrown_out_fails() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        async with member(client, commit="manual", heartbeat_interval=5.0) as consumer:
            await consumer.next_batch()
            await consumer.commit()
            assert list(cluster.group("g").offsets.values()) == [(10, 0, "")]
            cluster.group("g").expel(next(iter(cluster.group("g").members)))
            fill(cluster, 10)
            await consumer.next_batch()
            with pytest.raises(CommitFailedError, match="read again") as caught:
                await consumer.commit()
            assert caught.value.code is ErrorCode.UNKNOWN_MEMBER_ID
            assert not caught.value.retriable
            assert await consumer.wait_for_assignment(5) == T[:1]  # and it is a member again

    run(body, partitions=1)


def test_a_static_member_comes_back_to_its_partitions_and_fences_its_double() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with member(client, instance_id="one") as consumer:
            await consumer.wait_for_assignment(5)
        assert len(cluster.group("g").members) == 1  # closed, and still expected back
        old = member(client, instance_id="one")
        await old.wait_for_assignment(5)
        async with member(client, instance_id="one") as new:
            await new.wait_for_assignment(5)
            for _ in range(3):  # as often as one asks
                with pytest.raises(GroupError, match="took the place") as caught:
                    await old.next_batch(timeout=5)
            assert caught.value.code is ErrorCode.FENCED_INSTANCE_ID
            await old.close()

    run(body)


def test_commit_modes() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        seen: list[bytes | None] = []
        async with member(client, commit="manual") as consumer:
            await drain(consumer, seen, 40)
            await consumer.next_batch(timeout=0.01)
            await consumer.commit({("t", 2): 5, T[3]: CommittedOffset(6, 0, "note")})
        assert cluster.group("g").offsets == {T[2]: (5, -1, ""), T[3]: (6, 0, "note")}
        async with member(client, commit="none") as consumer:
            seen = []
            await drain(consumer, seen, 40)  # from the beginning: the group keeps no offsets
            with pytest.raises(ValueError, match="commit"):
                await consumer.commit()
        async with client.consumer("t") as consumer:
            with pytest.raises(ValueError, match="group"):
                await consumer.commit()
        assert cluster.group("g").offsets == {T[2]: (5, -1, ""), T[3]: (6, 0, "note")}

    run(body)


def test_a_hook_may_seek_and_its_error_reaches_the_reader() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        found: list[Consumer] = []

        async def seek(partitions: list[TopicPartition]) -> None:
            for tp in partitions:
                found[0].seek(tp, 7)

        found.append(member(client, on_assigned=seek))
        async with found[0] as consumer:
            seen: list[bytes | None] = []
            await drain(consumer, seen, 12)
            assert all(v is not None and int(v.split(b":")[1]) >= 7 for v in seen)

        def broken(partitions: list[TopicPartition]) -> None:
            raise ZeroDivisionError("in the hook")

        async with member(client, on_assigned=broken) as consumer:
            with pytest.raises(ZeroDivisionError, match="in the hook"):
                await consumer.next_batch()

    run(body)


def test_partitions_named_by_the_reader_keep_their_offsets_in_the_group() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        async with client.consumer(
            partitions=[("t", 1)], group="g", offset_reset="earliest"
        ) as consumer:
            assert await consumer.position(("t", 1)) == 0
            await consumer.next_batch()
            await consumer.next_batch(timeout=0.01)
        assert cluster.group("g").offsets == {T[1]: (10, 0, "")}
        assert not cluster.requests(JoinGroupRequest)
        fill(cluster, 10)
        async with client.consumer(partitions=[("t", 1)], group="g") as consumer:
            batch = await consumer.next_batch()
            assert batch is not None
            assert batch.offsets[0] == 10

    run(body)


def test_no_offset_and_no_reset_policy_is_an_error() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with member(client, offset_reset="none") as consumer:
            for _ in range(3):  # as often as one asks
                with pytest.raises(NoOffsetError, match="t-"):
                    await consumer.next_batch()

    run(body)


def test_the_coordinator_moves_hangs_and_dies() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        async with member(client) as consumer:
            seen: list[bytes | None] = []
            await drain(consumer, seen, 40)
            cluster.coordinator_id = 2  # with all it knows: replayed
            fill(cluster, 10)
            await drain(consumer, seen, 80)
            await consumer.next_batch(timeout=0.01)
            await committed(cluster, 20, *T)
            cluster.coordinator_id = 1
            cluster.brokers[2].stop()
            for log in cluster.topics["t"].partitions:
                log.leader = 1
                log.leader_epoch += 1
            fill(cluster, 10)
            await drain(consumer, seen, 120)
            await consumer.next_batch(timeout=0.01)
            await committed(cluster, 30, *T)
            assert len(set(seen)) == 120
            assert cluster.group("g").generation == 1  # nobody had to join again

    run(body, brokers=2)


def test_members_find_the_group_again_whatever_one_request_meets() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        later = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        cluster.script(ApiKey.FIND_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE, Fault.DROP)
        cluster.script(ApiKey.JOIN_GROUP, later, Fault.DROP, ErrorCode.NOT_COORDINATOR,
                       ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.UNKNOWN_MEMBER_ID)  # fmt: skip
        cluster.script(ApiKey.SYNC_GROUP, Fault.DROP_AFTER, ErrorCode.REBALANCE_IN_PROGRESS, later,
                       ErrorCode.ILLEGAL_GENERATION)  # fmt: skip
        cluster.script(ApiKey.OFFSET_FETCH, later, ErrorCode.UNSTABLE_OFFSET_COMMIT, Fault.DROP)
        cluster.script(ApiKey.HEARTBEAT, later, Fault.DROP, ErrorCode.ILLEGAL_GENERATION)
        cluster.script(ApiKey.OFFSET_COMMIT, later, Fault.DROP, ErrorCode.REBALANCE_IN_PROGRESS)
        seen: set[bytes | None] = set()
        async with member(client) as consumer:
            while len(seen) < 40 or len(cluster.group("g").offsets) < 4:
                batch = await consumer.next_batch(timeout=0.05)
                seen.update(batch.values if batch is not None else ())

    run(body)


def test_what_the_group_refuses_for_good_is_told() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.script(ApiKey.JOIN_GROUP, ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
        async with member(client) as consumer:
            with pytest.raises(GroupError, match=r"cooperative-sticky.*assignors="):
                await consumer.next_batch()
        cluster.script(ApiKey.FIND_COORDINATOR, *[ErrorCode.COORDINATOR_NOT_AVAILABLE] * 500)
        with pytest.raises(RequestTimeoutError):
            async with member(client) as consumer:
                await consumer.wait_for_assignment(0.2)

    run(body)


def test_a_topic_that_grows_is_shared_out_again() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        async with member(client) as consumer:
            assert len(await consumer.wait_for_assignment(5)) == 4
            await client.admin.grow_topic("t", 6)
            while len(consumer.assignment) != 6:
                await consumer.next_batch(timeout=0.05)

    run(body)


def test_each_batch_is_committed_but_never_more_than_one_commit_at_a_time() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 1000)
        async with member(client) as consumer:
            await drain(consumer, [], 4000)
            await consumer.next_batch(timeout=0.01)
            await committed(cluster, 1000, *T)
        commits = cluster.requests(OffsetCommitRequest)
        assert len(commits) <= 401
        for tp in T:
            offsets = [
                p.committed_offset
                for c in commits
                if isinstance(c, OffsetCommitRequest)
                for topic in c.topics
                for p in topic.partitions
                if p.partition_index == tp.partition
            ]
            assert offsets == sorted(offsets)

    run(body)


def test_a_commit_of_the_generation_before_is_made_again_in_the_next() -> None:
    """Cooperative members read on while they join. A commit that the coordinator gets when the
    others are ahead already is refused, and what it was about stayed uncommitted until the
    partition's next batch."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        async with member(client) as consumer:
            await drain(consumer, [], 40)
            await consumer.next_batch(timeout=0.01)
            await committed(cluster, 10, *T)
            session = consumer._group
            assert isinstance(session, GroupSession)
            cluster.script(ApiKey.JOIN_GROUP, *[ErrorCode.COORDINATOR_LOAD_IN_PROGRESS] * 30)
            cluster.script(ApiKey.OFFSET_COMMIT, ErrorCode.ILLEGAL_GENERATION)
            session.core.request_rejoin("a test wants it")
            session._woken()
            while session.core.phase is not Phase.JOIN:
                await asyncio.sleep(0)
            fill(cluster, 10)
            await drain(consumer, [], 40)
            assert session.core.phase is Phase.JOIN
            await consumer.next_batch(timeout=0.01)
            await committed(cluster, 20, *T)

    run(body)


@pytest.mark.parametrize("code", [ErrorCode.ILLEGAL_GENERATION, ErrorCode.REBALANCE_IN_PROGRESS])
def test_a_commit_of_ones_own_is_never_called_retriable(code: ErrorCode) -> None:
    """The partition may be another member's by then, and the same offsets would rewind it."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        async with member(client, commit="manual") as consumer:
            await consumer.next_batch()
            session = consumer._group
            assert isinstance(session, GroupSession)
            cluster.script(ApiKey.JOIN_GROUP, *[ErrorCode.COORDINATOR_LOAD_IN_PROGRESS] * 10)
            cluster.script(ApiKey.OFFSET_COMMIT, code)
            session.core.request_rejoin("a test wants it")
            session._woken()
            while session.core.phase is not Phase.JOIN:
                await asyncio.sleep(0)
            with pytest.raises(CommitFailedError) as caught:
                await consumer.commit()
            assert caught.value.code is code
            assert not caught.value.retriable

    run(body)
