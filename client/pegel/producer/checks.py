"""What a record can hold, checked at the call that brings it, and how large it may become.

A batch that does not encode would be stuck, and its partition with it: nothing that the encoder
would refuse gets past here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from pegel.config import MAX_BATCH_BYTES
from pegel.errors import RecordTooLargeError
from pegel.producer.batch import RECORD_OVERHEAD
from pegel.types import Headers, check_partition_number

T = TypeVar("T")

_BYTES = {bytes}
_BYTES_OR_NONE = {bytes, type(None)}


def record_size(
    value: bytes | None, key: bytes | None, headers: Headers, timestamp: int | None
) -> int:
    """An upper bound of a record's encoded size, in bytes.

    Raises:
        TypeError, ValueError: no record can hold that.
        RecordTooLargeError: it fits in no request.
    """
    if type(value) is not bytes and value is not None:
        raise _not_bytes("value", value)
    if type(key) is not bytes and key is not None:
        raise _not_bytes("key", key)
    size = RECORD_OVERHEAD + (len(value) if value else 0) + (len(key) if key else 0)
    if headers:
        size += _headers_size(headers)
    if timestamp is not None:
        check_timestamps((timestamp,))
    if size > MAX_BATCH_BYTES:
        raise _too_large(size)
    return size


def _headers_size(headers: Headers) -> int:
    if not isinstance(headers, Sequence):
        raise TypeError(
            f"headers are a list of pairs (name, value), not {type(headers).__name__}; "
            "of a dict give list(d.items())"
        )
    size = 0
    for header in headers:
        if not isinstance(header, tuple | list) or len(header) != 2:
            raise TypeError(f"a header is a pair (name, value), not {header!r}")
        name, value = header
        if type(name) is not str:
            raise TypeError(f"the name of a header is text, not {type(name).__name__}")
        if value is not None and type(value) is not bytes:
            raise _not_bytes("header's value", value)
        size += len(name.encode()) + len(value or b"") + 6
    return size


def check_timestamps(timestamps: Sequence[int]) -> None:
    if set(map(type, timestamps)) != {int}:
        kinds = ", ".join(sorted({type(t).__name__ for t in timestamps}))
        raise TypeError(f"a timestamp is an int, milliseconds since the epoch, not {kinds}")
    if min(timestamps) < 0 or max(timestamps) >= 1 << 63:
        raise ValueError("a timestamp is at least 0 and below 2**63 milliseconds")


def record_sizes(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    headers: Sequence[Headers] | None,
) -> list[int]:
    """Upper bounds of the encoded sizes of small records, in bytes.

    Raises:
        TypeError: a value or key that is not bytes.
        RecordTooLargeError: a record that fits in no request.
    """
    columns = (values,) if keys is None else (values, keys)
    for name, column in zip(("value", "key"), columns, strict=False):
        kinds = set(map(type, column))
        if not kinds <= _BYTES_OR_NONE:
            raise _not_bytes(name, next(m for m in column if type(m) not in _BYTES_OR_NONE))
    if keys is None and set(map(type, values)) == _BYTES:
        sizes = [RECORD_OVERHEAD + n for n in map(len, values)]  # type: ignore[arg-type]
    else:
        sizes = [RECORD_OVERHEAD + len(v or b"") for v in values]
        if keys is not None:
            sizes = [s + len(k or b"") for s, k in zip(sizes, keys, strict=True)]
    if headers is not None:
        sizes = [s + _headers_size(h) for s, h in zip(sizes, headers, strict=True)]
    largest = max(sizes)
    if largest > MAX_BATCH_BYTES:
        raise _too_large(largest)
    return sizes


def as_column(column: Iterable[T]) -> Sequence[T]:
    """The column itself, or a list of what can be gone through only once."""
    if isinstance(column, list | tuple):
        return column
    if isinstance(column, str | bytes | bytearray | Mapping) or not isinstance(column, Iterable):
        raise TypeError(f"give a list, or what can be gone through, not {type(column).__name__}")
    return list(column)


def check_columns(
    values: Sequence[bytes | None],
    keys: Sequence[bytes | None] | None,
    headers: Sequence[Headers] | None,
    timestamps: Sequence[int] | int | None,
) -> None:
    for name, column in (("keys", keys), ("headers", headers), ("timestamps", timestamps)):
        if column is None or isinstance(column, int):
            continue
        if len(column) != len(values):
            raise ValueError(f"{len(values)} values, but {len(column)} {name}")


def check_partition(topic: str, partition: int, count: int) -> None:
    check_partition_number(partition)
    if not 0 <= partition < count:
        raise ValueError(f"topic {topic!r} has partitions 0 to {count - 1}, not {partition}")


def _not_bytes(name: str, value: object) -> TypeError:
    return TypeError(f"a {name} is bytes, not {type(value).__name__}; encode text with .encode()")


def _too_large(size: int) -> RecordTooLargeError:
    return RecordTooLargeError(
        f"a record of {size} bytes; at most {MAX_BATCH_BYTES} fit in a request"
    )
