"""OffsetCommit, OffsetFetch, OffsetDelete: how far a group has read.

A commit is answered when it is committed to ``__consumer_offsets`` by every in-sync replica. What a
fetch tells is committed likewise.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from uuid import UUID

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from pegel.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from pegel.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)
from pegel_broker.coordinator.runtime import coordinator_error
from pegel_broker.group.offsets import CommittedOffset
from pegel_broker.group.records import NO_EXPIRY, OffsetCommitValue
from pegel_broker.group.shard import GroupShard, OffsetToCommit
from pegel_broker.handlers.context import Answer, Broker, Request
from pegel_broker.handlers.group_membership import ask_group, then
from pegel_broker.handlers.registry import handles

_Key = tuple[str, int]
_NOTHING = CommittedOffset(-1, -1, "", -1, -1, UUID(int=0))


@handles(ApiKey.OFFSET_COMMIT)
def offset_commit(request: Request) -> Answer:
    message, broker = request.message, request.broker
    assert isinstance(message, OffsetCommitRequest)
    offsets, unknown = _to_commit(broker, message)
    if not offsets and unknown:
        return _committed(message, unknown)
    found = ask_group(
        broker,
        message.group_id,
        lambda s, now, h: s.commit_offsets(now, message, offsets, request.version, h),
    )

    def answer(errors: Sequence[ErrorCode]) -> OffsetCommitResponse:
        told = {(o.topic, o.partition): e for o, e in zip(offsets, errors, strict=True)}
        return _committed(message, {**unknown, **told})

    if isinstance(found, ErrorCode):
        return answer([found] * len(offsets))
    return then(found, answer)


def _to_commit(
    broker: Broker, message: OffsetCommitRequest
) -> tuple[list[OffsetToCommit], dict[_Key, ErrorCode]]:
    """What may be committed, and the partitions that there are none of."""
    now_ms = broker.world.clock.wall_ms()
    expires = NO_EXPIRY
    if message.retention_time_ms >= 0:  # versions 2 to 4
        expires = now_ms + message.retention_time_ms
    offsets: list[OffsetToCommit] = []
    unknown: dict[_Key, ErrorCode] = {}
    for topic in message.topics:
        state = broker.image.topics_by_name.get(topic.name)
        for p in topic.partitions:
            if state is None or not 0 <= p.partition_index < len(state.partitions):
                key = topic.name, p.partition_index
                unknown[key] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                continue
            value = OffsetCommitValue(
                offset=p.committed_offset,
                leader_epoch=p.committed_leader_epoch,
                metadata=p.committed_metadata or "",
                commit_timestamp=now_ms,
                expire_timestamp=expires,
                topic_id=state.topic_id,
            )
            offsets.append(OffsetToCommit(topic.name, p.partition_index, value))
    return offsets, unknown


def _committed(message: OffsetCommitRequest, errors: dict[_Key, ErrorCode]) -> OffsetCommitResponse:
    return OffsetCommitResponse(
        topics=[
            OffsetCommitResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetCommitResponsePartition(
                        partition_index=p.partition_index,
                        error_code=errors[topic.name, p.partition_index],
                    )
                    for p in topic.partitions
                ],
            )
            for topic in message.topics
        ]
    )


# -- OffsetFetch


@handles(ApiKey.OFFSET_FETCH)
def offset_fetch(request: Request) -> OffsetFetchResponse:
    """Version 8 asks for many groups at once."""
    message, broker = request.message, request.broker
    assert isinstance(message, OffsetFetchRequest)
    if request.version >= 8:
        # A group that is named twice is answered once: all it ever committed may be a lot.
        groups = {group.group_id: group for group in message.groups}
        return OffsetFetchResponse(
            groups=[
                _fetch_group(
                    broker,
                    group.group_id,
                    None
                    if group.topics is None
                    else [(t.name, t.partition_indexes) for t in group.topics],
                )
                for group in groups.values()
            ]
        )
    wanted = (
        None if message.topics is None
        else [(t.name, t.partition_indexes) for t in message.topics]
    )  # fmt: skip
    error, shard = _shard_of(broker, message.group_id)
    if error and request.version >= 2:
        return OffsetFetchResponse(error_code=error)
    return OffsetFetchResponse(
        topics=[
            OffsetFetchResponseTopic(
                name=topic,
                partitions=[
                    OffsetFetchResponsePartition(
                        partition_index=partition,
                        committed_offset=found.offset,
                        committed_leader_epoch=found.leader_epoch,
                        metadata=found.metadata,
                        error_code=error,
                    )
                    for partition, found in partitions
                ],
            )
            for topic, partitions in _offsets(shard, message.group_id, wanted)
        ]
    )


def _shard_of(broker: Broker, group_id: str) -> tuple[ErrorCode, GroupShard | None]:
    coordinators = broker.coordinators
    partition = coordinators.group_partition(group_id)
    error = coordinators.groups.check(partition)
    return error, None if error else coordinators.groups.machine(partition)


def _fetch_group(
    broker: Broker, group_id: str, wanted: list[tuple[str, list[int]]] | None
) -> OffsetFetchResponseGroup:
    error, shard = _shard_of(broker, group_id)
    if error:
        return OffsetFetchResponseGroup(group_id=group_id, error_code=error)
    return OffsetFetchResponseGroup(
        group_id=group_id,
        topics=[
            OffsetFetchResponseTopics(
                name=topic,
                partitions=[
                    OffsetFetchResponsePartitions(
                        partition_index=partition,
                        committed_offset=found.offset,
                        committed_leader_epoch=found.leader_epoch,
                        metadata=found.metadata,
                    )
                    for partition, found in partitions
                ],
            )
            for topic, partitions in _offsets(shard, group_id, wanted)
        ],
    )


def _offsets(
    shard: GroupShard | None, group_id: str, wanted: list[tuple[str, list[int]]] | None
) -> Iterable[tuple[str, list[tuple[int, CommittedOffset]]]]:
    """By topic: what is committed; -1 where there is nothing. ``wanted`` None: all there is."""
    if wanted is None:
        by_topic: dict[str, list[tuple[int, CommittedOffset]]] = {}
        for topic, partition, offset in [] if shard is None else shard.all_offsets(group_id):
            by_topic.setdefault(topic, []).append((partition, offset))
        return by_topic.items()
    return [
        (
            topic,
            [
                (p, (None if shard is None else shard.offset(group_id, topic, p)) or _NOTHING)
                for p in partitions
            ],
        )
        for topic, partitions in wanted
    ]


# -- OffsetDelete


@handles(ApiKey.OFFSET_DELETE)
def offset_delete(request: Request) -> Answer:
    """Refused for topics that members of the group subscribe to."""
    message, broker = request.message, request.broker
    assert isinstance(message, OffsetDeleteRequest)
    known: list[_Key] = []
    errors: dict[_Key, ErrorCode] = {}
    for topic in message.topics:
        state = broker.image.topics_by_name.get(topic.name)
        for p in topic.partitions:
            key = topic.name, p.partition_index
            if state is None or not 0 <= p.partition_index < len(state.partitions):
                errors[key] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            else:
                known.append(key)
    found = ask_group(
        broker, message.group_id, lambda s, now, h: s.delete_offsets(message.group_id, known, h)
    )

    def answer(result: ErrorCode | Sequence[ErrorCode]) -> OffsetDeleteResponse:
        if isinstance(result, ErrorCode):
            return OffsetDeleteResponse(error_code=coordinator_error(result))
        errors.update(zip(known, result, strict=True))
        return _deleted(message, errors)

    return answer(found) if isinstance(found, ErrorCode) else then(found, answer)


def _deleted(message: OffsetDeleteRequest, errors: dict[_Key, ErrorCode]) -> OffsetDeleteResponse:
    return OffsetDeleteResponse(
        topics=[
            OffsetDeleteResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetDeleteResponsePartition(
                        partition_index=p.partition_index,
                        error_code=errors[topic.name, p.partition_index],
                    )
                    for p in topic.partitions
                ],
            )
            for topic in message.topics
        ]
    )
