"""Admin calls: typed results, the broker's words in errors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from pegel.admin.types import ConfigResourceType, ConfigSource
from pegel.client import AsyncClient
from pegel.config import ClientOptions
from pegel.errors import (
    BrokerError,
    ClosedError,
    ConnectionFailedError,
    PegelError,
    TopicExistsError,
    TopicNotFoundError,
)
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from tests.support.fake_broker import FakeCluster, Fault

Body = Callable[[FakeCluster, AsyncClient], Coroutine[None, None, None]]
TOPIC = ConfigResourceType.TOPIC


def _run(body: Body, brokers: int = 1) -> None:
    async def main() -> None:
        async with FakeCluster(brokers) as cluster:
            options = ClientOptions(request_timeout=2.0, topic_grace=0.05)
            async with AsyncClient(cluster.bootstrap, options=options) as client:
                await body(cluster, client)

    asyncio.run(main())


def test_topics_are_created_described_grown_and_deleted() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        made = await client.create_topic("t", partitions=2, config={"retention.ms": 5, "x": True})
        assert cluster.configs["t"] == {"retention.ms": "5", "x": "true"}
        with pytest.raises(TopicExistsError, match="already exists"):
            await client.create_topic("t")
        await client.send("t", b"v", partition=1)
        await client.admin.grow_topic("t", 3)
        topic = await client.admin.describe_topic("t", offsets=True)
        assert topic.topic_id == made
        assert [p.end_offset for p in topic.partitions] == [0, 1, 0]
        assert topic.replication == 2
        assert [t.name for t in await client.admin.list_topics()] == ["t"]
        await client.delete_topic("t")
        with pytest.raises(TopicNotFoundError, match="topics list"):
            await client.admin.describe_topic("t")
        with pytest.raises(TopicNotFoundError):
            await client.delete_topic("t")

    _run(body, brokers=2)


def test_partitions_without_a_leader_are_described_without_offsets() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.add_topic("t", 2).partitions[1].leader = -1
        topic = await client.admin.describe_topic("t", offsets=True)
        assert [(p.leader, p.end_offset) for p in topic.partitions] == [(1, 0), (-1, None)]

    _run(body)


def test_configs_are_set_unset_and_read() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.add_topic("t")
        await client.admin.alter_config(TOPIC, "t", {"a": 1, "b": "x"})
        await client.admin.alter_config(TOPIC, "t", {"a": None})
        (entry,) = await client.admin.describe_config(TOPIC, "t")
        assert (entry.name, entry.value, entry.source) == ("b", "x", ConfigSource.TOPIC)
        cluster.script(ApiKey.INCREMENTAL_ALTER_CONFIGS, ErrorCode.INVALID_CONFIG)
        with pytest.raises(BrokerError, match="INVALID_CONFIG"):
            await client.admin.alter_config(TOPIC, "t", {"a": "?"})
        await client.admin.describe_config(ConfigResourceType.BROKER, "2")
        assert cluster.log[-1][0] == 2  # a broker's own configuration is its own to tell
        with pytest.raises(PegelError, match="no live broker 9"):
            await client.admin.describe_config(ConfigResourceType.BROKER, "9")

    _run(body, brokers=2)


def test_the_cluster_and_its_elections() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.add_topic("t", 2)
        cluster.brokers[2].stop()
        found = await client.admin.describe_cluster()
        assert [(b.node_id, b.fenced) for b in found.brokers] == [(1, False), (2, True)]
        results = await client.admin.elect_leaders()
        assert [(r.partition, r.error, r.elected) for r in results] == [
            (0, None, False),
            (1, None, False),
        ]

    _run(body, brokers=2)


def test_another_broker_is_asked_where_one_fails() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        cluster.script(ApiKey.DESCRIBE_CLUSTER, Fault.DROP, Fault.DROP)
        assert (await client.admin.describe_cluster()).cluster_id == "fake"

    _run(body, brokers=2)


def test_no_cluster_is_an_error_within_the_time_out() -> None:
    async def main() -> None:
        async with AsyncClient("127.0.0.1:1") as client:
            with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1"):
                await client.admin.describe_cluster(timeout=0.1)
            with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1"):
                await client.admin.list_topics(timeout=0.1)
        with pytest.raises(ClosedError):
            client.producer()

    asyncio.run(main())
