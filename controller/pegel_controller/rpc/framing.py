"""One connection of the controller RPC: msgpack frames, requests and answers in both directions.

A frame is a 4-byte big-endian length and the array ``[kind, correlation id, method, version,
body]``. Elements that a newer peer adds behind these are ignored.
"""

from __future__ import annotations

import asyncio
import struct
from enum import IntEnum
from typing import NamedTuple, Protocol

import msgpack

from pegel.protocol.framing import FrameProtocol

RPC_VERSION = 0
# Before a peer has said who it is, it gets no more memory than a greeting needs.
MAX_HELLO_BYTES = 64 * 1024
# Large enough for the snapshot of a cluster with a million partitions.
MAX_RPC_FRAME_BYTES = 256 * 1024 * 1024
# Seconds for which a connection that is given up is kept for answers that cannot be had otherwise.
RETIRED_MAX = 60.0
# Raft is told of nothing that was dropped; it sends again what was not acknowledged.
MAX_UNSENT_BYTES = 64 * 1024 * 1024

_SIZE = struct.Struct(">I")


class RpcError(Exception):
    """Bytes that break the framing, or a method that its peer refused."""


class RpcClosedError(RpcError):
    """The connection ended before the answer came."""


class RpcRefusedError(RpcError):
    """The peer answered with an error.

    ``leader_id`` is the active controller that it knows of (-1: none), where that is the reason.
    """

    def __init__(self, code: int, message: str, leader_id: int = -1) -> None:
        super().__init__(f"{message} (error {code})")
        self.code = code
        self.message = message
        self.leader_id = leader_id


class Kind(IntEnum):
    REQUEST = 0
    RESPONSE = 1
    ERROR = 2
    PUSH = 3


_KINDS = tuple(Kind)


class Frame(NamedTuple):
    kind: Kind
    correlation_id: int
    method: str
    version: int
    body: list[object]


def encode_frame(kind: Kind, correlation_id: int, method: str, body: object) -> bytes:
    """The frame, its length included."""
    packed = msgpack.packb([int(kind), correlation_id, method, RPC_VERSION, body])
    assert isinstance(packed, bytes)
    return _SIZE.pack(len(packed)) + packed


def decode_frame(data: memoryview) -> Frame:
    """The frame in ``data`` (length not included).

    Raises:
        RpcError: it is none.
    """
    try:
        values = msgpack.unpackb(data)
    except Exception as error:  # msgpack raises many unrelated types on bad input
        raise RpcError(f"a frame that is no msgpack: {error!r}") from None
    if type(values) is list and len(values) >= 5:
        kind, correlation_id, method, version, body = values[:5]
        if (
            type(kind) is int
            and 0 <= kind < len(_KINDS)
            and type(correlation_id) is int
            and type(method) is str
            and type(version) is int
            and type(body) is list
        ):
            return Frame(_KINDS[kind], correlation_id, method, version, body)
    raise RpcError("a frame that is no array of kind, correlation id, method, version, body")


class RpcOwner(Protocol):
    """Whoever a connection belongs to; called on the event loop."""

    def on_rpc_request(self, connection: RpcConnection, frame: Frame) -> None:
        """Answer with ``connection.respond`` or ``connection.refuse``, now or later."""
        ...

    def on_rpc_push(self, connection: RpcConnection, frame: Frame) -> None: ...

    def on_rpc_closed(self, connection: RpcConnection, reason: str) -> None:
        """Called once; not for a connection that its owner closed."""
        ...


