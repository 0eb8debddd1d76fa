"""Metadata, DescribeCluster, DescribeTopicPartitions, DescribeLogDirs on the wire."""

from __future__ import annotations

from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from pegel.protocol.messages.describe_cluster import (
    DescribeClusterRequest,
    DescribeClusterResponse,
)
from pegel.protocol.messages.describe_log_dirs import (
    DescribableLogDirTopic,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
)
from pegel.protocol.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    TopicRequest,
)
from pegel.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from pegel_broker.handlers.context import LISTED_AFTER_FENCED
from pegel_controller.metadata import MetadataDelta
from pegel_controller.metadata import records as r
from tests.support.node import NodeUnderTest, RawClient, produce, records, run

NOT_ASKED = -(2**31)


def _asking(*names: str, create: bool = False, **more: bool) -> MetadataRequest:
    topics = [MetadataRequestTopic(name=name) for name in names]
    return MetadataRequest(topics=topics, allow_auto_topic_creation=create, **more)  # type: ignore[arg-type]


async def _ask(client: RawClient, request: MetadataRequest, version: int = 12) -> MetadataResponse:
    return await client.ask(request, version, MetadataResponse)


def test_all_topics_and_none() -> None:
    async def main(node: NodeUnderTest) -> None:
        for name in ("b", "a"):
            await node.create(name, 2)
        client = await node.connect()
        for version in range(14):
            null, empty = MetadataRequest(topics=None), MetadataRequest(topics=[])
            everything = await _ask(client, empty if version == 0 else null, version)
            assert [t.name for t in everything.topics] == ["a", "b"], version
            if version:
                assert (await _ask(client, empty, version)).topics == []

    run(main)


def test_what_is_told_of_brokers_and_partitions() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", 2)
        client = await node.connect()
        response = await _ask(client, _asking("t"))
        assert node.node.addresses.client is not None
        host, port = node.node.addresses.client
        assert [(b.node_id, b.host, b.port) for b in response.brokers] == [(1, host, port)]
        assert response.cluster_id
        assert response.controller_id == 1
        topic = response.topics[0]
        assert topic.topic_id.int != 0
        assert not topic.is_internal
        assert [
            (p.error_code, p.partition_index, p.leader_id, p.leader_epoch, p.replica_nodes,
             p.isr_nodes, p.offline_replicas)
            for p in topic.partitions
        ] == [(0, n, 1, 0, [1], [1], []) for n in (0, 1)]  # fmt: skip

    run(main)


def test_authorized_operations_are_told_where_asked() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        silent = await _ask(client, _asking("t"), 8)
        assert silent.cluster_authorized_operations == NOT_ASKED
        assert silent.topics[0].topic_authorized_operations == NOT_ASKED
        asked = _asking(
            "t", include_cluster_authorized_operations=True,
            include_topic_authorized_operations=True,
        )  # fmt: skip
        told = await _ask(client, asked, 8)
        assert told.cluster_authorized_operations > 0
        assert told.topics[0].topic_authorized_operations > 0

    run(main)


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("allowed", [True, False])
def test_a_topic_is_made_where_the_broker_and_the_client_allow_it(
    enabled: bool, allowed: bool
) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        response = await _ask(client, _asking("new", create=allowed))
        topic = response.topics[0]
        if enabled and allowed:
            assert (topic.error_code, len(topic.partitions)) == (0, 1)
            assert topic.partitions[0].leader_id == 1
            assert (await produce(client, "new", records(b"a"))).base_offset == 0
        else:
            assert topic.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            assert (topic.name, topic.partitions) == ("new", [])
            assert (await _ask(client, MetadataRequest(topics=None))).topics == []

    run(main, auto_create_topics_enable=enabled)


@pytest.mark.parametrize("name", ["", ".", "..", "a b", "a/b", "ü", "x" * 250])
def test_an_illegal_name_is_called_so_and_made_nowhere(name: str) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        response = await _ask(client, _asking(name, create=True), 9)
        assert response.topics[0].error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
        assert (await _ask(client, MetadataRequest(topics=None))).topics == []

    run(main)


