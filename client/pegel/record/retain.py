"""Takes records out of a batch and leaves its range of offsets as it is: what compaction does.

Kept records are copied as they stand. Base offset, last offset delta, the producer's fields and
the leader epoch of a batch never change, so that offsets, sequences and epochs keep their meaning.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import crc32c

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import HEADER_SIZE, LENGTH_OVERHEAD, BatchHeader
from pegel.record.compression import Buffer, Codec, CorruptBatchError, compress, decompress
from pegel.record.decode import DEFAULT_MAX_BYTES
from pegel.record.varint import decode as read_varint
from pegel.record.varint import encode as varint

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CODEC_MASK, _LOG_APPEND_TIME, _DELETE_HORIZON = 0x07, 0x08, 0x40
# Offset, key, whether the value is null (a tombstone): whether the record stays.
Keep = Callable[[int, bytes | None, bool], bool]


class _Record(NamedTuple):
    """Where a record lies in its section; ``rest`` is where its offset delta begins."""

    start: int
    body: int
    rest: int
    end: int
    timestamp_delta: int
    offset_delta: int
    key: bytes | None
    is_tombstone: bool


def keyed_records(
    buffer: Buffer, position: int, header: BatchHeader, max_bytes: int = DEFAULT_MAX_BYTES
) -> Iterator[tuple[int, bytes | None]]:
    """Offset and key of each record, in order.

    Raises:
        CorruptBatchError: the records cannot be read.
    """
    section = _section(buffer, position, header, max_bytes)
    for record in _records(section, header):
        yield header.base_offset + record.offset_delta, record.key


def retain_records(
    buffer: Buffer,
    position: int,
    header: BatchHeader,
    keep: Keep,
    *,
    delete_horizon_ms: int | None = None,
    keep_empty: bool = False,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Buffer | None:
    """The batch with the records that ``keep`` says; ``None`` where none is left.

    Args:
        delete_horizon_ms: when tombstones may go (KIP-534): noted in a batch that has some and
            has no horizon yet. The base timestamp holds it, so the deltas are written anew.
        keep_empty: leave a batch without records rather than none.

    Raises:
        CorruptBatchError: the records cannot be read.
    """
    section = _section(buffer, position, header, max_bytes)
    kept = [
        record
        for record in _records(section, header)
        if keep(header.base_offset + record.offset_delta, record.key, record.is_tombstone)
    ]
    sets_horizon = (
        delete_horizon_ms is not None
        and not header.attributes & _DELETE_HORIZON
        and any(record.is_tombstone for record in kept)
    )
    if len(kept) == header.record_count and not sets_horizon:
        return memoryview(buffer)[position : position + header.size]
    if not kept:
        return empty_batch(header) if keep_empty else None
    max_timestamp = header.max_timestamp
    if not header.attributes & _LOG_APPEND_TIME:
        max_timestamp = header.base_timestamp + max(record.timestamp_delta for record in kept)
    attributes, base_timestamp = header.attributes, header.base_timestamp
    if sets_horizon:
        assert delete_horizon_ms is not None
        attributes |= _DELETE_HORIZON
        shift = base_timestamp - delete_horizon_ms
        base_timestamp = delete_horizon_ms
        pieces = [_moved(section, record, shift) for record in kept]
    else:
        pieces = [section[record.start : record.end] for record in kept]
    payload: Buffer = b"".join(pieces)
    codec = header.codec
    if codec is not Codec.NONE:
        payload = compress(codec, payload)
    return _batch(header, attributes, base_timestamp, max_timestamp, len(kept), payload)


def empty_batch(header: BatchHeader) -> bytearray:
    """A batch without records that stands for the same offsets and the same producer."""
    return _batch(
        header,
        header.attributes & ~_CODEC_MASK,
        header.base_timestamp,
        header.max_timestamp,
        0,
        b"",
    )


def _batch(
    header: BatchHeader,
    attributes: int,
    base_timestamp: int,
    max_timestamp: int,
    count: int,
    payload: Buffer,
) -> bytearray:
    batch = bytearray(HEADER_SIZE)
    batch += payload
    _HEADER.pack_into(
        batch, 0, header.base_offset, len(batch) - LENGTH_OVERHEAD, header.partition_leader_epoch,
        header.magic, 0, attributes, header.last_offset_delta, base_timestamp, max_timestamp,
        header.producer_id, header.producer_epoch, header.base_sequence, count,
    )  # fmt: skip
    with memoryview(batch) as view:
        batch[17:21] = crc32c.crc32c(view[21:]).to_bytes(4, "big")
    return batch


def _moved(section: bytes, record: _Record, shift: int) -> bytes:
    """The record with its timestamp told from a base that is ``shift`` ms earlier."""
    body = (
        section[record.body : record.body + 1]
        + varint(record.timestamp_delta + shift)
        + section[record.rest : record.end]
    )
    return varint(len(body)) + body


def _section(buffer: Buffer, position: int, header: BatchHeader, max_bytes: int) -> bytes:
    view = memoryview(buffer)[position + HEADER_SIZE : position + header.size]
    if not header.record_count:
        return b""
    return bytes(decompress(header.codec, view, max_bytes))


def _records(section: bytes, header: BatchHeader) -> Iterator[_Record]:
    try:
        at = 0
        for _ in range(header.record_count):
            start = at
            length, body = read_varint(section, at)
            end = body + length
            if length < 0 or end > len(section):
                raise _unreadable("a record ends behind its batch")
            timestamp_delta, rest = read_varint(section, body + 1)
            offset_delta, at = read_varint(section, rest)
            if not 0 <= offset_delta <= header.last_offset_delta:
                raise _unreadable(f"offset delta {offset_delta} is not in its batch")
            size, at = read_varint(section, at)
            key = None
            if size >= 0:
                key = section[at : at + size]
                at += size
            size, at = read_varint(section, at)
            if at + max(size, 0) > end:
                raise _unreadable("a record's length and its fields differ")
            yield _Record(start, body, rest, end, timestamp_delta, offset_delta, key, size < 0)
            at = end
    except (IndexError, ValueError) as error:
        if isinstance(error, CorruptBatchError):
            raise
        raise _unreadable(f"a record cannot be decoded: {error}") from None
    if at != len(section):
        raise _unreadable(f"{len(section) - at} bytes behind the last record")


def _unreadable(message: str) -> CorruptBatchError:
    return CorruptBatchError(ErrorCode.INVALID_RECORD, message)
