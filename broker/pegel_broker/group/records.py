"""The records of ``__consumer_offsets``: Kafka's own keys and values, byte for byte.

A key starts with an int16 that says what it is: 0 and 1 an offset commit, 2 the metadata of a
group of the classic protocol. Numbers from 3 on are those of newer kinds of groups (KIP-848).
"""

from __future__ import annotations

import struct
import uuid
from typing import NamedTuple

from pegel.protocol.compiler import struct_codec
from pegel.protocol.schema import Struct, StructType, array, bytes_, int32, int64, string, uuid_
from pegel.protocol.wire import Budget, TagWriter
from pegel_broker.coordinator.effects import Record

OFFSET_COMMIT_KEYS = (0, 1)
GROUP_METADATA_KEY = 2
# What Kafka 4.3 writes. Version 1 of an offset carries its own time to expire.
OFFSET_COMMIT_KEY_VERSION = 1
OFFSET_COMMIT_VERSION = 4
OFFSET_COMMIT_WITH_EXPIRY_VERSION = 1
GROUP_METADATA_VERSION = 3
NEWEST_READABLE_VERSION = 4
FLEXIBLE_FROM = 4
# Members of a group, in one record.
MAX_ELEMENTS = 1_000_000
NO_EXPIRY = -1
# Of a text in these records: its size is an int16. A request of today's versions can hold more.
STRING_MAX_BYTES = 32_767

_INT16 = struct.Struct(">h")
_DECODE_ERRORS = (struct.error, IndexError, ValueError, OverflowError)


def is_too_long(text: str) -> bool:
    """Whether no record can hold it."""
    return len(text.encode()) > STRING_MAX_BYTES


class RecordError(ValueError):
    """Bytes that are no record of this topic."""


class OffsetCommitKey(Struct):
    group: str = string("0+")
    topic: str = string("0+")
    partition: int = int32("0+")


class OffsetCommitValue(Struct):
    """``metadata`` is the client's own; times in ms since the epoch."""

    offset: int = int64("0+")
    leader_epoch: int = int32("3+", -1)
    metadata: str = string("0+")
    commit_timestamp: int = int64("0+")
    expire_timestamp: int = int64("1", NO_EXPIRY)
    topic_id: uuid.UUID = uuid_("4+", tag=0)


class GroupMetadataKey(Struct):
    group: str = string("0+")


class MemberMetadata(Struct):
    """Time-outs in ms."""

    member_id: str = string("0+")
    group_instance_id: str | None = string("3+", None, nullable="3+")
    client_id: str = string("0+")
    client_host: str = string("0+")
    rebalance_timeout: int = int32("1+")
    session_timeout: int = int32("0+")
    subscription: bytes = bytes_("0+")
    assignment: bytes = bytes_("0+")


class GroupMetadataValue(Struct):
    protocol_type: str = string("0+")
    generation: int = int32("0+")
    protocol: str | None = string("0+", nullable="0+")
    leader: str | None = string("0+", nullable="0+")
    current_state_timestamp: int = int64("2+", -1)
    members: list[MemberMetadata] = array(MemberMetadata, "0+")


class OffsetRecord(NamedTuple):
    """A committed offset, or with a value of None the end of one."""

    key: OffsetCommitKey
    value: OffsetCommitValue | None


class GroupRecord(NamedTuple):
    """What was decided of a group last, or with a value of None its end."""

    key: GroupMetadataKey
    value: GroupMetadataValue | None


def offset_record(
    group: str, topic: str, partition: int, value: OffsetCommitValue | None
) -> Record:
    key = OffsetCommitKey(group=group, topic=topic, partition=partition)
    encoded = None
    if value is not None:
        expires = value.expire_timestamp != NO_EXPIRY
        version = OFFSET_COMMIT_WITH_EXPIRY_VERSION if expires else OFFSET_COMMIT_VERSION
        encoded = _encode(value, version)
    return Record(_encode(key, OFFSET_COMMIT_KEY_VERSION, flexible=False), encoded)


def group_record(group: str, value: GroupMetadataValue | None) -> Record:
    encoded = None if value is None else _encode(value, GROUP_METADATA_VERSION)
    return Record(
        _encode(GroupMetadataKey(group=group), GROUP_METADATA_KEY, flexible=False), encoded
    )


def read_record(record: Record) -> OffsetRecord | GroupRecord | None:
    """None for a kind of record that this release does not know.

    Raises:
        RecordError: bytes that are no such record.
    """
    if len(record.key) < 2:
        raise RecordError("a record key without a version")
    (kind,) = _INT16.unpack_from(record.key)
    value = record.value
    if kind in OFFSET_COMMIT_KEYS:
        key = _decode(OffsetCommitKey, record.key, key=True)
        return OffsetRecord(key, None if value is None else _decode(OffsetCommitValue, value))
    if kind == GROUP_METADATA_KEY:
        group_key = _decode(GroupMetadataKey, record.key, key=True)
        return GroupRecord(group_key, None if value is None else _decode(GroupMetadataValue, value))
    return None


def _encode(message: Struct, version: int, *, flexible: bool | None = None) -> bytes:
    writer = TagWriter()
    writer.buffer += _INT16.pack(version)
    flexible = version >= FLEXIBLE_FROM if flexible is None else flexible
    struct_codec(type(message), version, flexible).encode(message, writer)
    return writer.joined()


def _decode(cls: StructType, data: bytes, *, key: bool = False):  # type: ignore[no-untyped-def]
    try:
        (version,) = _INT16.unpack_from(data)
        if not key and not 0 <= version <= NEWEST_READABLE_VERSION:
            raise RecordError(f"{cls.__name__} has no version {version}")
        flexible = not key and version >= FLEXIBLE_FROM
        decode = struct_codec(cls, version, flexible).decode
        message, end = decode(memoryview(data), 2, Budget(MAX_ELEMENTS))
    except RecordError:
        raise
    except _DECODE_ERRORS as error:
        raise RecordError(f"{cls.__name__}: {error}") from None
    if end > len(data):
        raise RecordError(f"{cls.__name__} ends behind its record")
    return message
