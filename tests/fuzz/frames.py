"""Hostile bytes: random ones, and valid messages of every kind with something wrong in them."""

from __future__ import annotations

import dataclasses
import struct
import typing
from enum import IntEnum
from random import Random
from uuid import UUID

import msgpack

import pegel_broker.handlers  # noqa: F401 (registers them)
from pegel.protocol.api_keys import ApiKey
from pegel.protocol.codec import encode_request, encode_response
from pegel.protocol.messages import REQUESTS, RESPONSES
from pegel.record.batch import Codec
from pegel.record.encode import encode_batch
from pegel_broker.handlers.registry import advertised
from pegel_controller.metadata.wire import Wire
from pegel_controller.raft.log_view import Entry, EntryKind
from pegel_controller.raft.messages import AppendRequest, SnapshotChunk, VoteRequest, encode
from pegel_controller.rpc.framing import Kind, encode_frame
from pegel_controller.rpc.hello import HelloRequest
from pegel_controller.rpc.messages import METHODS
from tests.client.protocol.generate import make, versions_of

_INTERESTING = (
    b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\x00\x00\x00\x00", b"\xff\xff",
    b"\x7f\xff", b"\x00\x00\x00\x01", b"\xff\xff\xff\xff\x0f", b"\xff" * 8, b"\x7f" + b"\xff" * 7,
    b"\x00\x10\x00\x00", b"\x0f\xff\xff\xff",
)  # fmt: skip
FRAME_MAX = 1 << 20


def mutate(r: Random, data: bytes) -> bytes:
    """One to four things done to ``data``."""
    buffer = bytearray(data)
    for _ in range(r.choice((1, 1, 2, 4))):
        at = r.randrange(len(buffer) + 1)
        match r.randrange(8):
            case 0 if at < len(buffer):
                buffer[at] ^= 1 << r.randrange(8)
            case 1:
                value = r.choice(_INTERESTING)
                buffer[at : at + len(value)] = value
            case 2:
                del buffer[at:]
            case 3:
                del buffer[at : at + r.randrange(1, 9)]
            case 4:
                buffer[at:at] = r.randbytes(r.randrange(1, 9))
            case 5:
                buffer[at:at] = buffer[at : at + r.randrange(1, 65)] * r.randrange(1, 9)
            case 6 if at < len(buffer):
                buffer[at] = r.randrange(256)
            case _:
                buffer += r.randbytes(r.choice((1, 8, 200)))
    return bytes(buffer[:FRAME_MAX])


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


TOPIC, GROUP = "t", "g"  # which the node has


def _to_the_point(value: object, r: Random, topic_id: UUID) -> None:
    """Make a random request speak of what is there, so that it comes past the first check."""
    for field in type(value).fields:  # type: ignore[attr-defined]
        inside = getattr(value, field.name)
        if field.kind == "struct":
            for element in inside if isinstance(inside, list) else [inside]:
                if element is not None:
                    _to_the_point(element, r, topic_id)
        elif r.random() < 0.3:
            continue
        elif field.kind == "records":
            setattr(value, field.name, memoryview(bytearray(r.choice(batches(r)))))
        elif field.kind == "uuid" and not field.is_array:
            setattr(value, field.name, topic_id)
        elif field.kind == "string" and inside is not None:
            name = GROUP if "group" in field.name else TOPIC
            setattr(value, field.name, [name] if field.is_array else name)
        elif field.kind == "int32" and "partition" in field.name and not field.is_array:
            setattr(value, field.name, r.choice((0, 0, 1, -1)))
        elif field.name.endswith(("timeout_ms", "wait_ms")):
            setattr(value, field.name, r.choice((0, 1, 30)))
        elif field.kind == "int64":
            setattr(value, field.name, r.choice((-2, -1, 0, 1, 5)))


def kafka_requests(r: Random, topic_id: UUID) -> list[bytes]:
    """Some valid requests of each API in each advertised version, without their lengths."""
    made = []
    for key, info in sorted(advertised().items()):
        cls = REQUESTS[ApiKey(key)]
        for version in range(info.min_version, info.max_version + 1):
            for number in range(3):
                message = make(cls, version, r)
                if number:
                    _to_the_point(message, r, topic_id)
                made.append(b"".join(encode_request(message, version, r.getrandbits(31), "f"))[4:])
    return made


def kafka_responses(r: Random) -> list[tuple[int, int, bytes]]:
    """(API key, version, response without its length) of every API and version."""
    made = []
    for key, cls in sorted(RESPONSES.items()):
        for version in versions_of(cls):
            frame = b"".join(encode_response(make(cls, version, r), version, 0))
            made.append((int(key), version, frame[4:]))
    return made


def hostile_frame(r: Random, valid: list[bytes]) -> bytes:
    """A frame with its length, which now and then does not tell the truth."""
    roll = r.random()
    if roll < 0.08:
        body = r.randbytes(r.choice((0, 1, 4, 8, 30, 300)))
    elif roll < 0.12:
        head = struct.pack(">hhih", r.choice((-1, 0, 3, 18, 77, 999)), r.randrange(-1, 20), 1, -1)
        body = head + r.randbytes(r.choice((0, 2, 50)))
    elif roll < 0.2:
        body = r.choice(valid)
    else:
        body = mutate(r, r.choice(valid))
    if r.random() < 0.02:
        length = r.choice((-1, -(2**31), 2**31 - 1, 100 << 20, (100 << 20) + 1, len(body) + 1))
        return struct.pack(">i", length) + body
    return framed(body)


