"""CreateTopics, CreatePartitions, DeleteTopics, ElectLeaders on the wire."""

from __future__ import annotations

from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
)
from pegel.protocol.messages.create_topics import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from pegel.protocol.messages.delete_topics import (
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)
from pegel.protocol.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    TopicPartitions,
)
from pegel.protocol.messages.metadata import MetadataRequest, MetadataResponse
from tests.support.node import NodeUnderTest, RawClient, produce, records, run

PREFERRED = 0


def _topic(
    name: str, partitions: int = 1, replication: int = 1, **config: object
) -> CreatableTopic:
    return CreatableTopic(
        name=name, num_partitions=partitions, replication_factor=replication,
        configs=[
            CreatableTopicConfig(name=k.replace("_", "."), value=str(v)) for k, v in config.items()
        ],
    )  # fmt: skip


async def _create(
    client: RawClient, *topics: CreatableTopic, version: int = 7, validate_only: bool = False
) -> list[CreatableTopicResult]:
    request = CreateTopicsRequest(
        topics=list(topics), timeout_ms=5_000, validate_only=validate_only
    )
    return (await client.ask(request, version, CreateTopicsResponse)).topics


async def _names(client: RawClient) -> list[str | None]:
    response = await client.ask(MetadataRequest(topics=None), 9, MetadataResponse)
    return [topic.name for topic in response.topics]


