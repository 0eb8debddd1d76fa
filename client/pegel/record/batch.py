"""The header of a record batch (magic 2, KIP-98) and the checks that need no decoding.

Everything here takes a buffer and a position, copies nothing, and costs the same however many
records a batch holds (the checksum, in hardware, is the only pass over the bytes).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

import crc32c

from pegel.protocol.errors import ErrorCode
from pegel.record.compression import Buffer, Codec, CorruptBatchError

MAGIC = 2
HEADER_SIZE = 61
# What ``batch_length`` does not count: the base offset and itself.
LENGTH_OVERHEAD = 12
# Lengths, attributes, deltas, a null key, a null value, no headers: one byte each.
MIN_RECORD_SIZE = 7
MAX_SEQUENCE = 0x7FFFFFFF
NO_PRODUCER_ID = -1
NO_SEQUENCE = -1
NO_TIMESTAMP = -1

_HEADER = struct.Struct(">qiibIhiqqqhii")
_LENGTH = struct.Struct(">i")
_OFFSET = struct.Struct(">q")
_CRC = struct.Struct(">I")
_LENGTH_AT, _EPOCH_AT, _MAGIC_AT, _CRC_AT, _ATTRIBUTES_AT = 8, 12, 16, 17, 21
_MAX_TIMESTAMP_AT = 35
_CODEC_MASK, _LOG_APPEND_TIME, _TRANSACTIONAL, _CONTROL = 0x07, 0x08, 0x10, 0x20
_HAS_DELETE_HORIZON = 0x40


class BatchHeader(NamedTuple):
    """The fields of a batch's header in wire order; offsets count records, times are in ms."""

    base_offset: int
    batch_length: int
    partition_leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.batch_length + LENGTH_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def codec(self) -> Codec:
        """Raises ValueError for a number that names no codec (``check_batch`` refuses those)."""
        return Codec(self.attributes & _CODEC_MASK)

    @property
    def is_transactional(self) -> bool:
        return bool(self.attributes & _TRANSACTIONAL)

    @property
    def is_control(self) -> bool:
        return bool(self.attributes & _CONTROL)

    @property
    def has_delete_horizon(self) -> bool:
        """The base timestamp is when its tombstones may go (KIP-534)."""
        return bool(self.attributes & _HAS_DELETE_HORIZON)

    @property
    def uses_log_append_time(self) -> bool:
        return bool(self.attributes & _LOG_APPEND_TIME)

    @property
    def has_producer_id(self) -> bool:
        return self.producer_id >= 0

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record; they wrap from 2^31 - 1 to 0."""
        if self.base_sequence == NO_SEQUENCE:
            return NO_SEQUENCE
        return (self.base_sequence + self.last_offset_delta) & MAX_SEQUENCE


def _corrupt(message: str) -> CorruptBatchError:
    return CorruptBatchError(ErrorCode.CORRUPT_MESSAGE, message)


def _invalid(message: str) -> CorruptBatchError:
    return CorruptBatchError(ErrorCode.INVALID_RECORD, message)


def read_header(buffer: Buffer, position: int = 0) -> BatchHeader:
    """The header at ``position``, unchecked.

    Raises:
        CorruptBatchError: fewer than ``HEADER_SIZE`` bytes are left.
    """
    if len(buffer) - position < HEADER_SIZE:
        raise _corrupt(f"a batch header takes {HEADER_SIZE} bytes, {len(buffer) - position} left")
    return BatchHeader._make(_HEADER.unpack_from(buffer, position))


def iter_batches(buffer: Buffer, position: int = 0) -> Iterator[tuple[int, BatchHeader]]:
    """Position and header of each whole batch; a torn one at the end is left out.

    Raises:
        CorruptBatchError: a length that no batch can have.
    """
    end = len(buffer)
    while end - position >= HEADER_SIZE:
        header = BatchHeader._make(_HEADER.unpack_from(buffer, position))
        if header.batch_length < HEADER_SIZE - LENGTH_OVERHEAD:
            raise _corrupt(f"a batch of {header.batch_length} bytes at {position}")
        if header.size > end - position:
            return
        yield position, header
        position += header.size


def whole_batches_size(buffer: Buffer, position: int = 0) -> int:
    """Bytes of the whole batches from ``position`` on, without reading more than their lengths."""
    start, end = position, len(buffer)
    while end - position >= HEADER_SIZE:
        size = _LENGTH.unpack_from(buffer, position + _LENGTH_AT)[0] + LENGTH_OVERHEAD
        if size < HEADER_SIZE or size > end - position:
            break
        position += size
    return position - start


def compute_crc(buffer: Buffer, position: int, size: int) -> int:
    """CRC-32C of the batch of ``size`` bytes at ``position`` (from the attributes to its end)."""
    return crc32c.crc32c(memoryview(buffer)[position + _ATTRIBUTES_AT : position + size])


def check_batch(
    buffer: Buffer, position: int, header: BatchHeader, *, client: bool = False
) -> None:
    """Refuse a batch that breaks the format; ``client`` adds what only a leader may write.

    Raises:
        CorruptBatchError: CORRUPT_MESSAGE for damage, INVALID_RECORD for a batch that is whole
            but not legal, UNSUPPORTED_FOR_MESSAGE_FORMAT for another magic.
    """
    if header.magic != MAGIC:
        # Kafka 4 stores magic 2 alone and calls anything else an invalid record (KIP-724).
        raise _invalid(f"record batches have magic {MAGIC}, this one has {header.magic}")
    if header.batch_length < HEADER_SIZE - LENGTH_OVERHEAD:
        raise _corrupt(f"a batch cannot be {header.batch_length} bytes long")
    if header.size > len(buffer) - position:
        raise _corrupt(f"a batch of {header.size} bytes, {len(buffer) - position} are here")
    if compute_crc(buffer, position, header.size) != header.crc:
        raise _corrupt(
            f"Record is corrupt (stored crc = {header.crc}, "
            f"computed crc = {compute_crc(buffer, position, header.size)})"
        )
    codec = header.attributes & _CODEC_MASK
    if codec > Codec.ZSTD:
        raise _invalid(f"there is no compression codec {codec}")
    if header.record_count < 0 or header.last_offset_delta < 0:
        raise _invalid("the count of records is negative")
    if header.record_count > header.last_offset_delta + 1:
        # Fewer is legal: compaction takes records out and keeps the range of offsets.
        raise _invalid(
            f"{header.record_count} records, but offsets for {header.last_offset_delta + 1}"
        )
    if codec == Codec.NONE and (header.record_count * MIN_RECORD_SIZE > header.size - HEADER_SIZE):
        raise _invalid(f"{header.record_count} records do not fit in {header.size} bytes")
    if client:
        _check_client_batch(header)


def _check_client_batch(header: BatchHeader) -> None:
    # The leader rewrites it. Kafka sees it only where it decodes the records, and there are
    # clients that pass batches on as they read them.
    if header.base_offset != 0 and header.attributes & _CODEC_MASK:
        raise _invalid(f"a producer's batch starts at offset 0, not at {header.base_offset}")
    if header.record_count == 0:
        raise _invalid("a producer's batch has at least one record")
    if header.last_offset_delta != header.record_count - 1:
        raise _invalid(
            f"last offset delta {header.last_offset_delta} and count {header.record_count} differ"
        )
    if header.is_control:
        raise _invalid("a producer may not write control records")
    if header.producer_id >= 0 and (header.base_sequence < 0 or header.producer_epoch < 0):
        raise _invalid("a batch with a producer id has a producer epoch and a sequence")
    if header.is_transactional and header.producer_id < 0:
        raise _invalid("a transactional batch has a producer id")


def set_base_offset(buffer: bytearray | memoryview, position: int, offset: int) -> None:
    """Assign the batch its place in the log; the base offset is outside of the CRC."""
    _OFFSET.pack_into(buffer, position, offset)


def set_leader_epoch(buffer: bytearray | memoryview, position: int, epoch: int) -> None:
    """Stamp the epoch of the leader that appends; outside of the CRC."""
    _LENGTH.pack_into(buffer, position + _EPOCH_AT, epoch)


def set_log_append_time(buffer: bytearray | memoryview, position: int, time_ms: int) -> None:
    """Make ``time_ms`` the time of every record (LogAppendTime) and recompute the CRC."""
    size = _LENGTH.unpack_from(buffer, position + _LENGTH_AT)[0] + LENGTH_OVERHEAD
    view = memoryview(buffer)
    view[position + _ATTRIBUTES_AT + 1] |= _LOG_APPEND_TIME
    _OFFSET.pack_into(view, position + _MAX_TIMESTAMP_AT, time_ms)
    _CRC.pack_into(view, position + _CRC_AT, compute_crc(view, position, size))