def test_topics_by_id_and_made_again() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        first = node.topic_id("t")
        client = await node.connect()

        def by_id(topic_id: UUID) -> MetadataRequest:
            return MetadataRequest(topics=[MetadataRequestTopic(topic_id=topic_id, name=None)])

        response = await _ask(client, by_id(first))
        assert (response.topics[0].error_code, response.topics[0].name) == (0, "t")
        await produce(client, "t", records(b"a"))
        deleted = await client.ask(
            DeleteTopicsRequest(topic_names=["t"], timeout_ms=5_000), 5, DeleteTopicsResponse
        )
        assert deleted.responses[0].error_code == 0
        await node.create("t")
        assert node.topic_id("t") not in {first, UUID(int=0)}
        response = await _ask(client, by_id(first))
        assert response.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
        assert response.topics[0].topic_id == first
        assert (await produce(client, "t", records(b"a"))).base_offset == 0

    run(main)


def test_the_cluster_is_described() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        for version in (0, 1, 2):
            response = await client.ask(
                DescribeClusterRequest(include_cluster_authorized_operations=True), version,
                DescribeClusterResponse,
            )  # fmt: skip
            assert (response.error_code, response.controller_id) == (0, 1)
            assert [b.broker_id for b in response.brokers] == [1]
            assert response.cluster_authorized_operations > 0
        wrong = await client.ask(
            DescribeClusterRequest(endpoint_type=2), 1, DescribeClusterResponse
        )
        assert wrong.error_code == ErrorCode.MISMATCHED_ENDPOINT_TYPE

    run(main)


def test_partitions_are_described_page_by_page() -> None:
    async def main(node: NodeUnderTest) -> None:
        for name in ("a", "b", "c"):
            await node.create(name, 3)
        client = await node.connect()
        seen: list[tuple[str | None, int]] = []
        cursor: Cursor | None = None
        for _ in range(10):
            request = DescribeTopicPartitionsRequest(
                topics=[TopicRequest(name=n) for n in ("c", "a", "b")],
                response_partition_limit=4, cursor=cursor,
            )  # fmt: skip
            response = await client.ask(request, 0, DescribeTopicPartitionsResponse)
            page = [(t.name, p.partition_index) for t in response.topics for p in t.partitions]
            assert len(page) <= 4
            seen += page
            cursor = response.next_cursor
            if cursor is None:
                break
        assert seen == [(name, n) for name in ("a", "b", "c") for n in range(3)]
        unknown = DescribeTopicPartitionsRequest(topics=[TopicRequest(name="nope")])
        response = await client.ask(unknown, 0, DescribeTopicPartitionsResponse)
        assert response.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(main)


def test_log_directories() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", 2)
        client = await node.connect()
        data = records(b"x" * 500)
        await produce(client, "t", data, partition=1)
        for version in range(1, 5):
            response = await client.ask(
                DescribeLogDirsRequest(topics=None), version, DescribeLogDirsResponse
            )
            (directory,) = response.results
            assert (directory.error_code, directory.log_dir) == (0, "/node/log")
            sizes = {p.partition_index: p.partition_size for p in directory.topics[0].partitions}
            assert sizes == {0: 0, 1: len(data)}
            if version == 4:
                assert directory.total_bytes > directory.usable_bytes > 0
        one = DescribeLogDirsRequest(topics=[DescribableLogDirTopic(topic="t", partitions=[1])])
        response = await client.ask(one, 4, DescribeLogDirsResponse)
        found = [p.partition_index for t in response.results[0].topics for p in t.partitions]
        assert found == [1]

    run(main)


def test_a_broker_that_just_died_is_named_until_clients_know_the_new_leaders() -> None:
    """librdkafka takes a second more where one response moves a leader and drops the old one."""

    async def main(node: NodeUnderTest) -> None:
        broker = node.node.broker
        assert broker is not None
        other = r.BrokerRegisteredRecord(7, 5, UUID(int=7), "elsewhere", 9, None, "boot")
        image = broker.image.apply([other], broker.image.index + 1)
        alive = image.apply([r.BrokerUnfencedRecord(7, 5)], image.index + 1)
        dead = alive.apply([r.BrokerFencedRecord(7, 5)], alive.index + 1)

        async def named() -> list[int]:
            return [b.node_id for b in (await _ask(await node.connect(), _asking())).brokers]

        broker.on_metadata(MetadataDelta.between(broker.image, image), image)
        assert await named() == [1]  # it has not served yet
        for after in (alive, dead):
            broker.on_metadata(MetadataDelta.between(broker.image, after), after)
            assert await named() == [1, 7]
        broker.fenced_at[7] -= LISTED_AFTER_FENCED
        assert await named() == [1]

    run(main)
