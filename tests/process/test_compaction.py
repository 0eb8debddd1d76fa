"""A compacted topic on real brokers: its logs stay small, and a new replica gets what is left."""

from __future__ import annotations

import asyncio
import shutil

import pytest

import pegel
from pegel.testing import LocalCluster
from pegel.types import TopicPartition

pytestmark = pytest.mark.process

KEYS = [b"key-%d" % n for n in range(50)]
ROUNDS = 200
PATIENCE = 60.0
TP = TopicPartition("state", 0)


async def _newest(cluster: LocalCluster) -> tuple[dict[bytes, bytes], int]:
    """Value by key, and how many records there were."""
    found: dict[bytes, bytes] = {}
    count = 0
    async with (
        pegel.AsyncClient(cluster.bootstrap) as client,
        client.consumer(partitions=[TP], offset_reset="earliest") as reader,
    ):
        ends = await reader.end_offsets()
        while not reader.reached(ends):
            batch = await reader.next_batch(timeout=10)
            assert batch is not None
            count += len(batch.offsets)
            for key, value in zip(batch.keys, batch.values, strict=True):
                assert key is not None
                assert value is not None
                found[key] = value
    return found, count


async def _fill(cluster: LocalCluster) -> None:
    async with pegel.AsyncClient(cluster.bootstrap) as client:
        await client.create_topic(
            "state", partitions=1, replication=3,
            config={
                "cleanup.policy": "compact", "segment.bytes": 20_000, "min.insync.replicas": 2,
                "min.cleanable.dirty.ratio": 0.1,
            },
        )  # fmt: skip
        for n in range(ROUNDS):
            values = [b"%d" % n] * len(KEYS)
            await client.send_many("state", values, keys=KEYS)


async def _until_small(cluster: LocalCluster) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            found, count = await _newest(cluster)
            assert found == dict.fromkeys(KEYS, b"%d" % (ROUNDS - 1))
            if count < ROUNDS * len(KEYS) / 4:
                return
            await asyncio.sleep(0.2)


def test_old_values_go_on_every_replica_and_the_newest_never_do() -> None:
    settings = {"log.cleaner.backoff.ms": "100", "replica.lag.time.max.ms": "3000"}
    with LocalCluster(brokers=3, settings=settings) as cluster:
        asyncio.run(_fill(cluster))
        asyncio.run(_until_small(cluster))
        first = cluster.leader_of("state", 0)
        # Whoever leads has compacted its own log.
        cluster.kill(first)
        assert cluster.leader_of("state", 0) != first
        asyncio.run(_until_small(cluster))
        # A replica that begins with nothing gets a log with gaps.
        shutil.rmtree(cluster.nodes[first].data_dir / "log" / "state-0")
        cluster.restart(first)
        asyncio.run(_led_by(cluster, first))
        asyncio.run(_until_small(cluster))


async def _led_by(cluster: LocalCluster, node_id: int) -> None:
    async with pegel.AsyncClient(cluster.bootstrap) as client:
        async with asyncio.timeout(PATIENCE):
            while True:
                await client.admin.elect_leaders([TP])
                topic = await client.admin.describe_topic("state")
                if topic.partitions[0].leader == node_id:
                    return
                await asyncio.sleep(0.1)
