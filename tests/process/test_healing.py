"""A broker that is gone for good: real processes, a client that writes all the time."""

from __future__ import annotations

import asyncio

import pytest

import pegel
from pegel.testing import LocalCluster
from pegel.types import TopicPartition
from tests.process.load import Load

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

PATIENCE = 60.0
PARTITIONS = 10


async def replicas(client: pegel.AsyncClient, topic: str) -> list[tuple[int, ...]]:
    return [p.replicas for p in (await client.admin.describe_topic(topic)).partitions]


async def until_full_strength(client: pegel.AsyncClient, topic: str, without: int) -> None:
    """Every partition has three replicas in sync, none of them on ``without``."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = (await client.admin.describe_topic(topic)).partitions
            if all(len(p.isr) == 3 == len(p.replicas) and without not in p.isr for p in found):
                return
            await asyncio.sleep(0.1)


def test_what_a_lost_broker_held_is_rebuilt_under_load_and_nothing_is_lost() -> None:
    settings = {"replica.replacement.timeout.ms": "1500"}

    async def main(cluster: LocalCluster) -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            await client.admin.create_topic(
                "t", partitions=PARTITIONS, replication=3, config={"min.insync.replicas": 2}
            )
            for number in range(PARTITIONS):
                await client.send_many("t", [b"0" * 1000] * 300, partition=number)
            async with Load(client, "t", PARTITIONS) as load:
                await load.acknowledged(1_000)
                lost = cluster.leader_of("t", 0)
                cluster.kill(lost)
                await until_full_strength(client, "t", without=lost)
                await load.acknowledged(1_000)
            placed = await replicas(client, "t")
            held = [sum(b in r for r in placed) for b in cluster.nodes if b != lost]
            assert max(held) - min(held) <= 1, placed
            assert await load.missing(skip=300) == []
            # It comes back much too late: what it holds is of no use any more, and goes.
            cluster.restart(lost)
            async with asyncio.timeout(PATIENCE):
                while await holders(client) & {lost}:
                    await asyncio.sleep(0.05)
            assert await replicas(client, "t") == placed

    with LocalCluster(brokers=5, settings=settings) as cluster:
        asyncio.run(main(cluster))


async def holders(client: pegel.AsyncClient) -> set[int]:
    directories = await client.admin.describe_log_dirs()
    return {d.node_id for d in directories for r in d.replicas if r.topic == "t"}


def test_a_broker_that_comes_back_in_time_moves_nothing() -> None:
    async def main(cluster: LocalCluster) -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            await client.admin.create_topic("t", partitions=4, replication=3)
            before = await replicas(client, "t")
            lost = cluster.leader_of("t", 0)
            cluster.kill(lost)
            await client.send("t", b"meanwhile", partition=0)
            cluster.restart(lost)
            async with asyncio.timeout(PATIENCE):
                while any(
                    len(p.isr) < 3 for p in (await client.admin.describe_topic("t")).partitions
                ):
                    await asyncio.sleep(0.05)
            assert await replicas(client, "t") == before
            assert await client.admin.list_reassignments() == []
            partition = TopicPartition("t", 0)
            (result,) = await client.admin.alter_reassignments({partition: None})
            assert result.error is not None, "nothing was begun"

    with LocalCluster(brokers=4, settings={"replica.replacement.timeout.ms": "600000"}) as cluster:
        asyncio.run(main(cluster))
