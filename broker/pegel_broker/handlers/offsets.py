"""ListOffsets and OffsetForLeaderEpoch: positions by time, by end, by leader epoch."""

from __future__ import annotations

import asyncio

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsPartitionResponse,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from pegel.protocol.messages.offset_for_leader_epoch import (
    EpochEndOffset,
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
)
from pegel_broker.handlers.context import Request
from pegel_broker.handlers.registry import handles
from pegel_broker.replication.offsets import DEBUGGING_CONSUMER


@handles(ApiKey.LIST_OFFSETS)
async def list_offsets(request: Request) -> ListOffsetsResponse:
    message, replicas = request.message, request.broker.replicas
    assert isinstance(message, ListOffsetsRequest)
    debugging = message.replica_id == DEBUGGING_CONSUMER

    async def one(topic: str, p: ListOffsetsPartition) -> ListOffsetsPartitionResponse:
        found = replicas.list_offset(
            topic,
            p.partition_index,
            p.timestamp,
            current_leader_epoch=p.current_leader_epoch,
            debugging=debugging,
        )
        result = await found if isinstance(found, asyncio.Future) else found
        error = result.error
        if error is ErrorCode.OFFSET_NOT_AVAILABLE and request.version < 5:
            error = ErrorCode.LEADER_NOT_AVAILABLE  # older clients retry on this one (KIP-207)
        return ListOffsetsPartitionResponse(
            partition_index=p.partition_index,
            error_code=error,
            timestamp=result.timestamp,
            offset=result.offset,
            leader_epoch=result.leader_epoch,
        )

    return ListOffsetsResponse(
        topics=[
            ListOffsetsTopicResponse(
                name=topic.name, partitions=[await one(topic.name, p) for p in topic.partitions]
            )
            for topic in message.topics
        ]
    )


@handles(ApiKey.OFFSET_FOR_LEADER_EPOCH)
def offset_for_leader_epoch(request: Request) -> OffsetForLeaderEpochResponse:
    message, replicas = request.message, request.broker.replicas
    assert isinstance(message, OffsetForLeaderEpochRequest)
    topics: list[OffsetForLeaderTopicResult] = []
    for topic in message.topics:
        answers = []
        for p in topic.partitions:
            result = replicas.end_offset_for_epoch(
                topic.topic, p.partition, p.current_leader_epoch, p.leader_epoch
            )
            answers.append(
                EpochEndOffset(
                    error_code=result.error,
                    partition=p.partition,
                    leader_epoch=result.leader_epoch,
                    end_offset=result.end_offset,
                )
            )
        topics.append(OffsetForLeaderTopicResult(topic=topic.topic, partitions=answers))
    return OffsetForLeaderEpochResponse(topics=topics)
