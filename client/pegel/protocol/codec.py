"""Encoding and decoding of declared messages, compiled for each (struct, version).

An interpreter that walked the declarations would spend most of its time asking which fields a
version has. Instead the first use of a struct in a version writes two small Python functions for
exactly that layout (neighbouring fixed-size fields in one ``struct`` call) and keeps them.

Every count and length from the wire is checked against the bytes that remain *before* anything is
allocated, and the number of elements in one message is bounded, so memory is bounded by the frame.
Whatever bytes come in, the outcome is a message or one ``ProtocolError``.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeVar

from pegel.protocol.api_keys import APIS, ApiKey
from pegel.protocol.compiler import MAX_TAGGED_FIELDS, struct_codec
from pegel.protocol.errors import ProtocolError
from pegel.protocol.fast import (
    decode_produce,
    decode_produce_response,
    encode_produce,
    encode_produce_response,
)
from pegel.protocol.messages import REQUESTS
from pegel.protocol.messages.produce import ProduceRequest, ProduceResponse
from pegel.protocol.schema import Buffer, Message
from pegel.protocol.wire import Budget, Writer, read_unsigned_varint

# A request is decoded and handled in one turn of the loop, for some 100 ms at most: up to 10 µs an
# element. What clients ask of all their partitions at once is cheaper. Pegel's own client asks of
# 4,000 partitions in one: with a topic for each they are 8,000 elements.
MAX_REQUEST_ELEMENTS = 10_000
MORE_REQUEST_ELEMENTS: dict[int, int] = {
    ApiKey.PRODUCE: 30_000,
    ApiKey.FETCH: 15_000,
    ApiKey.LIST_OFFSETS: 30_000,
    ApiKey.METADATA: 30_000,
    ApiKey.OFFSET_COMMIT: 30_000,
    ApiKey.OFFSET_FETCH: 30_000,
}
MAX_RESPONSE_ELEMENTS = 5_000_000

M = TypeVar("M", bound=Message)

_HEADER = struct.Struct(">hhih")
_INT32 = struct.Struct(">i")


class RequestHeader(NamedTuple):
    """The head of a request frame; ``body_offset`` is in bytes from the frame's start."""

    api_key: int
    api_version: int
    correlation_id: int
    client_id: str | None
    body_offset: int


def encode_request(
    message: Message, version: int, correlation_id: int, client_id: str | None
) -> list[Buffer]:
    """One request frame, size prefix included, as buffers to be written in order."""
    cls = type(message)
    name = b"" if client_id is None else client_id.encode()
    if type(message) is ProduceRequest and version >= cls.flexible_from and client_id is not None:
        frame = encode_produce(message, version, correlation_id, name)
        if frame is not None:
            return frame
    writer = Writer()
    out = writer.buffer
    length = -1 if client_id is None else len(name)
    out += b"\0\0\0\0" + _HEADER.pack(cls.api_key, version, correlation_id, length) + name
    if version >= cls.flexible_from:
        out.append(0)  # no tagged fields
    struct_codec(cls, version).encode(message, writer)
    return writer.finish()


def read_request_header(frame: memoryview) -> RequestHeader:
    """Read the header of a request (the frame is what follows the size prefix).

    For an API or version that this process does not know the header is read as far as every
    version shares it, so that the caller can refuse it by name.

    Raises:
        ProtocolError: the frame is too short, or its client id is not UTF-8.
    """
    if len(frame) < _HEADER.size:
        raise ProtocolError(
            f"a request of {len(frame)} bytes: its header alone has {_HEADER.size} (is this a "
            "client of Kafka's protocol?)"
        )
    try:
        api_key, version, correlation_id, length = _HEADER.unpack_from(frame)
        position = 10
        client_id: str | None = None
        if length >= 0:
            if position + length > len(frame):
                raise ProtocolError("client id runs past the end of the frame")
            client_id = str(frame[position : position + length], "utf-8")
            position += length
        elif length != -1:
            raise ProtocolError("client id has a negative length")
        info = APIS.get(api_key)
        if info is not None and info.flexible_from <= version <= info.max_version:
            position = _skip_tagged_fields(frame, position) if frame[position] else position + 1
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise ProtocolError(f"bad request header: {error}") from None
    return RequestHeader(api_key, version, correlation_id, client_id, position)


