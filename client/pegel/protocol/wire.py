"""Reading and writing single values: the helpers that generated codecs call.

``b`` is the frame, ``p`` a position in it. Each reader checks what it reads against what remains.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Sequence
from typing import Any, NoReturn

from pegel.protocol.errors import ProtocolError
from pegel.protocol.schema import NULL_UUID, Buffer, Records

# Record bytes below this size are copied into the frame: one more buffer costs more than the copy.
COPY_BELOW = 1024


class Budget:
    """How many more array elements one message may have."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left


class Writer:
    """Collects a frame; large record buffers are kept as they are, between the rest."""

    __slots__ = ("_done", "buffer")

    def __init__(self) -> None:
        self.buffer = bytearray()
        self._done: list[Buffer] = []

    def put_large(self, data: Buffer) -> None:
        self._done.append(self.buffer)
        self._done.append(data)
        self.buffer = bytearray()

    def finish(self) -> list[Buffer]:
        """The buffers of the frame, its first four bytes filled with its size."""
        done = self._done
        if self.buffer:
            done.append(self.buffer)
        size = sum(map(len, done)) - 4
        first = done[0]
        assert isinstance(first, bytearray)
        first[0:4] = size.to_bytes(4, "big")
        return done


class TagWriter(Writer):
    """Collects the value of one tagged field, whose size stands before it."""

    __slots__ = ()

    def joined(self) -> bytes:
        return b"".join([*self._done, self.buffer])


def read_unsigned_varint(b: memoryview, p: int) -> tuple[int, int]:
    """An unsigned varint of at most five bytes and 32 bits, and the position after it."""
    byte = b[p]
    p += 1
    if byte < 0x80:
        return byte, p
    value = byte & 0x7F
    for shift in (7, 14, 21, 28):
        byte = b[p]
        p += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value > 0xFFFFFFFF:
                break
            return value, p
    raise ProtocolError("a varint of more than 32 bits")


def append_unsigned_varint(out: bytearray, value: int) -> None:
    """Append ``value`` (not negative) as a varint."""
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


# Topic ids come again with every request, and making a UUID costs more than the rest of a topic.
_MAX_KNOWN_UUIDS = 4096
_known_uuids: dict[bytes, uuid.UUID] = {bytes(16): NULL_UUID}


def read_uuid(b: memoryview, p: int) -> tuple[uuid.UUID, int]:
    """A uuid (null is all zeros) and the position after it."""
    end = p + 16
    if end > len(b):
        raise ProtocolError("a uuid past the end of the frame")
    return uuid_of(bytes(b[p:end])), end


def uuid_of(data: bytes) -> uuid.UUID:
    """The uuid of 16 bytes; mostly one object for one id, which is quickest to compare."""
    value = _known_uuids.get(data)
    if value is None:
        value = uuid.UUID(bytes=data)
        if len(_known_uuids) >= _MAX_KNOWN_UUIDS:
            _known_uuids.clear()
        _known_uuids[data] = value
    return value


def _slice(b: memoryview, p: int, size: int) -> memoryview:
    if size < 0 or size > len(b) - p:
        raise ProtocolError(f"{size} bytes announced, {len(b) - p} remain")
    return b[p : p + size]


_INT16 = struct.Struct(">h")
_INT32 = struct.Struct(">i")


def _read_string(b: memoryview, p: int) -> tuple[str | None, int]:
    (size,) = _INT16.unpack_from(b, p)
    p += 2
    if size == -1:
        return None, p
    return str(_slice(b, p, size), "utf-8"), p + size


def _read_compact_string(b: memoryview, p: int) -> tuple[str | None, int]:
    size, p = read_unsigned_varint(b, p)
    if size == 0:
        return None, p
    return str(_slice(b, p, size - 1), "utf-8"), p + size - 1


def _read_records(b: memoryview, p: int) -> tuple[memoryview | None, int]:
    (size,) = _INT32.unpack_from(b, p)
    p += 4
    if size == -1:
        return None, p
    return _slice(b, p, size), p + size


