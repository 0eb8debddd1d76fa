"""Values that producers and consumers hand to their callers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pegel.record import RecordColumns

Headers = Sequence[tuple[str, bytes | None]]


class TopicPartition(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


def check_topic_name(name: object) -> None:
    """Raises TypeError: a topic is named by text."""
    if not isinstance(name, str):
        raise TypeError(f"a topic's name is text, not {type(name).__name__}: {name!r}")


def check_partition_number(partition: object) -> None:
    """Raises TypeError: partitions are kept under their numbers."""
    if type(partition) is not int:
        raise TypeError(f"a partition is an int, not {type(partition).__name__}: {partition!r}")


class CommittedOffset(NamedTuple):
    """A position that a group keeps: the offset of the next record to read.

    ``leader_epoch`` is that of the record before it, -1 if unknown: with it a consumer that goes
    on there notices records lost meanwhile (KIP-320). ``metadata`` is free text.
    """

    offset: int
    leader_epoch: int = -1
    metadata: str = ""


class RecordMetadata(NamedTuple):
    """Where an acknowledged record is.

    ``offset`` is -1 where nobody knows it: with acks=0, and for a duplicate of a batch so old
    that the broker forgot its place. ``timestamp`` is in milliseconds since the epoch.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class OffsetRange:
    """Consecutive records of one call that are acknowledged in one partition.

    ``first_offset`` is -1 where ``RecordMetadata.offset`` would be; ``count`` is in records.
    """

    topic: str
    partition: int
    first_offset: int
    count: int
    timestamp: int


@dataclass(frozen=True, slots=True)
class SendResult:
    """What ``send_many`` wrote; ranges are in the order in which each partition got them."""

    ranges: tuple[OffsetRange, ...]

    @property
    def count(self) -> int:
        """Records acknowledged."""
        return sum(r.count for r in self.ranges)


@dataclass(frozen=True, slots=True)
class ConsumerRecord:
    """One record; ``timestamp`` in milliseconds since the epoch."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


class ConsumerBatch:
    """Records of one partition as columns; objects are made only when asked for."""

    __slots__ = ("columns", "partition", "topic")

    def __init__(self, topic: str, partition: int, columns: RecordColumns) -> None:
        self.topic = topic
        self.partition = partition
        self.columns = columns

    @property
    def offsets(self) -> Sequence[int]:
        """Ascending, one a record, with gaps where records are left out (compaction)."""
        return self.columns.offsets

    @property
    def timestamps(self) -> Sequence[int]:
        """Milliseconds since the epoch, one a record."""
        return self.columns.timestamps

    @property
    def keys(self) -> Sequence[bytes | None]:
        """One a record; ``None`` for a record without a key."""
        return self.columns.keys

    @property
    def values(self) -> Sequence[bytes | None]:
        """One a record; ``None`` for a tombstone."""
        return self.columns.values

    @property
    def headers(self) -> Sequence[tuple[tuple[str, bytes | None], ...]]:
        """Name and value pairs of each record, in their order; an empty tuple for none."""
        return self.columns.headers

    def __len__(self) -> int:
        return len(self.columns)

    def __iter__(self) -> Iterator[ConsumerRecord]:
        topic, partition, columns = self.topic, self.partition, self.columns
        for offset, timestamp, key, value, headers in zip(
            columns.offsets,
            columns.timestamps,
            columns.keys,
            columns.values,
            columns.headers,
            strict=True,
        ):
            yield ConsumerRecord(topic, partition, offset, timestamp, key, value, headers)

    def __repr__(self) -> str:
        return f"ConsumerBatch({self.topic}-{self.partition}, {len(self)} records)"
