"""Moves of replicas between real brokers, while a client writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import pegel
from pegel.testing import LocalCluster
from pegel.types import TopicPartition

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

PATIENCE = 40.0
ORDERS = TopicPartition("orders", 0)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=4) as cluster:
        yield cluster


async def until_settled(client: pegel.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE):
        while await client.admin.list_reassignments():
            await asyncio.sleep(0.02)


async def holders(client: pegel.AsyncClient) -> set[int]:
    directories = await client.admin.describe_log_dirs()
    return {d.node_id for d in directories for r in d.replicas if r.topic == "orders"}


async def write(client: pegel.AsyncClient, stop: asyncio.Event, wrote: list[int]) -> None:
    while not stop.is_set():
        values = [b"%d" % (len(wrote) + i) for i in range(20)]
        await client.send_many("orders", values, partition=0)
        wrote += range(len(wrote), len(wrote) + 20)


def test_a_partition_moves_off_its_leader_under_load_and_nothing_is_lost(
    cluster: LocalCluster,
) -> None:
    async def main() -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            admin = client.admin
            await admin.create_topic("orders", assignment={0: [1, 2, 3]})
            await client.send_many("orders", [b"0" * 1000] * 2000, partition=0)
            wrote: list[int] = []
            stop = asyncio.Event()
            writing = asyncio.create_task(write(client, stop, wrote))
            for target in ((4, 2, 3), (1, 4, 2), (3, 1, 4)):
                (result,) = await admin.alter_reassignments({ORDERS: target})
                assert result.error is None
                await until_settled(client)
                (found,) = (await admin.describe_topic("orders")).partitions
                assert found.replicas == target
                assert set(found.isr) == set(target)
            before = len(wrote)
            async with asyncio.timeout(PATIENCE):
                while len(wrote) == before:
                    await asyncio.sleep(0.01)
            stop.set()
            await writing
            read = []
            async with client.consumer("orders", offset_reset="earliest") as consumer:
                async with asyncio.timeout(PATIENCE):
                    async for batch in consumer.batches():
                        read += list(batch.values)
                        if len(read) >= 2000 + len(wrote):
                            break
            assert read[2000:] == [b"%d" % i for i in wrote]
            async with asyncio.timeout(PATIENCE):
                while await holders(client) != {1, 3, 4}:  # who left deletes its files
                    await asyncio.sleep(0.02)

    asyncio.run(main())


def test_refusals_name_what_would_be_possible(cluster: LocalCluster) -> None:
    async def main() -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            await client.admin.create_topic("refused", assignment={0: [1, 2]})
            partition = TopicPartition("refused", 0)
            alter = client.admin.alter_reassignments
            (unknown,) = await alter({partition: [1, 9]})
            assert "registered are 1, 2, 3, 4" in (unknown.error or "")
            (idle,) = await alter({partition: None})
            assert "no partition reassignment" in (idle.error or "").lower()
            (factor,) = await alter({partition: [1, 2, 3]}, allow_replication_change=False)
            assert "from 2 to 3" in (factor.error or "")
            (nowhere,) = await alter({TopicPartition("refused", 5): [1, 2]})
            assert "no partition" in (nowhere.error or "")

    asyncio.run(main())