@pytest.mark.parametrize("version", range(2, 8))
def test_a_created_topic_is_there_when_the_answer_is(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        (made,) = await _create(client, _topic("t", 3, retention_ms=5), version=version)
        assert (made.name, made.error_code, made.error_message) == ("t", 0, None)
        if version >= 5:
            assert (made.num_partitions, made.replication_factor) == (3, 1)
            configs = {c.name: c.value for c in made.configs or []}
            assert configs["retention.ms"] == "5"
            assert configs["cleanup.policy"] == "delete"
        if version >= 7:
            assert made.topic_id == node.topic_id("t")
        assert (await produce(client, "t", records(b"a"), partition=2)).error_code == 0

    run(main)


def test_one_result_for_each_topic_in_the_order_asked() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        await _create(client, _topic("there"))
        asked = [
            (_topic("good"), ErrorCode.NONE),
            (_topic("there"), ErrorCode.TOPIC_ALREADY_EXISTS),
            (_topic("a b"), ErrorCode.INVALID_TOPIC_EXCEPTION),
            (_topic(""), ErrorCode.INVALID_TOPIC_EXCEPTION),
            (_topic("x" * 250), ErrorCode.INVALID_TOPIC_EXCEPTION),
            (_topic("none", 0), ErrorCode.INVALID_PARTITIONS),
            (_topic("less", -2), ErrorCode.INVALID_PARTITIONS),
            (_topic("wide", 1, 2), ErrorCode.INVALID_REPLICATION_FACTOR),
            (_topic("thin", 1, 0), ErrorCode.INVALID_REPLICATION_FACTOR),
            (_topic("key", 1, 1, no_such_key=1), ErrorCode.INVALID_CONFIG),
            (_topic("value", 1, 1, retention_ms="soon"), ErrorCode.INVALID_CONFIG),
            (_topic("range", 1, 1, min_insync_replicas=0), ErrorCode.INVALID_CONFIG),
            (_topic("list", 1, 1, cleanup_policy="burn"), ErrorCode.INVALID_CONFIG),
            (_topic("last"), ErrorCode.NONE),
        ]
        made = await _create(client, *(topic for topic, _ in asked))
        assert [(m.name, m.error_code) for m in made] == [(t.name, error) for t, error in asked]
        assert all(bool(m.error_message) == bool(m.error_code) for m in made)
        assert await _names(client) == ["good", "last", "there"]

    run(main)


def test_kafkas_wording() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        await _create(client, _topic("t", 3), _topic("a_b"))
        said = [
            m.error_message
            for m in await _create(client, _topic("t"), _topic("wide", 1, 3), _topic("a.b"))
        ]
        assert said == [
            "Topic 't' already exists.",
            (
                "Unable to replicate the partition 3 time(s): The target replication factor of 3 "
                "cannot be reached because only 1 broker(s) are registered."
            ),
            "Topic 'a.b' collides with existing topic: a_b",
        ]

    run(main)


def test_the_same_topic_twice_in_one_request() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        made = await _create(client, _topic("twice"), _topic("once"), _topic("twice"))
        assert {(m.name, m.error_code) for m in made} == {
            ("twice", ErrorCode.INVALID_REQUEST), ("once", ErrorCode.NONE),
        }  # fmt: skip
        assert await _names(client) == ["once"]

    run(main)


def test_defaults_and_assignments_by_hand() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        by_hand = CreatableTopic(
            name="hand", num_partitions=-1, replication_factor=-1,
            assignments=[
                CreatableReplicaAssignment(partition_index=n, broker_ids=[1]) for n in (1, 0)
            ],
        )  # fmt: skip
        unknown = CreatableTopic(
            name="unknown", num_partitions=-1, replication_factor=-1,
            assignments=[CreatableReplicaAssignment(partition_index=0, broker_ids=[9])],
        )  # fmt: skip
        made = await _create(client, _topic("default", -1, -1), by_hand, unknown)
        assert [(m.error_code, m.num_partitions, m.replication_factor) for m in made] == [
            (0, 4, 1), (0, 2, 1), (ErrorCode.INVALID_REPLICA_ASSIGNMENT, -1, -1),
        ]  # fmt: skip

    run(main, num_partitions=4)


def test_validate_only_makes_nothing() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        made = await _create(client, _topic("t", 2), _topic("a b"), validate_only=True)
        assert [m.error_code for m in made] == [0, ErrorCode.INVALID_TOPIC_EXCEPTION]
        assert await _names(client) == []

    run(main)


@pytest.mark.parametrize("version", range(4))
def test_topics_grow(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", 3)
        client = await node.connect()

        async def grow(name: str, count: int, validate_only: bool = False) -> tuple[int, str]:
            request = CreatePartitionsRequest(
                topics=[CreatePartitionsTopic(name=name, count=count, assignments=None)],
                timeout_ms=5_000, validate_only=validate_only,
            )  # fmt: skip
            (result,) = (await client.ask(request, version, CreatePartitionsResponse)).results
            return result.error_code, result.error_message or ""

        assert (await grow("t", 5, validate_only=True))[0] == 0
        assert (await produce(client, "t", records(b"a"), partition=4)).error_code == (
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        )
        assert await grow("t", 5) == (0, "")
        assert (await produce(client, "t", records(b"a"), partition=4)).error_code == 0
        assert await grow("t", 5) == (
            ErrorCode.INVALID_PARTITIONS, "Topic already has 5 partition(s).",
        )  # fmt: skip
        assert await grow("t", 2) == (
            ErrorCode.INVALID_PARTITIONS,
            "The topic t currently has 5 partition(s); 2 would not be an increase.",
        )
        assert (await grow("nope", 2))[0] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(main)


def test_topics_are_deleted_by_name_and_by_id() -> None:
    async def main(node: NodeUnderTest) -> None:
        for name in ("a", "b", "c"):
            await node.create(name)
        client = await node.connect()
        by_name = DeleteTopicsRequest(topic_names=["nope", "a"], timeout_ms=5_000)
        response = await client.ask(by_name, 5, DeleteTopicsResponse)
        assert [(r.name, r.error_code) for r in response.responses] == [
            ("nope", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION), ("a", 0),
        ]  # fmt: skip
        topic_id, unknown = node.topic_id("b"), UUID(int=5)
        by_id = DeleteTopicsRequest(
            topics=[DeleteTopicState(topic_id=topic_id), DeleteTopicState(topic_id=unknown),
                    DeleteTopicState(name="c")],
            timeout_ms=5_000,
        )  # fmt: skip
        response = await client.ask(by_id, 6, DeleteTopicsResponse)
        told = [(r.topic_id, r.error_code) for r in response.responses]
        assert told[0] == (topic_id, 0)
        assert told[1] == (unknown, ErrorCode.UNKNOWN_TOPIC_ID)
        assert told[2][1] == 0
        assert await _names(client) == []

    run(main)


@pytest.mark.parametrize("version", range(3))
def test_preferred_leaders_that_lead_already(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", 2)
        client = await node.connect()
        request = ElectLeadersRequest(
            election_type=PREFERRED,
            topic_partitions=[
                TopicPartitions(topic="t", partitions=[0, 1, 7]),
                TopicPartitions(topic="nope", partitions=[0]),
            ],
            timeout_ms=5_000,
        )  # fmt: skip
        response = await client.ask(request, version, ElectLeadersResponse)
        assert response.error_code == 0
        told = {
            (topic.topic, p.partition_id): p.error_code
            for topic in response.replica_election_results
            for p in topic.partition_result
        }
        assert told == {
            ("t", 0): ErrorCode.ELECTION_NOT_NEEDED,
            ("t", 1): ErrorCode.ELECTION_NOT_NEEDED,
            ("t", 7): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            ("nope", 0): ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        }

    run(main)
