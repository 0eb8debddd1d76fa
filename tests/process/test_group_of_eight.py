"""Eight members of our own client, and the broker that coordinates them is killed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator

import pytest

from pegel import AsyncClient, CommittedOffset, TopicPartition
from pegel.consumer.consumer import Consumer
from pegel.testing import LocalCluster

pytestmark = [pytest.mark.process, pytest.mark.timeout(110)]
MEMBERS = PARTITIONS = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    settings = {"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "4"}
    with LocalCluster(brokers=3, settings=settings) as cluster:
        yield cluster


class Reading:
    """What all members read, and what each had committed before."""

    def __init__(self) -> None:
        self.read: dict[TopicPartition, list[int]] = {}
        self.committed: dict[TopicPartition, int] = {}
        self.stop = False

    async def member(self, consumer: Consumer) -> None:
        async with consumer:
            while not self.stop:
                batch = await consumer.next_batch(timeout=0.1)
                if batch is None:
                    continue
                tp = TopicPartition(batch.topic, batch.partition)
                assert batch.offsets[0] >= self.committed.get(tp, 0), "read again though committed"
                self.read.setdefault(tp, []).extend(batch.offsets)
                await consumer.commit({tp: batch.offsets[-1] + 1})
                self.committed[tp] = batch.offsets[-1] + 1

    def count(self) -> int:
        return sum(len(set(offsets)) for offsets in self.read.values())


def test_the_coordinator_is_killed_while_eight_consume(cluster: LocalCluster) -> None:
    async def main() -> None:
        name = f"eight-{uuid.uuid4().hex[:10]}"
        async with AsyncClient(cluster.bootstrap) as client:
            await client.create_topic(name, partitions=PARTITIONS, replication=3)
            reading = Reading()
            tasks = [
                asyncio.create_task(reading.member(client.consumer(
                    name, group=name, offset_reset="earliest", commit="manual",
                    heartbeat_interval=0.2, max_wait=0.1,
                )))
                for _ in range(MEMBERS)
            ]  # fmt: skip

            async def feed(count: int) -> None:
                for partition in range(PARTITIONS):
                    await client.send_many(name, [b"x"] * count, partition=partition)

            async def until(count: int) -> None:
                while reading.count() < count:
                    for task in tasks:
                        if task.done():
                            task.result()
                    await asyncio.sleep(0.02)

            await feed(200)
            await until(200 * PARTITIONS)
            coordinator = (await client.admin.describe_group(name)).coordinator
            before = await client.admin.group_offsets(name)
            assert before
            feeding = asyncio.create_task(feed(300))
            cluster.kill(coordinator)
            try:
                await feeding
                await until(500 * PARTITIONS)
                group = await client.admin.describe_group(name)
                assert group.coordinator != coordinator
                assert len(group.members) == MEMBERS
                after = await client.admin.group_offsets(name)
                assert all(after[tp].offset >= o.offset for tp, o in before.items())
            finally:
                cluster.restart(coordinator)
            reading.stop = True
            await asyncio.gather(*tasks)
            assert {tp: sorted(set(o)) for tp, o in reading.read.items()} == {
                TopicPartition(name, i): list(range(500)) for i in range(PARTITIONS)
            }
            final = await client.admin.group_offsets(name)
            assert {tp: CommittedOffset(o.offset) for tp, o in final.items()} == {
                TopicPartition(name, i): CommittedOffset(500) for i in range(PARTITIONS)
            }

    asyncio.run(main())
