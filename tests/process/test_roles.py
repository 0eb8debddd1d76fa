"""Arbiters that only vote, observers that only store: real processes, each of them lost once."""

from __future__ import annotations

import asyncio

import pytest

import pegel
from pegel.testing import LocalCluster
from tests.process.load import Load

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

PATIENCE = 40.0


async def until_in_sync(client: pegel.AsyncClient, topic: str, count: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while any(
            len(p.isr) < count for p in (await client.admin.describe_topic(topic)).partitions
        ):
            await asyncio.sleep(0.05)


def test_two_brokers_and_an_arbiter_survive_the_loss_of_any_one_of_the_three() -> None:
    async def main(cluster: LocalCluster) -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            await client.admin.create_topic("t", partitions=2, replication=2)
            async with Load(client, "t", 2) as load:
                for node_id in (1, 2, 3):
                    await load.acknowledged(200)
                    await asyncio.to_thread(cluster.kill, node_id)
                    await load.acknowledged(200)
                    await client.admin.create_topic(f"without-{node_id}", partitions=1)
                    await asyncio.to_thread(cluster.restart, node_id)
                    await until_in_sync(client, "t", 2)
            assert await load.missing() == []
            brokers = (await client.admin.describe_cluster()).brokers
            assert [b.node_id for b in brokers] == [1, 2], "an arbiter is no broker"
            assert {p.name for p in cluster.nodes[3].data_dir.iterdir()} <= {
                "raft", "node.log", "node.lock", "server.properties",
            }  # fmt: skip

    with LocalCluster(brokers=2, arbiters=1) as cluster:
        asyncio.run(main(cluster))


def test_an_observer_stores_data_and_its_loss_costs_no_vote() -> None:
    async def main(cluster: LocalCluster) -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            await client.admin.create_topic("t", assignment={0: [4, 1], 1: [5, 1]})
            async with Load(client, "t", 2) as load:
                await load.acknowledged(200)
                for node_id in (4, 5):  # two of five nodes, and no voter among them
                    await asyncio.to_thread(cluster.kill, node_id)
                await load.acknowledged(200)
            assert await load.missing() == []
        assert cluster.view(1)["controller"]["voters"] == [1, 2, 3]

    with LocalCluster(brokers=3, observers=2) as cluster:
        asyncio.run(main(cluster))


def test_the_same_directory_is_the_same_cluster_with_its_roles(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with LocalCluster(brokers=1, arbiters=2, data_dir=tmp_path) as cluster:
        before = {n.node_id: (n.client, n.controller) for n in cluster.nodes.values()}
    again = LocalCluster(brokers=1, arbiters=2, data_dir=tmp_path)
    with again:
        assert {n.node_id: (n.client, n.controller) for n in again.nodes.values()} == before
    with pytest.raises(Exception, match="with --arbiters 2, not 1: leave it out"):
        LocalCluster(brokers=1, arbiters=1, data_dir=tmp_path).start()
