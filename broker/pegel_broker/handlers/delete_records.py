"""DeleteRecords: an operator's trim of a log, up to an offset, on every live replica (KIP-107)."""

from __future__ import annotations

import asyncio

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.messages.delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from pegel_broker.handlers.context import Request
from pegel_broker.handlers.registry import handles


@handles(ApiKey.DELETE_RECORDS)
async def delete_records(request: Request) -> DeleteRecordsResponse:
    """One result for each partition named; ``low_watermark`` is -1 where it failed."""
    message, replicas = request.message, request.broker.replicas
    assert isinstance(message, DeleteRecordsRequest)
    # All of them begin before any is waited for: one time-out covers the request.
    begun = [
        (
            topic.name,
            [
                (
                    p.partition_index,
                    replicas.delete_records(
                        topic.name, p.partition_index, p.offset, message.timeout_ms
                    ),
                )
                for p in topic.partitions
            ],
        )
        for topic in message.topics
    ]
    topics = []
    for name, partitions in begun:
        results = []
        for index, waiting in partitions:
            result = await waiting if isinstance(waiting, asyncio.Future) else waiting
            results.append(
                DeleteRecordsPartitionResult(
                    partition_index=index,
                    low_watermark=result.low_watermark,
                    error_code=result.error,
                )
            )
        topics.append(DeleteRecordsTopicResult(name=name, partitions=results))
    return DeleteRecordsResponse(topics=topics)
