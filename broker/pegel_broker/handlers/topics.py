"""CreateTopics, DeleteTopics, CreatePartitions, ElectLeaders: any broker asks the controller."""

from __future__ import annotations

import asyncio
import logging
from typing import TypeVar
from uuid import UUID

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopicResult,
)
from pegel.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from pegel.protocol.messages.delete_topics import (
    DeletableTopicResult,
    DeleteTopicsRequest,
    DeleteTopicsResponse,
)
from pegel.protocol.messages.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)
from pegel_broker.handlers.context import Broker, Request
from pegel_broker.handlers.registry import handles
from pegel_controller.config import describe_topic_config
from pegel_controller.metadata.wire import Wire
from pegel_controller.rpc import messages as m
from pegel_controller.rpc.framing import RpcError, RpcRefusedError

W = TypeVar("W", bound=Wire)
_NO_ID = UUID(int=0)
# What the network and the controller may take beyond the time that the client allows.
_MARGIN = 1.0
MAX_WAIT = 60.0
# Then the loop has its turn: each comes with all its keys.
CREATED_PER_TURN = 20

_log = logging.getLogger("pegel.broker")


async def ask(
    broker: Broker,
    method: str,
    request: Wire,
    timeout_ms: int,
    expected: type[W],
    *,
    retry_sent: bool = False,
) -> W | ErrorCode:
    """The active controller's answer, or the error that every item gets without one.

    ``retry_sent``: to ask twice does no harm.
    """
    timeout = min(max(timeout_ms, 0) / 1000, MAX_WAIT) + _MARGIN
    try:
        response = await broker.controllers.call(method, request, timeout, retry_sent=retry_sent)
    except RpcRefusedError as error:
        return ErrorCode(error.code)
    except RpcError as error:
        _log.info("nothing is known of %s: %s", method, error)
        return ErrorCode.REQUEST_TIMED_OUT
    assert isinstance(response, expected)
    return response


def _creatable(topic: CreatableTopic) -> m.CreatableTopic:
    return m.CreatableTopic(
        topic.name,
        topic.num_partitions,
        topic.replication_factor,
        tuple((a.partition_index, tuple(a.broker_ids)) for a in topic.assignments),
        tuple((c.name, c.value) for c in topic.configs),
    )


@handles(ApiKey.CREATE_TOPICS)
async def create_topics(request: Request) -> CreateTopicsResponse:
    message, broker = request.message, request.broker
    assert isinstance(message, CreateTopicsRequest)
    asked = m.CreateTopicsRequest(
        tuple(_creatable(t) for t in message.topics), message.validate_only, message.timeout_ms
    )
    answer = await ask(broker, "create_topics", asked, message.timeout_ms, m.CreateTopicsResponse)
    if isinstance(answer, ErrorCode):
        return CreateTopicsResponse(
            topics=[
                CreatableTopicResult(name=t.name, error_code=answer, error_message=answer.message)
                for t in message.topics
            ]
        )
    results = []
    for number, result in enumerate(answer.topics, 1):
        if number % CREATED_PER_TURN == 0:
            await asyncio.sleep(0)
        made = CreatableTopicResult(
            name=result.name,
            topic_id=result.topic_id,
            error_code=result.error,
            error_message=result.message or None,
            num_partitions=result.num_partitions,
            replication_factor=result.replication_factor,
            configs=None if result.error else _configs(broker, result.name),
        )
        results.append(made)
    return CreateTopicsResponse(topics=results)


def _configs(broker: Broker, topic: str) -> list[CreatableTopicConfigs]:
    described = describe_topic_config(broker.image, topic, broker.static_configs, broker.node_id)
    return [
        CreatableTopicConfigs(name=name, value=entry.value, config_source=entry.source)
        for name, entry in sorted(described.items())
    ]


@handles(ApiKey.DELETE_TOPICS)
async def delete_topics(request: Request) -> DeleteTopicsResponse:
    message = request.message
    assert isinstance(message, DeleteTopicsRequest)
    if request.version >= 6:
        wanted = tuple(m.DeletableTopic(t.name, t.topic_id) for t in message.topics)
    else:
        wanted = tuple(m.DeletableTopic(name) for name in message.topic_names)
    asked = m.DeleteTopicsRequest(wanted, message.timeout_ms)
    answer = await ask(
        request.broker, "delete_topics", asked, message.timeout_ms, m.DeleteTopicsResponse
    )
    if isinstance(answer, ErrorCode):
        return DeleteTopicsResponse(
            responses=[
                DeletableTopicResult(
                    name=t.name, topic_id=t.topic_id, error_code=answer,
                    error_message=answer.message,
                )
                for t in wanted
            ]
        )  # fmt: skip
    return DeleteTopicsResponse(
        responses=[
            DeletableTopicResult(
                name=result.name,
                topic_id=result.topic_id,
                error_code=result.error,
                error_message=result.message or None,
            )
            for result in answer.topics
        ]
    )


@handles(ApiKey.CREATE_PARTITIONS)
async def create_partitions(request: Request) -> CreatePartitionsResponse:
    message = request.message
    assert isinstance(message, CreatePartitionsRequest)
    wanted = tuple(
        m.CreatePartitionsTopic(
            t.name,
            t.count,
            None if t.assignments is None else tuple(tuple(a.broker_ids) for a in t.assignments),
        )
        for t in message.topics
    )
    asked = m.CreatePartitionsRequest(wanted, message.validate_only, message.timeout_ms)
    answer = await ask(
        request.broker, "create_partitions", asked, message.timeout_ms, m.CreatePartitionsResponse
    )
    if isinstance(answer, ErrorCode):
        return CreatePartitionsResponse(
            results=[
                CreatePartitionsTopicResult(
                    name=t.name, error_code=answer, error_message=answer.message
                )
                for t in message.topics
            ]
        )
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsTopicResult(
                name=result.name, error_code=result.error, error_message=result.message or None
            )
            for result in answer.topics
        ]
    )


@handles(ApiKey.ELECT_LEADERS)
async def elect_leaders(request: Request) -> ElectLeadersResponse:
    message = request.message
    assert isinstance(message, ElectLeadersRequest)
    partitions = None
    if message.topic_partitions is not None:
        partitions = tuple((t.topic, p) for t in message.topic_partitions for p in t.partitions)
    asked = m.ElectLeadersRequest(message.election_type, partitions, message.timeout_ms)
    answer = await ask(
        request.broker, "elect_leaders", asked, message.timeout_ms, m.ElectLeadersResponse
    )
    if isinstance(answer, ErrorCode):
        return ElectLeadersResponse(error_code=answer)
    by_topic: dict[str, list[PartitionResult]] = {}
    for result in answer.partitions:
        by_topic.setdefault(result.topic, []).append(
            PartitionResult(
                partition_id=result.partition,
                error_code=result.error,
                error_message=result.message or None,
            )
        )
    return ElectLeadersResponse(
        error_code=answer.error,
        replica_election_results=[
            ReplicaElectionResult(topic=topic, partition_result=results)
            for topic, results in by_topic.items()
        ],
    )