def _read_compact_records(b: memoryview, p: int) -> tuple[memoryview | None, int]:
    size, p = read_unsigned_varint(b, p)
    if size == 0:
        return None, p
    return _slice(b, p, size - 1), p + size - 1


def _read_bytes(b: memoryview, p: int) -> tuple[bytes | None, int]:
    data, p = _read_records(b, p)
    return (None if data is None else bytes(data)), p


def _read_compact_bytes(b: memoryview, p: int) -> tuple[bytes | None, int]:
    data, p = _read_compact_records(b, p)
    return (None if data is None else bytes(data)), p


def _refuse_size(size: int, remaining: int) -> NoReturn:
    raise ProtocolError(f"{size} bytes announced, {remaining} remain")


def _refuse_count(count: int, remaining: int) -> NoReturn:
    raise ProtocolError(f"an array of {count} elements, {remaining} bytes remain")


def _refuse_elements() -> NoReturn:
    raise ProtocolError("more array elements than one message may have")


def _write_string(w: Writer, value: str | None) -> None:
    if value is None:
        w.buffer += b"\xff\xff"
        return
    data = value.encode()
    w.buffer += _INT16.pack(len(data)) + data


def _write_compact_string(w: Writer, value: str | None) -> None:
    if value is None:
        w.buffer.append(0)
        return
    data = value.encode()
    append_unsigned_varint(w.buffer, len(data) + 1)
    w.buffer += data


def _write_records(w: Writer, value: Records) -> None:
    if value is None:
        w.buffer += b"\xff\xff\xff\xff"
        return
    pieces = [value] if isinstance(value, bytes | bytearray | memoryview) else value
    w.buffer += _INT32.pack(sum(map(len, pieces)))
    _write_pieces(w, pieces)


def _write_compact_records(w: Writer, value: Records) -> None:
    if value is None:
        w.buffer.append(0)
        return
    pieces = [value] if isinstance(value, bytes | bytearray | memoryview) else value
    append_unsigned_varint(w.buffer, sum(map(len, pieces)) + 1)
    _write_pieces(w, pieces)


def _write_pieces(w: Writer, pieces: Sequence[Buffer]) -> None:
    for piece in pieces:
        if len(piece) < COPY_BELOW:
            w.buffer += piece
        else:
            w.put_large(piece)


def _write_count(w: Writer, values: Sequence[Any] | None) -> None:
    w.buffer += _INT32.pack(-1 if values is None else len(values))


def _write_compact_count(w: Writer, values: Sequence[Any] | None) -> None:
    count = 0 if values is None else len(values) + 1
    if count < 0x80:
        w.buffer.append(count)
    else:
        append_unsigned_varint(w.buffer, count)


def _write_tags(w: Writer, tags: list[tuple[int, bytes]]) -> None:
    append_unsigned_varint(w.buffer, len(tags))
    for tag, data in tags:
        append_unsigned_varint(w.buffer, tag)
        append_unsigned_varint(w.buffer, len(data))
        w.buffer += data


HELPERS: dict[str, Any] = {
    "ProtocolError": ProtocolError,
    "read_unsigned_varint": read_unsigned_varint,
    "read_uuid": read_uuid,
    "read_string": _read_string,
    "read_compact_string": _read_compact_string,
    "read_records": _read_records,
    "read_compact_records": _read_compact_records,
    "read_bytes": _read_bytes,
    "read_compact_bytes": _read_compact_bytes,
    "refuse_size": _refuse_size,
    "refuse_count": _refuse_count,
    "refuse_elements": _refuse_elements,
    "write_string": _write_string,
    "write_compact_string": _write_compact_string,
    "write_records": _write_records,
    "write_compact_records": _write_compact_records,
    "write_bytes": _write_records,
    "write_compact_bytes": _write_compact_records,
    "write_count": _write_count,
    "write_compact_count": _write_compact_count,
    "write_tags": _write_tags,
}