class RpcConnection(FrameProtocol):
    """Either end of an RPC connection.

    Attributes:
        peer_id, peer_role: who the other end is, once a hello has told.
    """

    def __init__(self, owner: RpcOwner, max_frame_bytes: int = MAX_RPC_FRAME_BYTES) -> None:
        super().__init__(max_frame_bytes)
        self.peer_id = -1
        self.peer_role = ""
        self.closed = False
        self._owner = owner
        self._pending: dict[int, asyncio.Future[list[object]]] = {}
        self._once: set[int] = set()  # of those, what must not be sent a second time
        self._retired = ""
        self._correlation_id = 0
        self._reason = "the peer closed the connection"

    # -- asking

    def call(
        self, method: str, body: object, *, once: bool = False
    ) -> asyncio.Future[list[object]]:
        """Send a request; the future is the body of its answer. The caller bounds the wait.

        ``once``: it must not be sent a second time, so it is worth waiting for an answer even on
        a connection that is retired.

        The future raises RpcRefusedError or RpcClosedError.
        """
        future: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()
        if self.closed:
            future.set_exception(RpcClosedError("the connection is closed"))
            return future
        self._correlation_id += 1
        self._pending[self._correlation_id] = future
        if once:
            self._once.add(self._correlation_id)
        self.write([encode_frame(Kind.REQUEST, self._correlation_id, method, body)])
        return future

    def push(self, method: str, body: object) -> None:
        """Send without an answer; dropped while the peer does not read."""
        transport = self.transport
        if transport is not None and transport.get_write_buffer_size() < MAX_UNSENT_BYTES:
            self.write([encode_frame(Kind.PUSH, 0, method, body)])

    # -- answering

    def respond(self, request: Frame, body: object) -> None:
        self.write([encode_frame(Kind.RESPONSE, request.correlation_id, request.method, body)])

    def refuse(self, request: Frame, code: int, message: str, leader_id: int = -1) -> None:
        body = [code, message, leader_id]
        self.write([encode_frame(Kind.ERROR, request.correlation_id, request.method, body)])

    def drop(self, reason: str) -> None:
        """End the connection from this side; the owner is not told."""
        self._fail(reason)
        self.abort()

    def retire(self, reason: str) -> None:
        """As ``drop``, once those that must not be sent twice are answered, or given up."""
        self._retired = reason
        for correlation_id in [i for i in self._pending if i not in self._once]:
            _refuse(self._pending.pop(correlation_id), RpcClosedError(reason))
        self._end_if_done()
        if not self.closed:
            asyncio.get_running_loop().call_later(RETIRED_MAX, self.drop, reason)

    def _end_if_done(self) -> None:
        if self._retired and all(future.done() for future in self._pending.values()):
            self.drop(self._retired)

    # -- FrameProtocol

    def on_frame(self, frame: memoryview) -> None:
        try:
            decoded = decode_frame(frame)
        except RpcError as error:
            self.on_broken(f"the peer sent {error}")
            self.abort()
            return
        if decoded.kind is Kind.REQUEST:
            self._owner.on_rpc_request(self, decoded)
        elif decoded.kind is Kind.PUSH:
            self._owner.on_rpc_push(self, decoded)
        else:
            self._on_answer(decoded)

    def _on_answer(self, frame: Frame) -> None:
        self._once.discard(frame.correlation_id)
        future = self._pending.pop(frame.correlation_id, None)
        self._answer(future, frame)
        self._end_if_done()

    @staticmethod
    def _answer(future: asyncio.Future[list[object]] | None, frame: Frame) -> None:
        if future is None or future.done():
            return  # its caller gave up
        if frame.kind is Kind.RESPONSE:
            future.set_result(frame.body)
            return
        match frame.body:
            case [int(code), str(message), int(leader_id), *_]:
                future.set_exception(RpcRefusedError(code, message, leader_id))
            case _:
                future.set_exception(RpcError("an error without code and message"))

    def on_oversized(self, size: int) -> None:
        self.on_broken(f"the peer announced a frame of {size} bytes")

    def on_broken(self, reason: str) -> None:
        """The peer broke the framing; the connection ends next."""
        self._reason = reason

    def on_disconnected(self, exc: Exception | None) -> None:
        if not self.closed:
            self._fail(f"{self._reason}{f': {exc}' if exc else ''}")
            self._owner.on_rpc_closed(self, self._reason)

    def _fail(self, reason: str) -> None:
        self.closed = True
        pending, self._pending = self._pending, {}
        for future in pending.values():
            _refuse(future, RpcClosedError(reason))


def _refuse(future: asyncio.Future[list[object]], error: RpcError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # nobody waiting for it is no error
