"""Encodes many records into one batch, a column at a time.

Encoding record by record costs a dozen Python operations each. Here the varying parts (offset
deltas, lengths, values) are columns of ready byte strings that ``zip`` and one ``join`` weave
together, which is several times quicker.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from itertools import chain, repeat

import crc32c

from pegel.record.batch import HEADER_SIZE, LENGTH_OVERHEAD, MAGIC
from pegel.record.compression import Codec, compress
from pegel.record.varint import TABLE_SIZE, VARINTS
from pegel.record.varint import size as varint_size

Headers = Sequence[tuple[str, bytes | None]]

_HEADER = struct.Struct(">qiibIhiqqqhii")
# Offset deltas below these bounds take one, two, three … bytes.
_WIDTH_ENDS = (1 << 6, 1 << 13, 1 << 20, 1 << 27, 1 << 34)
_OFFSETS = [VARINTS[i] for i in range(TABLE_SIZE)]


class _ValueHeads(dict[int, bytes]):
    """By value length: all bytes before the offset delta of a record that has only a value."""

    def __init__(self, offset_width: int) -> None:
        super().__init__()
        self._fixed = 4 + offset_width

    def __missing__(self, length: int) -> bytes:
        head = VARINTS[self._fixed + varint_size(length) + length] + b"\x00\x00"
        if length < TABLE_SIZE:
            self[length] = head
        return head


class _ValueMiddles(dict[int, bytes]):
    """By value length: a null key and the length of the value."""

    def __missing__(self, length: int) -> bytes:
        middle = b"\x01" + VARINTS[length]
        if length < TABLE_SIZE:
            self[length] = middle
        return middle


_HEADS = [_ValueHeads(width) for width in range(1, 6)]
_MIDDLES = _ValueMiddles()


def encode_batch(
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers] | None = None,
    timestamps: Sequence[int] | int,
    codec: Codec = Codec.NONE,
    level: int | None = None,
    base_offset: int = 0,
    leader_epoch: int = -1,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
) -> bytearray:
    """One batch of all the records.

    Args:
        values, keys, headers: columns of the same length; ``None`` as a member is a null.
        timestamps: milliseconds, one for all records or one each.
        level: compression level in the codec's own scale.

    Raises:
        ValueError: no records, or columns of different lengths.
    """
    count = len(values)
    if count == 0:
        raise ValueError("a batch has at least one record")
    for name, column in (("keys", keys), ("headers", headers)):
        if column is not None and len(column) != count:
            raise ValueError(f"{count} values, but {len(column)} {name}")
    if isinstance(timestamps, int):
        base_timestamp = max_timestamp = timestamps
        deltas = None
    else:
        if len(timestamps) != count:
            raise ValueError(f"{count} values, but {len(timestamps)} timestamps")
        base_timestamp, max_timestamp = timestamps[0], max(timestamps)
        deltas = [t - base_timestamp for t in timestamps]
    if keys is None and headers is None and deltas is None and None not in values:
        pieces = _plain_pieces(values)  # type: ignore[arg-type]
    else:
        pieces = _pieces(values, keys, headers, deltas)
    attributes = codec | (0x10 if transactional else 0)
    if codec is Codec.NONE:
        batch = bytearray(HEADER_SIZE).join((b"", b"".join(pieces)))
    else:
        batch = bytearray(HEADER_SIZE)
        batch += compress(codec, b"".join(pieces), level)
    _HEADER.pack_into(
        batch, 0, base_offset, len(batch) - LENGTH_OVERHEAD, leader_epoch, MAGIC, 0, attributes,
        count - 1, base_timestamp, max_timestamp, producer_id, producer_epoch, base_sequence, count,
    )  # fmt: skip
    with memoryview(batch) as view:
        batch[17:21] = crc32c.crc32c(view[21:]).to_bytes(4, "big")
    return batch


def _offset_deltas(start: int, end: int) -> Iterable[bytes]:
    if end <= TABLE_SIZE:
        return _OFFSETS[start:end]
    return map(VARINTS.__getitem__, range(start, end))


def _plain_pieces(values: Sequence[bytes]) -> Iterable[bytes]:
    """Records of one time, with a value and nothing else."""
    if len(values) == 1:  # a send that is awaited has no other column to gain from
        size = len(values[0])
        return (_HEADS[0][size], _OFFSETS[0], _MIDDLES[size], values[0], b"\x00")
    pieces: list[Iterable[bytes]] = []
    start, count = 0, len(values)
    for heads, width_end in zip(_HEADS, _WIDTH_ENDS, strict=True):
        end = min(count, width_end)
        part = values if start == 0 and end == count else values[start:end]
        lengths = list(map(len, part))
        columns = zip(
            map(heads.__getitem__, lengths),
            _offset_deltas(start, end),
            map(_MIDDLES.__getitem__, lengths),
            part,
            repeat(b"\x00", end - start),
            strict=True,
        )
        pieces.append(chain.from_iterable(columns))
        if end == count:
            break
        start = end
    return chain.from_iterable(pieces)


def _prefixed(column: Sequence[bytes | None]) -> list[bytes]:
    """Each member behind its length."""
    varints = VARINTS
    return [b"\x01" if m is None else varints[len(m)] + m for m in column]


def _encode_headers(headers: Headers) -> bytes:
    pieces = [VARINTS[len(headers)]]
    for name, value in headers:
        encoded = name.encode()
        pieces += (VARINTS[len(encoded)], encoded)
        pieces += (b"\x01",) if value is None else (VARINTS[len(value)], value)
    return b"".join(pieces)


def _pieces(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    headers: Sequence[Headers] | None,
    deltas: Sequence[int] | None,
) -> Iterable[bytes]:
    """Records of any shape."""
    count = len(values)
    varints = VARINTS
    key_column = repeat(b"\x01", count) if keys is None else _prefixed(keys)
    header_column = (
        repeat(b"\x00", count) if headers is None else [_encode_headers(h) for h in headers]
    )
    times = repeat(b"\x00", count) if deltas is None else [varints[d] for d in deltas]
    bodies = [
        b"".join(parts)
        for parts in zip(
            repeat(b"\x00", count),
            times,
            _offset_deltas(0, count),
            key_column,
            _prefixed(values),
            header_column,
            strict=True,
        )
    ]
    return chain.from_iterable(zip(map(varints.__getitem__, map(len, bodies)), bodies, strict=True))
