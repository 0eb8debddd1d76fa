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
        self.last_used = asyncio.get_running_loop().time()
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

    def on_oversized(self, size: int) -> None:
        _log.warning(
            "closing the connection of %s: it announced a request of %d bytes "
            "(socket.request.max.bytes is %d)",
            self.peer, size, self.max_frame_bytes,
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
        message = decode_request(header, frame)
        request = Request(self._broker, message, header.api_version, header.client_id, self.peer)
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
