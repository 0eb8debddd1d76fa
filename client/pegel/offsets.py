"""Offsets of partitions by time, asked of their leaders (ListOffsets)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from pegel.cluster import Cluster
from pegel.errors import BrokerError, PegelError, RequestTimeoutError, broker_error
from pegel.network.pool import Endpoint
from pegel.portions import in_portions
from pegel.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from pegel.types import TopicPartition

# Times with a meaning of their own.
LATEST = -1
EARLIEST = -2
MAX_TIMESTAMP = -3


class OffsetAndTime(NamedTuple):
    """An offset, the time of its record in milliseconds and the epoch of the leader that wrote it.

    All are -1 where there is no such record: none is as late as asked for.
    """

    offset: int
    timestamp: int
    leader_epoch: int


async def list_offsets(
    cluster: Cluster,
    times: Mapping[TopicPartition, int],
    *,
    timeout: float,
    isolation_level: int = 0,
) -> dict[TopicPartition, OffsetAndTime]:
    """The first offset at or after each time (milliseconds, or one of the constants above).

    Leaders that moved are followed until the time-out.

    Raises:
        TopicNotFoundError, BrokerError, ConnectionFailedError: for the first partition without
            an answer.
    """
    found: dict[TopicPartition, OffsetAndTime] = {}
    deadline = cluster.clock.monotonic() + timeout
    missing = dict(times)
    errors: dict[TopicPartition, PegelError] = {}
    attempts = 0
    refreshed = False
    while missing:
        left = deadline - cluster.clock.monotonic()
        by_leader: dict[Endpoint, dict[TopicPartition, int]] = {}
        for tp, time in missing.items():
            topic = await cluster.metadata.topic(tp.topic, timeout=max(0.001, left))
            if tp.partition >= len(topic.partitions) and not refreshed:
                # The topic may have grown since it was last described.
                refreshed = True
                await cluster.metadata.refresh(timeout=max(0.001, left))
                topic = await cluster.metadata.topic(tp.topic, timeout=max(0.001, left))
            if not 0 <= tp.partition < len(topic.partitions):
                raise broker_error(3, str(tp), f"the topic has {len(topic.partitions)} partitions")
            leader = cluster.metadata.view.leader(*tp)
            if leader is None:
                errors[tp] = broker_error(5, str(tp))
            else:
                by_leader.setdefault(leader, {})[tp] = time
        answers = await asyncio.gather(
            *(
                _ask(cluster, leader, dict(portion), isolation_level, max(0.001, left), timeout)
                for leader, wanted in by_leader.items()
                for portion in in_portions(wanted.items())
            )
        )
        for answer, failed in answers:
            found.update(answer)
            for tp, error in failed.items():
                # Of the last moment: that there was no time to hear it again says nothing.
                if tp not in errors or left > timeout / 10 or isinstance(error, BrokerError):
                    errors[tp] = error
        missing = {tp: time for tp, time in missing.items() if tp not in found}
        if not missing:
            break
        told = [errors[tp] for tp in missing]
        final = next((e for e in told if not e.retriable), None)
        left = deadline - cluster.clock.monotonic()
        if final is not None or left <= 0:
            raise final or told[0]
        cluster.metadata.request_refresh()
        await asyncio.sleep(min(left, cluster.retry_pause(attempts)))
        attempts += 1
    return found


async def find_offsets(
    cluster: Cluster,
    times: Mapping[TopicPartition, int],
    *,
    timeout: float,
    isolation_level: int = 0,
) -> dict[TopicPartition, int]:
    """``list_offsets`` as plain offsets; where no record is that late, the end."""
    level = isolation_level
    found = await list_offsets(cluster, times, timeout=timeout, isolation_level=level)
    late = [tp for tp, answer in found.items() if answer.offset < 0]
    if late:
        found |= await list_offsets(
            cluster, dict.fromkeys(late, LATEST), timeout=timeout, isolation_level=level
        )
    return {tp: answer.offset for tp, answer in found.items()}


async def _ask(
    cluster: Cluster,
    leader: Endpoint,
    times: Mapping[TopicPartition, int],
    isolation_level: int,
    timeout: float,
    patience: float,
) -> tuple[dict[TopicPartition, OffsetAndTime], dict[TopicPartition, PegelError]]:
    topics: dict[str, ListOffsetsTopic] = {}
    for tp, time in times.items():
        topic = topics.setdefault(tp.topic, ListOffsetsTopic(name=tp.topic))
        known = cluster.metadata.view.partition(*tp)
        topic.partitions.append(
            ListOffsetsPartition(
                partition_index=tp.partition,
                current_leader_epoch=-1 if known is None else known.leader_epoch,
                timestamp=time,
            )
        )
    request = ListOffsetsRequest(
        replica_id=-1,
        isolation_level=isolation_level,
        topics=list(topics.values()),
        timeout_ms=int(timeout * 1000),
    )
    try:
        async with asyncio.timeout(timeout):
            response = await cluster.pool.ask(leader, request, ListOffsetsResponse, timeout=timeout)
    except TimeoutError:
        late = RequestTimeoutError(f"{leader} did not answer in {patience:.3g} s")
        return {}, dict.fromkeys(times, late)
    except PegelError as error:
        return {}, dict.fromkeys(times, error)
    found: dict[TopicPartition, OffsetAndTime] = {}
    errors: dict[TopicPartition, PegelError] = {}
    for answer in response.topics:
        for p in answer.partitions:
            tp = TopicPartition(answer.name, p.partition_index)
            if p.error_code:
                errors[tp] = broker_error(p.error_code, str(tp))
            else:
                found[tp] = OffsetAndTime(p.offset, p.timestamp, p.leader_epoch)
    for tp in times:
        if tp not in found and tp not in errors:
            errors[tp] = broker_error(13, str(tp), "the broker left it out of its answer")
    return found, errors
