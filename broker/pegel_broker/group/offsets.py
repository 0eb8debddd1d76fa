"""The committed offsets of one group, and when they end."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pegel_broker.group.records import NO_EXPIRY, OffsetCommitValue


class CommittedOffset(NamedTuple):
    """Times in ms since the epoch; ``expire_timestamp`` -1 where retention decides."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp: int
    expire_timestamp: int
    topic_id: uuid.UUID

    @classmethod
    def from_value(cls, value: OffsetCommitValue) -> CommittedOffset:
        return cls(
            value.offset, value.leader_epoch, value.metadata, value.commit_timestamp,
            value.expire_timestamp, value.topic_id,
        )  # fmt: skip


class OffsetTable:
    """Offsets by topic and partition."""

    __slots__ = ("_by_topic", "_count")

    def __init__(self) -> None:
        self._by_topic: dict[str, dict[int, CommittedOffset]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, int, CommittedOffset]]:
        for topic in sorted(self._by_topic):
            for partition, offset in sorted(self._by_topic[topic].items()):
                yield topic, partition, offset

    def topics(self) -> list[str]:
        return sorted(self._by_topic)

    def partitions(self, topic: str) -> list[int]:
        return sorted(self._by_topic.get(topic, ()))

    def get(self, topic: str, partition: int) -> CommittedOffset | None:
        return self._by_topic.get(topic, {}).get(partition)

    def put(self, topic: str, partition: int, offset: CommittedOffset) -> None:
        of_topic = self._by_topic.setdefault(topic, {})
        self._count += partition not in of_topic
        of_topic[partition] = offset

    def remove(self, topic: str, partition: int) -> bool:
        """Whether there was one."""
        of_topic = self._by_topic.get(topic)
        if of_topic is None or of_topic.pop(partition, None) is None:
            return False
        self._count -= 1
        if not of_topic:
            del self._by_topic[topic]
        return True

    def expired(
        self,
        now_ms: int,
        retention_ms: int,
        *,
        idle_since_ms: int | None,
        subscribed: Iterable[str],
    ) -> list[tuple[str, int]]:
        """Offsets whose time is over (KIP-211).

        It counts from the commit, or from ``idle_since_ms`` where the group has lost its last
        member since. Offsets of topics that members are ``subscribed`` to stay.
        """
        kept = set(subscribed)
        found = []
        for topic, partition, offset in self:
            if topic in kept:
                continue
            if offset.expire_timestamp != NO_EXPIRY:
                over = now_ms >= offset.expire_timestamp
            else:
                since = offset.commit_timestamp
                if idle_since_ms is not None:
                    since = max(since, idle_since_ms)
                over = now_ms - since >= retention_ms
            if over:
                found.append((topic, partition))
        return found
