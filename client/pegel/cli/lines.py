"""Lines of text as columns of records: plain lines, lines with a key, lines of JSON."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pegel.errors import PegelError

Headers = Sequence[tuple[str, bytes | None]]


class Columns(NamedTuple):
    """Records, one list for each field; ``None`` for a field that none of them has."""

    values: list[bytes | None]
    keys: list[bytes | None] | None
    headers: list[Headers] | None
    partitions: list[int | None] | None = None
    timestamps: list[int | None] | None = None

    def of(self, indexes: Sequence[int]) -> Columns:
        """Only the records of these indexes."""
        return Columns(
            [self.values[i] for i in indexes],
            self.keys and [self.keys[i] for i in indexes],
            self.headers and [self.headers[i] for i in indexes],
            None,
            self.timestamps and [self.timestamps[i] for i in indexes],
        )


# What `pegel consume --json` prints.
_FIELDS = {"topic", "partition", "offset", "timestamp", "key", "key_base64", "value",
           "value_base64", "headers"}  # fmt: skip
# Lines, and how many came before them (for error messages).
Split = Callable[[list[bytes], int], Columns]


class PlainLines:
    """The whole line is the value, or what stands behind the first separator."""

    def __init__(self, separator: bytes | None, headers: Headers) -> None:
        self._separator, self._headers = separator, headers

    def __call__(self, lines: list[bytes], before: int) -> Columns:
        headers = [self._headers] * len(lines) if self._headers else None
        if self._separator is None:
            return Columns(list(lines), None, headers)
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        for number, line in enumerate(lines, before + 1):
            key, found, value = line.partition(self._separator)
            if not found:
                separator = self._separator.decode()
                raise PegelError(f"line {number} has no {separator!r} between key and value")
            keys.append(key)
            values.append(value)
        return Columns(values, keys, headers)


class JsonLines:
    """Each line is an object: ``key``, ``value``, ``headers``, ``partition``, ``timestamp``.

    A text is taken as it is, ``null`` is no value (a tombstone), anything else becomes JSON again;
    ``value_base64`` and the like hold bytes that are no text. So what ``pegel consume --json``
    prints is read back as it was, into the same partitions. ``topic`` and ``offset``, where a
    record was, are passed over; any other field is refused, for it would be lost.
    """

    def __init__(self, headers: Headers) -> None:
        self._headers = tuple(headers)

    def __call__(self, lines: list[bytes], before: int) -> Columns:
        keys: list[bytes | None] = []
        values: list[bytes | None] = []
        headers: list[Headers] = []
        partitions: list[int | None] = []
        timestamps: list[int | None] = []
        for number, line in enumerate(lines, before + 1):
            try:
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise ValueError("it is no object")
                if not record.keys() & {"value", "value_base64", "key", "key_base64"}:
                    raise ValueError('it has neither "value" nor "key"')
                if unknown := record.keys() - _FIELDS:
                    raise ValueError(f"no record has {', '.join(map(repr, sorted(unknown)))}")
                partitions.append(_number(record, "partition"))
                timestamps.append(_number(record, "timestamp"))
                keys.append(_field(record, "key"))
                values.append(_field(record, "value"))
                headers.append((*_headers(record.get("headers") or ()), *self._headers))
            except (ValueError, TypeError, binascii.Error) as error:
                raise PegelError(f"line {number} is no record in JSON: {error}") from None
        return Columns(
            values,
            keys if any(key is not None for key in keys) else None,
            headers if any(headers) else None,
            partitions if any(p is not None for p in partitions) else None,
            timestamps if any(t is not None for t in timestamps) else None,
        )


def _number(record: dict[str, object], name: str) -> int | None:
    """A number from 0 on; ``None`` where it is left out, null, or -1 (what has none prints so)."""
    value = record.get(name)
    if value is None or value == -1:
        return None
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError(f"{name} is a number from 0 on, not {value!r}")
    return value


def _field(record: dict[str, object], name: str) -> bytes | None:
    encoded = record.get(f"{name}_base64")
    if encoded is not None:
        if not isinstance(encoded, str):
            raise TypeError(f"{name}_base64 is no text")
        return base64.b64decode(encoded, validate=True)
    value = record.get(name)
    if value is None:
        return None
    if isinstance(value, str):
        return value.encode()
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _headers(headers: object) -> list[tuple[str, bytes | None]]:
    """``{"name": "value"}``, or a list of ``{"name": …, "value": …}`` where names repeat."""
    if isinstance(headers, dict):
        return [(name, _field(headers, name)) for name in headers]
    if not isinstance(headers, list | tuple):
        raise TypeError("headers are an object or a list")
    found: list[tuple[str, bytes | None]] = []
    for header in headers:
        if not isinstance(header, dict) or not isinstance(header.get("name"), str):
            raise TypeError('a header in a list is {"name": …, "value": …}')
        found.append((header["name"], _field(header, "value")))
    return found
