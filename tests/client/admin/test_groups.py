"""Admin calls about groups: lists, members, offsets and lag, and coordinators that move."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from pegel.admin.types import PartitionLag
from pegel.client import AsyncClient
from pegel.config import ClientOptions
from pegel.errors import BrokerError, GroupNotEmptyError, GroupNotFoundError
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.describe_groups import DescribeGroupsRequest
from pegel.record import encode_batch
from pegel.types import CommittedOffset, TopicPartition
from tests.support.fake_broker import FakeCluster, Fault

Body = Callable[[FakeCluster, AsyncClient], Coroutine[None, None, None]]
T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


def _run(body: Body, brokers: int = 2) -> None:
    async def main() -> None:
        async with FakeCluster(brokers) as cluster:
            cluster.add_topic("t", partitions=2)
            options = ClientOptions(request_timeout=2.0, topic_grace=0.05)
            async with AsyncClient(cluster.bootstrap, options=options) as client:
                async with asyncio.timeout(15):
                    await body(cluster, client)

    asyncio.run(main())


def test_groups_are_listed_described_and_deleted() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        admin = client.admin
        async with client.consumer("t", group="g") as consumer:
            await consumer.wait_for_assignment(5)
            cluster.group("other")
            listed = [(g.group, g.state, g.type) for g in await admin.list_groups()]
            assert listed == [("g", "Stable", "classic"), ("other", "Empty", "classic")]
            found = await admin.describe_group("g")
            assert (found.state, found.assignor, found.coordinator) == (
                "Stable", "cooperative-sticky", 1,
            )  # fmt: skip
            assert [m.partitions for m in found.members] == [(T0, T1)]
            assert found.members[0].host == "127.0.0.1"
            with pytest.raises(GroupNotEmptyError, match="stop them"):
                await admin.delete_group("g")
            with pytest.raises(GroupNotEmptyError, match="stop them"):
                await admin.alter_group_offsets("g", {T0: 1})
        await admin.delete_group("g")
        with pytest.raises(GroupNotFoundError, match="groups list"):
            await admin.describe_group("g")
        with pytest.raises(GroupNotFoundError, match="groups list"):
            await admin.delete_group("g")

    _run(body)


def test_many_groups_are_described_in_few_requests_wherever_they_are() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        names = [f"g{i:04}" for i in range(1000)]
        for name in names:
            cluster.group(name)
        assert len(await client.admin.list_groups()) == 1000
        cluster.script(ApiKey.DESCRIBE_GROUPS, ErrorCode.NOT_COORDINATOR, Fault.DROP)
        found = await client.admin.describe_groups([*names, "nope"])
        assert sorted(found) == names
        assert len(cluster.requests(DescribeGroupsRequest)) < 20
        cluster.script(ApiKey.DESCRIBE_GROUPS, ErrorCode.GROUP_AUTHORIZATION_FAILED)
        with pytest.raises(BrokerError, match="g0000"):
            await client.admin.describe_group("g0000")

    _run(body)


def test_offsets_are_read_set_and_turned_into_lag() -> None:
    async def body(cluster: FakeCluster, client: AsyncClient) -> None:
        log = cluster.topics["t"].partitions[0]
        now = client._cluster.clock.wall_ms()
        for i in range(10):
            log.append(encode_batch([b"v"], timestamps=now - 1000 * (10 - i)))
        await client.admin.alter_group_offsets("g", {T0: 4, T1: CommittedOffset(0, -1, "note")})
        assert await client.admin.group_offsets("g") == {
            T0: CommittedOffset(4), T1: CommittedOffset(0, -1, "note"),
        }  # fmt: skip
        assert await client.admin.group_offsets("g", [("t", 1)]) == {
            T1: CommittedOffset(0, -1, "note")
        }
        assert await client.admin.group_lag("g") == [
            PartitionLag("t", 0, CommittedOffset(4), 0, 10, 6, None),
            PartitionLag("t", 1, CommittedOffset(0, -1, "note"), 0, 0, 0, None),
        ]
        behind, level = await client.admin.group_lag("g", seconds=True)
        assert behind.seconds is not None
        assert 6.0 <= behind.seconds < 60.0
        assert level.seconds == 0.0
        del cluster.topics["t"]  # offsets outlive their topic
        assert await client.admin.group_lag("g") == []

    _run(body, brokers=1)
