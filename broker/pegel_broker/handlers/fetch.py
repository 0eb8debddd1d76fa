"""Fetch: records for consumers and for follower replicas; they speak the same request.

Version 7 brings sessions (KIP-227), 9 leader epochs (KIP-320), 11 racks (KIP-392), 12 diverging
epochs (KIP-595), 13 topic ids (KIP-516), 15 the epoch of a replica's broker (KIP-903).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.fetch import (
    EpochEndOffset,
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionData,
)
from pegel.protocol.schema import Message
from pegel_broker.handlers.context import Answer, Broker, Request
from pegel_broker.handlers.registry import handles
from pegel_broker.replication.fetch_session import Key, SessionError, SessionRequest
from pegel_broker.replication.results import FetchItem, FetchPlan, PartitionFetchResult

T = TypeVar("T")


@handles(ApiKey.FETCH)
def fetch(request: Request) -> Answer:
    message, broker, version = request.message, request.broker, request.version
    assert isinstance(message, FetchRequest)
    replica_id = message.replica_state.replica_id if version >= 15 else message.replica_id
    follower = replica_id >= 0
    if follower and request.session is not None and not request.session.is_broker:
        # Whoever could fetch as a follower could have records acknowledged that nobody holds.
        return FetchResponse(error_code=ErrorCode.CLUSTER_AUTHORIZATION_FAILED)
    named, forgotten = _items(message), _forgotten(message)
    try:
        resolved = broker.sessions.resolve(
            message.session_id,
            message.session_epoch if version >= 7 else -1,
            named,
            forgotten,
            follower=follower,
            now=broker.world.clock.monotonic(),
            by_id=version >= 13,
        )
    except SessionError as error:
        return FetchResponse(error_code=error.code)
    replicas = broker.replicas
    watched = resolved.incremental and replicas.standing.knows(replica_id)
    items = named if watched else resolved.items
    plan = FetchPlan(
        items=items,
        max_wait_ms=message.max_wait_ms,
        min_bytes=message.min_bytes,
        max_bytes=message.max_bytes,
        replica_id=replica_id,
        replica_epoch=message.replica_state.replica_epoch,
        read_committed=message.isolation_level == 1,
        rack=message.rack_id,
        allow_follower=version >= 11,
    )
    if watched:
        assert resolved.session is not None
        # Of what the session holds, only that which changed.
        return replicas.standing.fetch(
            plan, resolved.session, named, forgotten,
            lambda found: _respond(request, resolved, *found, follower=True),
        )  # fmt: skip
    results = replicas.fetch(plan)
    if not isinstance(results, asyncio.Future):
        return _respond(request, resolved, items, results, follower=follower)
    return _answer_later(
        results, lambda found: _respond(request, resolved, items, found, follower=follower)
    )


def _answer_later(
    results: asyncio.Future[T], respond: Callable[[T], FetchResponse]
) -> asyncio.Future[Message]:
    """The response, once there are results; no task is needed for that."""
    response: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def done(future: asyncio.Future[T]) -> None:
        if response.done() or future.cancelled():
            return
        error = future.exception()
        if error is not None:
            response.set_exception(error)
        else:
            response.set_result(respond(future.result()))

    results.add_done_callback(done)
    # A client that is gone must not be waited for.
    response.add_done_callback(lambda r: results.cancel() if r.cancelled() else None)
    return response


def _items(message: FetchRequest) -> list[FetchItem]:
    """Topics have a name before version 13 and an id from then on; the other one is empty."""
    return [
        FetchItem(
            topic.topic, topic.topic_id, p.partition, p.fetch_offset, p.partition_max_bytes,
            p.current_leader_epoch, p.last_fetched_epoch, p.log_start_offset,
        )
        for topic in message.topics
        for p in topic.partitions
    ]  # fmt: skip


def _forgotten(message: FetchRequest) -> list[Key]:
    return [
        (topic.topic, topic.topic_id, partition)
        for topic in message.forgotten_topics_data
        for partition in topic.partitions
    ]


def _respond(
    request: Request,
    resolved: SessionRequest,
    items: Sequence[FetchItem],
    results: Sequence[PartitionFetchResult],
    *,
    follower: bool,
) -> FetchResponse:
    replicas = request.broker.replicas
    topics: dict[tuple[str, UUID], list[PartitionData]] = {}
    leaders: set[int] = set()
    for item, result in resolved.visible(items, results):
        if result.size:
            replicas.count_sent(item, result.size, to_follower=follower)
        elif result.error and not follower:
            replicas.count_failed_fetch(item)
        data = PartitionData(
            partition_index=item.partition,
            error_code=result.error,
            high_watermark=result.high_watermark,
            last_stable_offset=result.last_stable_offset,
            log_start_offset=result.log_start_offset,
            preferred_read_replica=result.preferred_read_replica,
            records=result.records if result.size else b"",
        )
        if result.diverging is not None:
            epoch, end_offset = result.diverging
            data.diverging_epoch = EpochEndOffset(epoch=epoch, end_offset=end_offset)
        if result.leader_id >= 0:
            data.current_leader = LeaderIdAndEpoch(
                leader_id=result.leader_id, leader_epoch=result.leader_epoch
            )
            leaders.add(result.leader_id)
        topics.setdefault((item.topic, item.topic_id), []).append(data)
    return FetchResponse(
        session_id=resolved.session_id,
        responses=[
            FetchableTopicResponse(topic=name, topic_id=topic_id, partitions=partitions)
            for (name, topic_id), partitions in topics.items()
        ],
        node_endpoints=_endpoints(request.broker, leaders),
    )


def _endpoints(broker: Broker, leaders: set[int]) -> list[NodeEndpoint]:
    found = []
    for leader in sorted(leaders):
        state = broker.image.brokers.get(leader)
        if state is not None:
            found.append(
                NodeEndpoint(node_id=leader, host=state.host, port=state.port, rack=state.rack)
            )
    return found
