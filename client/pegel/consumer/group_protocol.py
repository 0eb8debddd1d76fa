"""What members of a consumer group tell each other: Kafka's own subscription and assignment.

The broker carries these bytes without looking into them, so that any client may be the leader of a
group of any others. Both formats grow at the end (KIP-429 added the owned partitions, KIP-792 the
generation, KIP-881 the rack): a reader takes what it knows and ignores the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pegel.types import TopicPartition

PROTOCOL_TYPE = "consumer"
_SUBSCRIPTION_VERSION = 3
_ASSIGNMENT_VERSION = 1
_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")
# No group has more; a length beyond it is damage, not a subscription.
_MAX_ITEMS = 1_000_000
NO_GENERATION = -1


class GroupProtocolError(ValueError):
    """Bytes of another member that are no subscription or assignment."""


@dataclass(frozen=True, slots=True)
class MemberSubscription:
    """What one member asks for.

    Attributes:
        topics: that it wants partitions of.
        owned: partitions that it has now, for assignors that leave them where they are.
        generation: in which it got them, ``NO_GENERATION`` if unknown.
        user_data: what the assignor of the member added.
        instance_id: of a static member (KIP-345); it orders members, not part of the bytes.
    """

    topics: tuple[str, ...]
    owned: tuple[TopicPartition, ...] = ()
    generation: int = NO_GENERATION
    user_data: bytes | None = None
    rack: str | None = None
    instance_id: str | None = None


def encode_subscription(subscription: MemberSubscription) -> bytes:
    """``ConsumerProtocolSubscription``, version 3."""
    out = [_INT16.pack(_SUBSCRIPTION_VERSION), _INT32.pack(len(subscription.topics))]
    out += [_string(topic) for topic in sorted(subscription.topics)]
    out.append(_bytes(subscription.user_data))
    out.append(encode_partitions(subscription.owned))
    out.append(_INT32.pack(subscription.generation))
    rack = subscription.rack
    out.append(_INT16.pack(-1) if not rack else _string(rack))
    return b"".join(out)


def decode_subscription(data: bytes, instance_id: str | None = None) -> MemberSubscription:
    """A subscription of any version.

    Raises:
        GroupProtocolError: the bytes are none.
    """
    reader = _Reader(data)
    version = reader.int16()
    topics = tuple(reader.required_string() for _ in range(reader.count()))
    user_data = reader.bytes() if reader.left else None
    owned: tuple[TopicPartition, ...] = ()
    generation, rack = NO_GENERATION, None
    if version >= 1 and reader.left:
        owned = reader.partitions()
    if version >= 2 and reader.left:
        generation = reader.int32()
    if version >= 3 and reader.left:
        rack = reader.string()
    return MemberSubscription(topics, owned, generation, user_data, rack, instance_id)


def encode_assignment(partitions: Iterable[TopicPartition]) -> bytes:
    """``ConsumerProtocolAssignment``."""
    return _INT16.pack(_ASSIGNMENT_VERSION) + encode_partitions(partitions) + _INT32.pack(-1)


def decode_assignment(data: bytes) -> tuple[TopicPartition, ...]:
    """The partitions of an assignment; empty bytes are an empty one.

    Raises:
        GroupProtocolError: the bytes are none.
    """
    if not data:
        return ()
    reader = _Reader(data)
    reader.int16()
    return reader.partitions()


def encode_partitions(partitions: Iterable[TopicPartition]) -> bytes:
    """Topics with their partitions, both sorted."""
    topics: dict[str, list[int]] = {}
    for topic, partition in sorted(partitions):
        topics.setdefault(topic, []).append(partition)
    out = [_INT32.pack(len(topics))]
    for topic, indexes in topics.items():
        out.append(_string(topic))
        out.append(struct.pack(f">i{len(indexes)}i", len(indexes), *indexes))
    return b"".join(out)


def encode_sticky_data(owned: Sequence[TopicPartition], generation: int) -> bytes:
    """What Kafka's ``sticky`` assignor puts into the user data: the last assignment."""
    return encode_partitions(owned) + _INT32.pack(generation)


def decode_sticky_data(data: bytes) -> tuple[tuple[TopicPartition, ...], int]:
    """The last assignment and its generation, which the first version of the format lacks.

    Raises:
        GroupProtocolError: the bytes are none.
    """
    reader = _Reader(data)
    owned = reader.partitions()
    return owned, reader.int32() if reader.left >= 4 else NO_GENERATION


def encode_generation(generation: int) -> bytes:
    """What Kafka's ``cooperative-sticky`` assignor puts into the user data."""
    return _INT32.pack(generation)


def decode_generation(data: bytes) -> int:
    return _INT32.unpack_from(data)[0] if len(data) >= 4 else NO_GENERATION


def _string(text: str) -> bytes:
    data = text.encode()
    return _INT16.pack(len(data)) + data


def _bytes(data: bytes | None) -> bytes:
    return _INT32.pack(-1) if data is None else _INT32.pack(len(data)) + data


class _Reader:
    """Reads values from the front; every read is checked against what is left."""

    def __init__(self, data: bytes) -> None:
        self._data = bytes(data)
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def _take(self, count: int) -> bytes:
        if count < 0 or count > self.left:
            raise GroupProtocolError(f"{count} bytes wanted, {self.left} left")
        self._at += count
        return self._data[self._at - count : self._at]

    def int16(self) -> int:
        value: int = _INT16.unpack(self._take(2))[0]
        return value

    def int32(self) -> int:
        value: int = _INT32.unpack(self._take(4))[0]
        return value

    def count(self) -> int:
        count = self.int32()
        if not 0 <= count <= min(_MAX_ITEMS, self.left):
            raise GroupProtocolError(f"{count} items do not fit in {self.left} bytes")
        return count

    def string(self) -> str | None:
        size = self.int16()
        if size < 0:
            return None
        try:
            return self._take(size).decode()
        except UnicodeDecodeError as error:
            raise GroupProtocolError(f"a name is no text: {error}") from None

    def required_string(self) -> str:
        text = self.string()
        if text is None:
            raise GroupProtocolError("a name is missing")
        return text

    def bytes(self) -> bytes | None:
        size = self.int32()
        return None if size < 0 else self._take(size)

    def partitions(self) -> tuple[TopicPartition, ...]:
        found: list[TopicPartition] = []
        for _ in range(self.count()):
            topic = self.required_string()
            found += [TopicPartition(topic, self.int32()) for _ in range(self.count())]
        return tuple(found)
