"""What counts as finished, in each way to read and to stop: nothing is skipped that was not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from pegel.client import AsyncClient
from pegel.consumer.consumer import Consumer
from pegel.sync.client import Client
from pegel.types import ConsumerBatch, ConsumerRecord
from tests.client.consumer.test_group import T, drain, fill, member, run
from tests.client.sync.served import served
from tests.support.fake_broker import FakeCluster


class Broken(Exception):
    """What the body of a loop raises."""


Read = Callable[[Consumer], AsyncIterator[ConsumerRecord | ConsumerBatch]]


def by_batch(consumer: Consumer) -> AsyncIterator[ConsumerBatch]:
    return consumer.batches()


def by_record(consumer: Consumer) -> AsyncIterator[ConsumerRecord]:
    return aiter(consumer)


def first(item: ConsumerRecord | ConsumerBatch) -> int:
    return item.offset if isinstance(item, ConsumerRecord) else item.offsets[0]


async def leave(consumer: Consumer, read: Read, after: int) -> int:
    """Leave a loop by an error in its turn ``after``; the offset of what it had in hand then."""
    offsets: list[int] = []
    try:
        async for item in read(consumer):
            offsets.append(first(item))
            if len(offsets) == after:
                raise Broken
    except Broken:
        pass
    return offsets[-1]


@pytest.mark.parametrize(("read", "turns", "in_hand"), [(by_batch, 3, 20), (by_record, 15, 14)])
def test_what_a_loop_had_in_hand_is_neither_committed_nor_skipped(
    read: Read, turns: int, in_hand: int
) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 50)
        async with member(client) as consumer:
            assert await leave(consumer, read, turns) == in_hand
            assert await consumer.position(T[0]) > in_hand  # a commit now would be of all
        # The error stayed inside: the consumer was left without one.
        assert cluster.group("g").offsets[T[0]][0] == in_hand
        async with member(client) as consumer:
            for _ in range(3):  # each loop anew, and the next owner
                assert await leave(consumer, read, 1) == in_hand
        assert cluster.group("g").offsets[T[0]][0] == in_hand
        async with member(client) as consumer:
            assert await leave(consumer, read, 1) == in_hand
            batch = await consumer.next_batch()
            assert batch is not None
            assert batch.offsets[0] == in_hand
            seen = list(batch.values)
            await drain(consumer, seen, 50 - in_hand)
            assert seen == [b"0:%d" % i for i in range(in_hand, 50)]
            await consumer.next_batch(timeout=0.01)
        assert cluster.group("g").offsets[T[0]][0] == 50

    run(body, partitions=1)


@pytest.mark.parametrize("read", [by_batch, by_record])
def test_a_consumer_without_a_group_begins_a_new_loop_with_it_too(read: Read) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 20)
        async with client.consumer("t", offset_reset="earliest") as consumer:
            assert await leave(consumer, read, 2) == await leave(consumer, read, 1)
            consumer.seek(T[0], 15)  # whoever seeks says where to go on
            assert await leave(consumer, read, 1) == 15

    run(body, partitions=1)


@pytest.mark.parametrize("mode", ["batch", "manual"])
@pytest.mark.parametrize(("read", "turns", "done"), [(by_batch, 2, 20), (by_record, 5, 5)])
def test_a_commit_finishes_what_is_in_hand(mode: str, read: Read, turns: int, done: int) -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 50)
        left = turns
        async with member(client, commit=mode) as consumer:
            async for _ in read(consumer):
                left -= 1
                if not left:
                    await consumer.commit()
                    break
            assert cluster.group("g").offsets[T[0]][0] == done
            assert await leave(consumer, read, 1) == done
        assert cluster.group("g").offsets[T[0]][0] == done

    run(body, partitions=1)


def test_a_commit_by_hand_is_not_followed_by_an_older_one() -> None:
    """The commit of the batch before, still on its way or tried again, must not undo it."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 30)
        async with member(client) as consumer:
            for batch in range(3):
                await consumer.next_batch()
                await consumer.commit({T[0]: 10 * batch + 5})
                assert cluster.group("g").offsets[T[0]][0] == 10 * batch + 5
                await asyncio.sleep(0.02)
                assert cluster.group("g").offsets[T[0]][0] == 10 * batch + 5

    run(body, partitions=1)


def test_by_hand_the_next_call_finishes_what_the_one_before_returned() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 30)
        async with member(client) as consumer:
            assert [(await anext(consumer)).offset for _ in range(3)] == [0, 1, 2]
            batch = await consumer.next_batch()  # what is left of the batch, not the one behind it
            assert batch is not None
            assert list(batch.offsets) == list(range(3, 10))
            assert await leave(consumer, by_record, 1) == 10
        assert cluster.group("g").offsets[T[0]][0] == 10

    run(body, partitions=1)


def test_what_comes_again_waits_for_a_reader_with_patience() -> None:
    """A call that is given up loses nothing of it."""

    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        fill(cluster, 10)
        async with member(client) as consumer:
            await leave(consumer, by_record, 4)
            task = asyncio.create_task(consumer.next_batch())
            task.cancel()
            await asyncio.wait([task])
            assert await consumer.position(T[0]) in {3, 4}
            assert await leave(consumer, by_record, 1) == 3

    run(body, partitions=1)


def test_synchronous_loops_too() -> None:
    with served() as cluster, Client(cluster.bootstrap) as client:
        client.create_topic("t")
        for start in range(0, 30, 10):
            client.send_many("t", [b"%d" % i for i in range(start, start + 10)])
        settings = {"group": "g", "offset_reset": "earliest"}
        begin = 0
        with client.consumer("t", **settings) as consumer:  # type: ignore[arg-type]
            for _ in range(2):
                offsets: list[int] = []
                for record in consumer:
                    offsets.append(record.offset)
                    if len(offsets) == 15:
                        break
                assert offsets == list(range(begin, begin + 15))
                begin = offsets[-1]
        assert client.admin.group_offsets("g")[T[0]].offset == begin == 28
        with client.consumer("t", **settings) as consumer:  # type: ignore[arg-type]
            for _ in range(2):
                for batch in consumer.batches():
                    assert batch.offsets[0] == 28
                    break
            batch_again = consumer.next_batch(timeout=5)
            assert batch_again is not None
            assert list(batch_again.offsets) == [28, 29]
            assert consumer.next_batch(timeout=0.05) is None
        assert client.admin.group_offsets("g")[T[0]].offset == 30
