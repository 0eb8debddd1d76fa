"""Produce: appends one batch to each partition named.

acks=0 has no response: where something is wrong the connection is closed, which is all that its
client can notice. Version 7 brings zstd (KIP-110), 8 errors of single records (KIP-467), 10 tells
a client that came to the wrong broker who leads (KIP-951), 13 names topics by id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.produce import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from pegel.protocol.schema import Message
from pegel.record.batch import HEADER_SIZE, read_header
from pegel.record.compression import Codec
from pegel_broker.handlers.context import Answer, Broker, CloseConnectionError, Request
from pegel_broker.handlers.registry import handles
from pegel_broker.replication.hosted import DelayedProduce
from pegel_broker.replication.results import PartitionProduceResult
from pegel_controller.metadata.image import INTERNAL_TOPICS

# A client of an earlier version would read the batch back and not know its codec (KIP-110).
ZSTD_FROM = 7
_UNKNOWN_CODEC = PartitionProduceResult(
    ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
    message=f"Produce requests with version before {ZSTD_FROM} cannot carry zstd",
)

# Kafka's own mark of who may write to internal topics.
ADMIN_CLIENT_ID = "__admin_client"
_Result = PartitionProduceResult | DelayedProduce


@handles(ApiKey.PRODUCE)
def produce(request: Request) -> Answer:
    message, broker = request.message, request.broker
    assert isinstance(message, ProduceRequest)
    if message.acks not in {-1, 0, 1}:
        return _respond(
            request,
            message,
            [PartitionProduceResult(ErrorCode.INVALID_REQUIRED_ACKS)] * _size(message),
        )
    if message.transactional_id is not None:
        error = PartitionProduceResult(
            ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            message="transactions are not supported by this release",
        )
        return _respond(request, message, [error] * _size(message))
    results: list[_Result] = []
    pending: list[DelayedProduce] = []
    acks, timeout_ms, replicas = message.acks, message.timeout_ms, broker.replicas
    for topic in message.topic_data:
        name = _topic_name(broker, topic, request.version)
        for partition in topic.partition_data:
            result: _Result
            if name is None:
                result = PartitionProduceResult(ErrorCode.UNKNOWN_TOPIC_ID)
            elif name in INTERNAL_TOPICS and request.client_id != ADMIN_CLIENT_ID:
                result = PartitionProduceResult(
                    ErrorCode.INVALID_TOPIC_EXCEPTION,
                    message=f"Cannot append to internal topic {name}",
                )
            else:
                records = partition.records
                assert records is None or isinstance(records, memoryview)
                if request.version < ZSTD_FROM and _is_zstd(records):
                    result = _UNKNOWN_CODEC
                else:
                    result = replicas.produce(name, partition.index, records, acks, timeout_ms)
            results.append(result)
            if isinstance(result, DelayedProduce):
                pending.append(result)
    if acks == 0:
        for result in results:
            if isinstance(result, PartitionProduceResult) and result.error:
                raise CloseConnectionError(f"acks=0 and {result.error.name}: {result.message}")
        return None
    pending = [operation for operation in pending if not operation.done]
    if pending:
        return _wait(request, message, results, pending)
    return _respond(request, message, results)


def _is_zstd(records: memoryview | None) -> bool:
    return (
        records is not None
        and len(records) >= HEADER_SIZE
        and read_header(records).attributes & 7 == Codec.ZSTD
    )


def _size(message: ProduceRequest) -> int:
    return sum(len(topic.partition_data) for topic in message.topic_data)


def _topic_name(broker: Broker, topic: TopicProduceData, version: int) -> str | None:
    if version < 13:
        return topic.name
    state = broker.image.topics_by_id.get(topic.topic_id)
    return None if state is None else state.name


def _wait(
    request: Request,
    message: ProduceRequest,
    results: Sequence[_Result],
    pending: Sequence[DelayedProduce],
) -> asyncio.Future[Message]:
    """The response, once the last partition is acknowledged: one future for all of them."""
    response: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    left = len(pending)

    def done(_: PartitionProduceResult) -> None:
        nonlocal left
        left -= 1
        if left or response.done():
            return
        try:
            response.set_result(_respond(request, message, results))
        except Exception as error:  # it must cost this connection, not whoever acknowledged
            response.set_exception(error)

    for operation in pending:
        operation.on_done = done
    return response


def _respond(
    request: Request, message: ProduceRequest, results: Sequence[_Result]
) -> ProduceResponse:
    by_id = request.version >= 13
    position = 0
    topics: list[TopicProduceResponse] = []
    leaders: set[int] = set()
    for topic in message.topic_data:
        answers: list[PartitionProduceResponse] = []
        for partition in topic.partition_data:
            outcome = results[position]
            position += 1
            result = outcome.result if isinstance(outcome, DelayedProduce) else outcome
            if result.error:
                name = topic.name or _topic_name(request.broker, topic, request.version) or ""
                request.broker.replicas.count_failed_produce(name)
            answer = PartitionProduceResponse(
                index=partition.index,
                error_code=result.error,
                base_offset=result.base_offset,
                log_append_time_ms=result.log_append_time,
                log_start_offset=result.log_start_offset,
                error_message=result.message,
                record_errors=[
                    BatchIndexAndErrorMessage(batch_index=i, batch_index_error_message=text)
                    for i, text in result.record_errors
                ],
            )
            if result.leader_id >= 0:
                answer.current_leader = LeaderIdAndEpoch(
                    leader_id=result.leader_id, leader_epoch=result.leader_epoch
                )
                leaders.add(result.leader_id)
            answers.append(answer)
        topics.append(
            TopicProduceResponse(
                name="" if by_id else topic.name,
                topic_id=topic.topic_id if by_id else UUID(int=0),
                partition_responses=answers,
            )
        )
    return ProduceResponse(responses=topics, node_endpoints=_endpoints(request.broker, leaders))


def _endpoints(broker: Broker, leaders: set[int]) -> list[NodeEndpoint]:
    found = []
    for leader in sorted(leaders):
        state = broker.image.brokers.get(leader)
        if state is not None:
            found.append(
                NodeEndpoint(node_id=leader, host=state.host, port=state.port, rack=state.rack)
            )
    return found