def sasl_tokens(r: Random) -> list[bytes]:
    """First tokens of every mechanism, and second ones that prove nothing."""
    nonce = r.getrandbits(128).to_bytes(16, "big").hex().encode()
    final = b"c=biws,r=" + nonce + b",p=" + b"A" * 43 + b"="
    return [
        b"\0alice\0guess", b"alice\0alice\0guess", b"\0alice\0", b"n,,n=alice,r=" + nonce,
        b"n,a=alice,n=alice,r=" + nonce, b"y,,n=alice,r=" + nonce, b"n,,n=__broker,r=" + nonce,
        b"p=tls-unique,,n=alice,r=" + nonce, b"n,,n=alice,r=" + nonce + b",tokenauth=true", final,
    ]  # fmt: skip


def batches(r: Random) -> list[bytes]:
    return [
        bytes(
            encode_batch(
                [r.randbytes(r.randrange(50)) for _ in range(r.randrange(1, 9))],
                timestamps=1_700_000_000_000,
                codec=codec,
            )
        )
        for codec in Codec
        for _ in range(3)
    ]


# -- the controller's RPC


def rpc_value(annotation: object, r: Random) -> object:
    """A value that fits one annotation of a ``Wire``, in its wire form."""
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if origin is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return [rpc_value(arguments[0], r) for _ in range(r.randrange(3))]
        return [rpc_value(argument, r) for argument in arguments]
    if origin is not None:
        return rpc_value(r.choice(arguments), r)
    if isinstance(annotation, type):
        if dataclasses.is_dataclass(annotation):
            return rpc_body(annotation, r)
        if issubclass(annotation, IntEnum):
            return int(r.choice(list(annotation)))
        if annotation is bool:
            return r.random() < 0.5
        if annotation is int:
            return r.choice((0, 1, -1, 2**31 - 1, 2**63 - 1, -(2**63), r.randrange(100)))
        if annotation is float:
            return r.choice((0.0, 1.5, float("inf"), float("nan")))
        if annotation is str:
            return r.choice(("", "t", "a-topic", "ä" * 40, "x" * 300))
        if annotation is bytes:
            return r.randbytes(r.randrange(40))
        if annotation is UUID:
            return r.randbytes(16)
    return None


def rpc_body(cls: type, r: Random) -> list[object]:
    hints = typing.get_type_hints(cls)
    return [rpc_value(hints[field.name], r) for field in dataclasses.fields(cls)]


def hello(role: str, node_id: int, cluster_id: str = "") -> bytes:
    return encode_frame(Kind.REQUEST, 1, "hello", HelloRequest(node_id, role, cluster_id).to_wire())


def rpc_requests(r: Random) -> list[bytes]:
    """Requests of each method, without their lengths."""
    made = []
    for name, (request, _response) in sorted(METHODS.items()):
        assert issubclass(request, Wire)
        for _ in range(6):
            made.append(
                encode_frame(Kind.REQUEST, r.getrandbits(20), name, rpc_body(request, r))[4:]
            )
    for kind in Kind:
        made.append(encode_frame(kind, 1, "status", [])[4:])
    return made


def raft_pushes(r: Random) -> list[bytes]:
    """Raft messages of a term long gone, as a peer pushes them."""
    entries = tuple(Entry(i, 0, EntryKind.COMMAND, r.randbytes(5)) for i in range(1, 4))
    messages = (
        AppendRequest(0, 0, 0, 0, 1, entries),
        VoteRequest(0, 9, 0, False, False),
        SnapshotChunk(0, 5, 0, 0, r.randbytes(30), True),
    )
    return [encode_frame(Kind.PUSH, 0, "raft", [encode(message)])[4:] for message in messages]


def hostile_msgpack(r: Random) -> bytes:
    """Deep, wide and lying msgpack."""
    return r.choice(
        (
            b"\x91" * r.choice((10, 600, 60_000)),
            b"\xdd\xff\xff\xff\xff",
            b"\xdf\x7f\xff\xff\xff" + b"\x01" * 20,
            b"\xc6\xff\xff\xff\xff",
            b"\x95\x00\x01\xd9\xff",
            msgpack.packb([0, 1, "hello", 0, [2**63, "broker", "x" * 50_000]]),
            msgpack.packb([0, 1, "x" * 60_000, 0, []]),
            b"\xd4\x01\x02",
        )
    )


# -- http

_REQUEST = b"GET %s HTTP/1.1\r\nHost: x\r\n%s\r\n"
_PATHS = (
    b"/",
    b"/metrics",
    b"/healthz",
    b"/readyz",
    b"/v1/partitions?topic=t",
    b"/v1/quorum",
    b"/no",
)


def http_request(r: Random) -> bytes:
    headers = b"".join(
        r.choice(
            (b"Accept: */*\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n",
             b"Connection: close\r\n", b"Accept-Encoding: gzip\r\n", b"X: " + b"y" * 5000 + b"\r\n",
             b"Content-Length: -1\r\n", b"Expect: 100-continue\r\n", b"Upgrade: h2c\r\n")
        )
        for _ in range(r.randrange(4))
    )  # fmt: skip
    request = _REQUEST % (r.choice(_PATHS), headers)
    if r.random() < 0.3:
        return request
    if r.random() < 0.1:
        return r.randbytes(r.choice((1, 100, 20_000)))
    return mutate(r, request)
