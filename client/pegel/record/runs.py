"""Decodes runs of records that are laid out alike: a column at a time, not a record at a time.

Most batches hold records of one size: keys and values as long as those before them, no headers.
Then everything that is not content stands at the same distance in each record, and one strided
slice (a loop in C) checks or reads it for all of them. A run ends where a length changes, or where
the offset delta needs another byte (at 64 and 8192); what is no run is left to the plain decoder.

Nothing is taken for granted: every byte that is not key, value or timestamp is compared.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from pegel.record.varint import decode as read_varint

# A shorter run is not worth the check.
MIN_RUN = 16
# Deltas below these take one byte, two, three (of which no more are kept in a table).
_TABLE_END = 65536
_WIDTH_ENDS = (0, 64, 8192, _TABLE_END)
_ZIGZAG = [(n >> 1) ^ -(n & 1) for n in range(256)]


class Run(NamedTuple):
    """Columns of some consecutive records of one layout; ``end`` is the position behind them."""

    end: int
    deltas: range
    timestamps: list[int]
    keys: list[bytes | None]
    values: list[bytes | None]


class _Layout(NamedTuple):
    """Where things stand in each record, counted from its first byte; -1: there is no key/value."""

    size: int
    time_at: int
    time_width: int
    delta_at: int
    delta_width: int
    key_at: int
    key_size: int
    value_at: int
    value_size: int


def read_run(data: bytes, position: int, most: int, last_delta: int, base_time: int) -> Run | None:
    """As many alike records as there are at ``position``; ``None`` if that is too few to matter.

    Args:
        most: records that may be there.
        last_delta: largest offset delta that the batch may have.
        base_time: of the batch, in milliseconds.
    """
    layout = _layout(data, position)
    if layout is None:
        return None
    first, _ = read_varint(data, position + layout.delta_at)
    if not 0 <= first <= last_delta or first >= _WIDTH_ENDS[-1]:
        return None
    if first < _WIDTH_ENDS[layout.delta_width - 1] or layout.delta_width >= len(_WIDTH_ENDS):
        return None  # more bytes than it needs: legal, and nothing that anybody writes
    end_delta = next(e for e in _WIDTH_ENDS if e > first)
    size = layout.size
    count = min(most, end_delta - first, last_delta - first + 1, (len(data) - position) // size)
    while count >= MIN_RUN and not _alike(data, position, first, count, layout):
        count //= 4
    if count < MIN_RUN:
        return None
    end = position + count * size
    return Run(
        end,
        range(first, first + count),
        _times(data, position + layout.time_at, end, layout, base_time, count),
        _contents(data, position, end, size, layout.key_at, layout.key_size, count),
        _contents(data, position, end, size, layout.value_at, layout.value_size, count),
    )


def _layout(data: bytes, position: int) -> _Layout | None:
    """Of the record at ``position``, if it is sound and has no headers."""
    try:
        length, at = read_varint(data, position)
        end = at + length
        if length < 0 or end > len(data):
            return None
        time_at = at + 1
        _, delta_at = read_varint(data, time_at)
        _, key_length_at = read_varint(data, delta_at)
        key_size, key_at = read_varint(data, key_length_at)
        value_length_at = key_at + max(0, key_size)
        value_size, value_at = read_varint(data, value_length_at)
        if value_at + max(0, value_size) + 1 != end or data[end - 1] != 0:
            return None
    except (IndexError, ValueError):
        return None
    return _Layout(
        end - position, time_at - position, delta_at - time_at, delta_at - position,
        key_length_at - delta_at, key_at - position, key_size, value_at - position, value_size,
    )  # fmt: skip


def _alike(data: bytes, position: int, first_delta: int, count: int, layout: _Layout) -> bool:
    """Whether ``count`` records have this layout and consecutive offsets."""
    size = layout.size
    end = position + count * size
    after_key = layout.key_at + max(0, layout.key_size)
    fixed = (
        *range(layout.time_at),
        *range(layout.delta_at + layout.delta_width, layout.key_at),
        *range(after_key, layout.value_at),
        size - 1,
    )
    for at in fixed:
        start = position + at
        if data[start:end:size].count(data[start]) != count:
            return False
    times = [data[position + layout.time_at + i : end : size] for i in range(layout.time_width)]
    if max(times[-1]) > 0x7F or any(min(column) < 0x80 for column in times[:-1]):
        return False
    columns = [data[position + layout.delta_at + i : end : size] for i in range(layout.delta_width)]
    return columns == _delta_columns(first_delta, count, layout.delta_width)


@functools.lru_cache(maxsize=4)
def _delta_table(width: int) -> list[bytes]:
    """The bytes of all offset deltas of this width: the first byte of each, the second, …"""
    start, end = _WIDTH_ENDS[width - 1], min(_WIDTH_ENDS[width], _TABLE_END)
    columns: list[bytes] = []
    for i in range(width):
        more = 0x80 if i < width - 1 else 0
        columns.append(bytes([((n << 1) >> 7 * i) & 0x7F | more for n in range(start, end)]))
    return columns


def _delta_columns(first: int, count: int, width: int) -> list[bytes]:
    start = _WIDTH_ENDS[width - 1]
    return [c[first - start : first - start + count] for c in _delta_table(width)]


def _times(
    data: bytes, start: int, end: int, layout: _Layout, base_time: int, count: int
) -> list[int]:
    size, width = layout.size, layout.time_width
    low = data[start:end:size]
    if width == 1:
        if low.count(low[0]) == count:
            return [base_time + _ZIGZAG[low[0]]] * count
        return [base_time + _ZIGZAG[n] for n in low]
    numbers = [n & 0x7F for n in low]
    for i in range(1, width):
        shift = 7 * i
        numbers = [
            n | (m & 0x7F) << shift
            for n, m in zip(numbers, data[start + i : end : size], strict=True)
        ]
    return [base_time + ((n >> 1) ^ -(n & 1)) for n in numbers]


def _contents(
    data: bytes, position: int, end: int, size: int, at: int, length: int, count: int
) -> list[bytes | None]:
    if length < 0:
        return [None] * count
    start = position + at
    return [data[i : i + length] for i in range(start, end, size)]
