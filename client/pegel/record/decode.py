"""Decodes the records of one batch into columns; a ``Record`` is made only when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import HEADER_SIZE, BatchHeader, check_batch, read_header
from pegel.record.compression import Buffer, CorruptBatchError, decompress
from pegel.record.runs import MIN_RUN, read_run
from pegel.record.varint import decode as read_varint

# A producer's largest request; a batch that inflates to more is refused.
DEFAULT_MAX_BYTES = 100 * 1024 * 1024
RecordHeaders = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class Record:
    """One record; ``timestamp`` in milliseconds since the epoch."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: RecordHeaders


@dataclass(frozen=True, slots=True)
class RecordColumns:
    """The records of a batch, one list for each field, all of the same length."""

    header: BatchHeader
    offsets: list[int]
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]
    headers: list[RecordHeaders]

    def __len__(self) -> int:
        return len(self.offsets)

    def records(self) -> Iterator[Record]:
        columns = (self.offsets, self.timestamps, self.keys, self.values, self.headers)
        return map(Record, *columns)


def _invalid(message: str) -> CorruptBatchError:
    return CorruptBatchError(ErrorCode.INVALID_RECORD, message)


def decode_batch(
    buffer: Buffer, position: int = 0, *, max_bytes: int = DEFAULT_MAX_BYTES, check: bool = True
) -> RecordColumns:
    """The records of the batch at ``position``.

    Args:
        max_bytes: most that the records may take once decompressed.
        check: verify the header and the checksum too.

    Raises:
        CorruptBatchError: the batch breaks the format in any way.
    """
    header = read_header(buffer, position)
    if check:
        check_batch(buffer, position, header)
    section = _records_section(buffer, position, header, max_bytes)
    columns = RecordColumns(header, [], [], [], [], [])
    try:
        end = _decode_records(section, header, columns)
    except (IndexError, ValueError) as error:
        if isinstance(error, CorruptBatchError):
            raise
        raise _invalid(f"a record cannot be decoded: {error}") from None
    if end != len(section):
        raise _invalid(f"{len(section) - end} bytes behind the last record")
    if header.uses_log_append_time:
        columns.timestamps[:] = [header.max_timestamp] * len(columns)
    return columns


def count_records(
    buffer: Buffer, position: int, header: BatchHeader, max_bytes: int = DEFAULT_MAX_BYTES
) -> int:
    """Records that are really there, by their lengths alone.

    Raises:
        CorruptBatchError: the section does not divide into records.
    """
    section = _records_section(buffer, position, header, max_bytes)
    count = at = 0
    try:
        while at < len(section):
            length, at = read_varint(section, at)
            if length < 0:
                raise _invalid("a record of negative length")
            at += length
            count += 1
    except (IndexError, ValueError) as error:
        raise _invalid(f"a record cannot be decoded: {error}") from None
    if at != len(section):
        raise _invalid("the last record ends behind its batch")
    return count


def _records_section(buffer: Buffer, position: int, header: BatchHeader, max_bytes: int) -> bytes:
    view = memoryview(buffer)[position + HEADER_SIZE : position + header.size]
    try:
        codec = header.codec
    except ValueError as error:
        raise _invalid(str(error)) from None
    return bytes(decompress(codec, view, max_bytes))


def _decode_records(data: bytes, header: BatchHeader, columns: RecordColumns) -> int:
    """Fill ``columns``; the position behind the last record."""
    position, left = 0, header.record_count
    base_offset, last_delta = header.base_offset, header.last_offset_delta
    stretch = MIN_RUN
    while left:
        run = None
        if left >= MIN_RUN:
            run = read_run(data, position, left, last_delta, header.base_timestamp)
        if run is None:
            # Looked for again ever later: where no two records are alike that must cost nothing.
            count = min(left, stretch)
            stretch *= 4
            position = _decode_plainly(data, position, count, header, columns)
            left -= count
            continue
        position = run.end
        left -= len(run.deltas)
        columns.offsets.extend(range(base_offset + run.deltas.start, base_offset + run.deltas.stop))
        columns.timestamps.extend(run.timestamps)
        columns.keys.extend(run.keys)
        columns.values.extend(run.values)
        columns.headers.extend([()] * len(run.deltas))
    return position


def _decode_plainly(
    data: bytes, position: int, count: int, header: BatchHeader, columns: RecordColumns
) -> int:
    """The next ``count`` records, whatever they look like; the position behind them."""
    size = len(data)
    base_offset, base_timestamp = header.base_offset, header.base_timestamp
    last_offset_delta = header.last_offset_delta
    # Bound once: this loop runs for every record that a consumer reads.
    add_offset, add_time = columns.offsets.append, columns.timestamps.append
    add_key, add_value = columns.keys.append, columns.values.append
    add_headers = columns.headers.append
    for _ in range(count):
        length = data[position]
        if length < 0x80:
            if length & 1:
                raise _invalid("a record of negative length")
            length >>= 1
            position += 1
        else:
            length, position = read_varint(data, position)
        end = position + length
        if length < 0 or end > size:
            raise _invalid("a record ends behind its batch")
        # Numbers of one byte, which most are, are folded out in place: a call would cost more.
        position += 1
        number = data[position]
        if number < 0x80:
            position += 1
            add_time(base_timestamp + ((number >> 1) ^ -(number & 1)))
        else:
            number, position = read_varint(data, position)
            add_time(base_timestamp + number)
        number = data[position]
        if number < 0x80:
            position += 1
            number = (number >> 1) ^ -(number & 1)
        else:
            number, position = read_varint(data, position)
        if not 0 <= number <= last_offset_delta:
            raise _invalid(f"offset delta {number} is not in its batch")
        add_offset(base_offset + number)
        number = data[position]
        if number == 1:
            position += 1
            add_key(None)
        else:
            number, position = read_varint(data, position)
            add_key(data[position : position + number] if number >= 0 else None)
            position += max(0, number)
        number = data[position]
        if number < 0x80 and not number & 1:
            value_end = position + 1 + (number >> 1)
            add_value(data[position + 1 : value_end])
            position = value_end
        else:
            number, position = read_varint(data, position)
            add_value(data[position : position + number] if number >= 0 else None)
            position += max(0, number)
        if data[position] == 0:
            position += 1
            add_headers(())
        else:
            headers, position = _decode_headers(data, position, end)
            add_headers(headers)
        if position != end:
            raise _invalid("a record's length and its fields differ")
    return position


def _decode_headers(data: bytes, position: int, end: int) -> tuple[RecordHeaders, int]:
    count, position = read_varint(data, position)
    if count < 0 or count * 2 > end - position:
        raise _invalid(f"{count} headers do not fit in their record")
    headers: list[tuple[str, bytes | None]] = []
    for _ in range(count):
        length, position = read_varint(data, position)
        if length < 0:
            raise _invalid("a header without a name")
        name = data[position : position + length].decode()
        position += length
        length, position = read_varint(data, position)
        value = None
        if length >= 0:
            value = data[position : position + length]
            position += length
        headers.append((name, value))
    return tuple(headers), position
