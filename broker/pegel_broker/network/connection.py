"""One client connection: requests are handled in order of arrival, answered in that order.

A request that waits (for acknowledgements, for data) does not hold up the handling of those
behind it; only its response holds up theirs, as the protocol demands.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from pegel.protocol.api_keys import APIS, ApiKey
from pegel.protocol.codec import (
    RequestHeader,
    decode_request,
    encode_response,
    read_request_header,
)
from pegel.protocol.errors import ErrorCode, ProtocolError
from pegel.protocol.framing import FrameProtocol
from pegel.protocol.schema import Message
from pegel_broker.handlers.api_versions import spoken
from pegel_broker.handlers.context import CloseConnectionError, Request
from pegel_broker.handlers.registry import advertised, handlers
from pegel_broker.network.accounting import Slot
from pegel_broker.network.sasl import AuthenticationFailedError
from pegel_broker.network.session import UNKNOWN_FRAME_BYTES, Session

if TYPE_CHECKING:
    from pegel_broker.network.listener import ClientListener

_log = logging.getLogger("pegel.broker")

# Requests of one connection whose response has not been written. Reading stops at this number.
MAX_IN_FLIGHT = 512
_RESUME_AT = MAX_IN_FLIGHT // 2


class ClientConnection(FrameProtocol):
    """Serves one client until either side closes."""

    def __init__(self, listener: ClientListener, max_frame_bytes: int) -> None:
        super().__init__(max_frame_bytes)
        self.peer = "?"
        self.last_used = 0.0
        self.opened_at = 0.0
        # Who is there, where the listener wants to know.
        self.session: Session | None = None
        self._max_known_frame_bytes = max_frame_bytes
        self._raw_step: asyncio.Task[None] | None = None
        self._listener = listener
        self._broker = listener.broker
        self._accounting = listener.accounting
        self._now = listener.now
        self._read_at = 0.0  # when the newest bytes came, monotonic seconds
        self._slots: deque[Slot] = deque()
        self._waiting: dict[asyncio.Future[Message], Slot] = {}
        self._held = False  # reading is paused, because of the client, a limit or the disk
        self._crowded = False
        self._receiving = listener.receiving
        self._received = 0  # bytes of the frame that is arriving, as ``_receiving`` knows them
        self._starved = False

    @property
    def in_flight(self) -> int:
        return len(self._slots)

    # -- FrameProtocol

    def on_connected(self) -> None:
        assert self.transport is not None
        peer = self.transport.get_extra_info("peername")
        self.peer = f"{peer[0]}:{peer[1]}" if isinstance(peer, tuple) else str(peer)
        self.last_used = self.opened_at = asyncio.get_running_loop().time()
        door = self._listener.door
        if door is not None:
            self.session = Session(door, self.peer)
            self.max_frame_bytes = min(UNKNOWN_FRAME_BYTES, self._max_known_frame_bytes)
        self._listener.on_opened(self)

    def on_disconnected(self, exc: Exception | None) -> None:
        self._listener.on_closed(self)
        if self._received:
            self._received = 0
            self._receiving.on_received(self, 0)
        self._accounting.in_flight -= len(self._slots)
        self._slots.clear()
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            future.cancel()
        if self._raw_step is not None:
            self._raw_step.cancel()

    def on_oversized(self, size: int) -> None:
        known = self.session is None or self.session.user is not None
        limit = "socket.request.max.bytes" if known else "the limit before a log-in"
        _log.warning(
            "closing the connection of %s: it announced a request of %d bytes (%s is %d)",
            self.peer, size, limit, self.max_frame_bytes,
        )  # fmt: skip

    def buffer_updated(self, nbytes: int) -> None:
        self._read_at = self._now()
        self._listener.counters.received_bytes += nbytes
        super().buffer_updated(nbytes)
        if self.partial_bytes != self._received:
            self._received = self.partial_bytes
            self._receiving.on_received(self, self._received)

    def on_frame(self, frame: memoryview) -> None:
        try:
            if self.session is not None and self.session.raw:
                self._take_raw_token(bytes(frame))
            else:
                self._handle(frame)
        except (ProtocolError, CloseConnectionError) as error:
            _log.warning("closing the connection of %s: %s", self.peer, error)
            self._listener.counters.protocol_errors += 1
            self.abort()
        except Exception:  # a broken handler must cost one connection, not the node
            _log.exception("closing the connection of %s: a request failed", self.peer)
            self.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._hold()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_ready()
        self._release()

    # -- requests

    def _handle(self, frame: memoryview) -> None:
        started = self._now()
        header = read_request_header(frame)
        info = advertised().get(header.api_key)
        if info is None or not info.min_version <= header.api_version <= info.max_version:
            self._refuse_version(header)
            return
        session = self.session
        if session is not None:
            session.admit(header.api_key, started)
        message = decode_request(header, frame)
        request = Request(
            self._broker, message, header.api_version, header.client_id, self.peer, session
        )
        accounting = self._accounting
        stats, patience = accounting.of(header.api_key, message)
        slot = Slot(header.correlation_id, header.api_version, stats, self._read_at, started)
        slot.patience = patience
        answer = handlers()[header.api_key](request)
        slot.returned = slot.ready = self._now()
        if header.api_key == ApiKey.PRODUCE:
            self._await_room()
        if answer is None:
            accounting.finished(slot, slot.ready)
            return  # acks=0: no response
        self._slots.append(slot)
        accounting.in_flight += 1
        if isinstance(answer, Message):
            slot.message = answer
            if self._slots[0] is slot:
                self._write_ready()
        else:
            self._wait(slot, answer)
        if len(self._slots) >= MAX_IN_FLIGHT:
            self._hold()

    def _await_room(self) -> None:
        """Read no more from a client whose records the disk cannot take as quickly."""
        if not self._crowded and self._broker.replicas.logs.await_room(self._on_room):
            self._crowded = True
            self._hold()

    def hold_receiving(self) -> None:
        """Others' frames that are arriving fill the memory that there is for them."""
        self._starved = True
        self._hold()

    def release_receiving(self) -> None:
        self._starved = False
        self._release()

    def _on_room(self) -> None:
        self._crowded = False
        self._release()

    def _wait(self, slot: Slot, answer: Awaitable[Message]) -> None:
        future = asyncio.ensure_future(answer)
        self._waiting[future] = slot
        future.add_done_callback(self._answered)

    def _answered(self, future: asyncio.Future[Message]) -> None:
        slot = self._waiting.pop(future, None)
        if slot is None or future.cancelled():
            return
        error = future.exception()
        if error is not None:
            _log.error("closing the connection of %s: a request failed", self.peer, exc_info=error)
            self.abort()
            return
        slot.message = future.result()
        slot.ready = self._now()
        if self._slots and self._slots[0] is slot:
            self._write_ready()

    # -- before the log-in

    def _take_raw_token(self, token: bytes) -> None:
        """After a handshake of version 0 the client's tokens come as they are."""
        if self._raw_step is not None or self._slots:
            raise CloseConnectionError("it sent a token without waiting for the answer")
        self._raw_step = asyncio.create_task(self._answer_raw(token))

    async def _answer_raw(self, token: bytes) -> None:
        assert self.session is not None
        try:
            answer = await self.session.take(token)
        except AuthenticationFailedError:
            self.abort()  # this version has no words for it
            return
        finally:
            self._raw_step = None
        if answer is not None:
            self.write([len(answer).to_bytes(4, "big") + answer])
            self._widen()

    def _widen(self) -> None:
        """Whoever has logged in may send what the listener takes."""
        if self.session is not None and self.session.user is not None:
            self.max_frame_bytes = self._max_known_frame_bytes
            self._listener.on_known(self)

    def _refuse_version(self, header: RequestHeader) -> None:
        if header.api_key == ApiKey.API_VERSIONS:
            # The one request that a client sends before it can know (KIP-511).
            stats = self._accounting.by_api[header.api_key]
            slot = Slot(header.correlation_id, 0, stats, self._read_at, self._now())
            slot.message = spoken(ErrorCode.UNSUPPORTED_VERSION)
            self._slots.append(slot)
            self._accounting.in_flight += 1
            self._write_ready()
            return
        known = APIS.get(header.api_key)
        name = known.name if known is not None else f"API {header.api_key}"
        raise CloseConnectionError(
            f"{name} version {header.api_version} is not supported (see ApiVersions)"
        )

    # -- responses

    def _write_ready(self) -> None:
        """Write the responses at the head of the order, unless the client does not read."""
        slots = self._slots
        while slots and slots[0].message is not None and not self.paused:
            slot = slots.popleft()
            assert slot.message is not None
            buffers = encode_response(slot.message, slot.version, slot.correlation_id)
            self._listener.counters.sent_bytes += sum(map(len, buffers))
            self.write(buffers)
            self._accounting.in_flight -= 1
            self._accounting.finished(slot, self._now())
        if self.session is not None and not slots:
            self._widen()
            if self.session.failed:
                self.close()  # what was refused has been said
                return
        if not slots:
            self.last_used = asyncio.get_running_loop().time()
        self._release()

    def _hold(self) -> None:
        self._held = True
        self.pause_reading()

    def _release(self) -> None:
        waits = self.paused or self._crowded or self._starved
        if self._held and not waits and len(self._slots) <= _RESUME_AT:
            self._held = False
            self.resume_reading()