def _skip_tagged_fields(frame: memoryview, position: int) -> int:
    count, position = read_unsigned_varint(frame, position)
    if count > MAX_TAGGED_FIELDS:
        raise ProtocolError(f"{count} tagged fields, at most {MAX_TAGGED_FIELDS} are read")
    for _ in range(count):
        _, position = read_unsigned_varint(frame, position)
        size, position = read_unsigned_varint(frame, position)
        position += size
        if position > len(frame):
            raise ProtocolError("a tagged field runs past the end of the frame")
    return position


def decode_request(header: RequestHeader, frame: memoryview) -> Message:
    """The body of a request.

    Raises:
        ProtocolError: unknown API or version, or bytes that are not such a request.
    """
    api_key, version, _, _, position = header
    info = APIS.get(api_key)
    if info is None:
        raise ProtocolError(f"unknown API key {api_key}")
    if not info.min_version <= version <= info.max_version:
        raise ProtocolError(f"{info.name} has no version {version}")
    if api_key == 0 and version >= info.flexible_from:
        produce = decode_produce(frame, position, version)
        if produce is not None:
            return produce
    return _decode(REQUESTS[api_key], version, frame, position, max_request_elements(api_key))


def max_request_elements(api_key: int) -> int:
    """How many array elements one request may have, those within others included."""
    return MORE_REQUEST_ELEMENTS.get(api_key, MAX_REQUEST_ELEMENTS)


def encode_response(message: Message, version: int, correlation_id: int) -> list[Buffer]:
    """One response frame, size prefix included, as buffers to be written in order."""
    cls = type(message)
    if type(message) is ProduceResponse and version >= cls.flexible_from:
        frame = encode_produce_response(message, version, correlation_id)
        if frame is not None:
            return frame
    writer = Writer()
    writer.buffer += b"\0\0\0\0" + _INT32.pack(correlation_id)
    if version >= cls.flexible_from and cls.api_key != ApiKey.API_VERSIONS:
        writer.buffer.append(0)  # no tagged fields
    struct_codec(cls, version).encode(message, writer)
    return writer.finish()


def read_correlation_id(frame: memoryview) -> int:
    """The correlation id of a response frame.

    Raises:
        ProtocolError: the frame has fewer than four bytes.
    """
    if len(frame) < 4:
        raise ProtocolError("a response without a correlation id")
    return int.from_bytes(frame[:4], "big", signed=True)


def decode_response(response_type: type[M], version: int, frame: memoryview) -> M:
    """The response in a frame (correlation id included, size prefix not).

    Raises:
        ProtocolError: bytes that are not such a response.
    """
    position = 4
    if response_type is ProduceResponse and version >= response_type.flexible_from:
        produced = decode_produce_response(frame, version)
        if isinstance(produced, response_type):
            return produced
    if version >= response_type.flexible_from and response_type.api_key != ApiKey.API_VERSIONS:
        try:
            position = _skip_tagged_fields(frame, position)
        except IndexError:
            raise ProtocolError("a response without its header") from None
    message = _decode(response_type, version, frame, position, MAX_RESPONSE_ELEMENTS)
    assert isinstance(message, response_type)
    return message


_DECODE_ERRORS = (struct.error, IndexError, ValueError, OverflowError)


def _decode(
    cls: type[Message], version: int, frame: memoryview, position: int, max_elements: int
) -> Message:
    decode = struct_codec(cls, version).decode
    try:
        message, position = decode(frame, position, Budget(max_elements))
    except ProtocolError as error:
        raise ProtocolError(f"{cls.__name__} v{version}: {error}") from None
    except _DECODE_ERRORS as error:
        raise ProtocolError(f"{cls.__name__} v{version}: {error}") from None
    if position != len(frame) and not cls.is_request:
        raise ProtocolError(
            f"{cls.__name__} v{version}: {len(frame) - position} bytes after its end"
        )
    # Behind a request's end they are ignored, as in Kafka: librdkafka leaves three bytes of an
    # array's count there when it asks for the metadata of all topics.
    assert isinstance(message, Message)
    return message
