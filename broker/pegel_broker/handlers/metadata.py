"""Metadata and DescribeTopicPartitions: brokers, topics, leaders.

Only brokers that serve are listed, or just did. A partition without a leader is
LEADER_NOT_AVAILABLE. A topic that is asked for by name and does not exist is created where the
broker and the client allow it.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from uuid import UUID

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.describe_topic_partitions import (
    Cursor,
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)
from pegel.protocol.messages.metadata import (
    MetadataRequest,
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from pegel.protocol.schema import Message
from pegel_broker.coordinator.service import internal_topic
from pegel_broker.handlers.context import Answer, Broker, Request
from pegel_broker.handlers.registry import handles
from pegel_broker.handlers.values import (
    ALL_CLUSTER_OPERATIONS,
    ALL_TOPIC_OPERATIONS,
    OPERATIONS_NOT_ASKED,
    broker_value,
    reported_controller,
)
from pegel_controller.metadata import PartitionState, TopicState
from pegel_controller.metadata.image import INTERNAL_TOPICS
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.framing import RpcError

_NO_ID = UUID(int=0)
AUTO_CREATE_TIMEOUT = 5.0
# For one request. The others are not there yet: their client asks again, as it does anyway.
AUTO_CREATED_TOPICS_MAX = 100
_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


@handles(ApiKey.METADATA)
def metadata(request: Request) -> Answer:
    message, broker = request.message, request.broker
    assert isinstance(message, MetadataRequest)
    missing = _to_create(broker, message, request.version)
    if missing:
        return _create_then_respond(request, message, missing)
    return _respond(request, message)


def _wants_all(message: MetadataRequest, version: int) -> bool:
    return message.topics is None or (version == 0 and not message.topics)


def _to_create(broker: Broker, message: MetadataRequest, version: int) -> list[str]:
    if _wants_all(message, version) or not message.allow_auto_topic_creation:
        return []
    if broker_value(broker, "auto.create.topics.enable") is not True:
        return []
    assert message.topics is not None
    names = broker.image.topics_by_name
    missing = dict.fromkeys(
        topic.name
        for topic in message.topics
        if topic.name and topic.name not in names and _is_legal(topic.name)
    )
    return list(missing)[:AUTO_CREATED_TOPICS_MAX]


def _is_legal(name: str) -> bool:
    return name not in {".", ".."} and _LEGAL_NAME.fullmatch(name) is not None


async def _create_then_respond(
    request: Request, message: MetadataRequest, names: list[str]
) -> Message:
    broker = request.broker
    wanted = tuple(
        internal_topic(name, broker.image, broker.node_id, broker.static_configs)
        or m.CreatableTopic(name)
        for name in names
    )
    timeout_ms = int(AUTO_CREATE_TIMEOUT * 1000)
    asked = m.CreateTopicsRequest(wanted, False, timeout_ms)
    # A failure is told below, by the topic's error: the client asks again.
    with contextlib.suppress(RpcError):
        await broker.controllers.call("create_topics", asked, AUTO_CREATE_TIMEOUT)
    return _respond(request, message)


def _respond(request: Request, message: MetadataRequest) -> MetadataResponse:
    broker = request.broker
    image = broker.image
    topics: list[MetadataResponseTopic] = []
    with_operations = message.include_topic_authorized_operations
    if _wants_all(message, request.version):
        states: Iterable[TopicState] = [t for _, t in sorted(image.topics_by_name.items())]
        topics = [_topic(broker, state, with_operations) for state in states]
    else:
        assert message.topics is not None
        # Each once, as in Kafka: a topic of many partitions named many times is a lever.
        for asked in {(t.name, t.topic_id): t for t in message.topics}.values():
            if asked.name is not None:
                state = image.topics_by_name.get(asked.name)
                error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                if not _is_legal(asked.name):
                    error = ErrorCode.INVALID_TOPIC_EXCEPTION
            else:
                state = image.topics_by_id.get(asked.topic_id)
                error = ErrorCode.UNKNOWN_TOPIC_ID
            if state is not None:
                topics.append(_topic(broker, state, with_operations))
            else:
                topics.append(
                    MetadataResponseTopic(
                        error_code=error,
                        name=asked.name if request.version >= 12 else asked.name or "",
                        topic_id=asked.topic_id,
                    )
                )
    return MetadataResponse(
        brokers=[
            MetadataResponseBroker(node_id=i, host=b.host, port=b.port, rack=b.rack)
            for i, b in broker.listed()
        ],
        cluster_id=image.cluster_id,
        controller_id=reported_controller(broker),
        topics=topics,
        cluster_authorized_operations=ALL_CLUSTER_OPERATIONS
        if message.include_cluster_authorized_operations
        else OPERATIONS_NOT_ASKED,
    )


def _offline(broker: Broker, partition: tuple[UUID, int], state: PartitionState) -> list[int]:
    """Replicas on brokers that are gone, and those whose log failed."""
    brokers = broker.image.brokers
    return [
        r
        for r in state.replicas
        if r not in brokers or brokers[r].fenced or partition in brokers[r].offline_replicas
    ]


def _topic(broker: Broker, state: TopicState, with_operations: bool) -> MetadataResponseTopic:
    return MetadataResponseTopic(
        name=state.name,
        topic_id=state.topic_id,
        is_internal=state.name in INTERNAL_TOPICS,
        partitions=[
            MetadataResponsePartition(
                error_code=ErrorCode.NONE if p.leader >= 0 else ErrorCode.LEADER_NOT_AVAILABLE,
                partition_index=number,
                leader_id=p.leader,
                leader_epoch=p.leader_epoch,
                replica_nodes=list(p.replicas),
                isr_nodes=list(p.isr),
                offline_replicas=_offline(broker, (state.topic_id, number), p),
            )
            for number, p in enumerate(state.partitions)
        ],
        topic_authorized_operations=ALL_TOPIC_OPERATIONS
        if with_operations
        else OPERATIONS_NOT_ASKED,
    )


MAX_DESCRIBED_PARTITIONS = 2_000


@handles(ApiKey.DESCRIBE_TOPIC_PARTITIONS)
def describe_topic_partitions(request: Request) -> DescribeTopicPartitionsResponse:
    """By pages: at most ``response_partition_limit`` partitions, then a cursor (KIP-966)."""
    message, broker = request.message, request.broker
    assert isinstance(message, DescribeTopicPartitionsRequest)
    names = sorted({topic.name for topic in message.topics} or broker.image.topics_by_name)
    start = 0
    if message.cursor is not None:
        first = message.cursor.topic_name
        names = [name for name in names if name >= first]
        start = message.cursor.partition_index if names and names[0] == first else 0
    left = max(1, min(message.response_partition_limit, MAX_DESCRIBED_PARTITIONS))
    topics: list[DescribeTopicPartitionsResponseTopic] = []
    cursor: Cursor | None = None
    for name in names:
        state = broker.image.topics_by_name.get(name)
        if state is None:
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            if not _is_legal(name):
                error = ErrorCode.INVALID_TOPIC_EXCEPTION
            topics.append(DescribeTopicPartitionsResponseTopic(error_code=error, name=name))
            continue
        if left <= 0:
            cursor = Cursor(topic_name=name, partition_index=0)
            break
        chosen = state.partitions[start : start + left]
        topics.append(
            DescribeTopicPartitionsResponseTopic(
                name=name,
                topic_id=state.topic_id,
                is_internal=name in INTERNAL_TOPICS,
                partitions=[
                    _described(broker, (state.topic_id, number), p)
                    for number, p in enumerate(chosen, start)
                ],
                topic_authorized_operations=ALL_TOPIC_OPERATIONS,
            )
        )
        left -= len(chosen)
        if start + len(chosen) < len(state.partitions):
            cursor = Cursor(topic_name=name, partition_index=start + len(chosen))
            break
        start = 0
    return DescribeTopicPartitionsResponse(topics=topics, next_cursor=cursor)


def _described(
    broker: Broker, partition: tuple[UUID, int], state: PartitionState
) -> DescribeTopicPartitionsResponsePartition:
    return DescribeTopicPartitionsResponsePartition(
        error_code=ErrorCode.NONE if state.leader >= 0 else ErrorCode.LEADER_NOT_AVAILABLE,
        partition_index=partition[1],
        leader_id=state.leader,
        leader_epoch=state.leader_epoch,
        replica_nodes=list(state.replicas),
        isr_nodes=list(state.isr),
        eligible_leader_replicas=list(state.elr),
        last_known_elr=list(state.last_known_elr),
        offline_replicas=_offline(broker, partition, state),
    )
