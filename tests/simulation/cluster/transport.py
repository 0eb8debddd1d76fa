"""One end of a simulated connection: an asyncio transport over a pipe to the other end."""

from __future__ import annotations

import asyncio
import errno
import zlib
from collections import deque
from typing import TYPE_CHECKING, Any

from tests.simulation.cluster.kernel import SimLoop

if TYPE_CHECKING:
    from tests.simulation.cluster.network import Network

SEND_WINDOW_BYTES = 256 * 1024  # what kernels on both sides hold before the sender's buffer fills
HIGH_WATER_BYTES = 64 * 1024
FIN, RESET = "fin", "reset"


class Pipe:
    """What one end has sent to the other and the other has not received."""

    __slots__ = (
        "_last_at", "_network", "_port", "_receiver", "segments", "source", "target", "unread",
    )  # fmt: skip

    def __init__(self, network: Network, source: str, receiver: SimTransport, port: int) -> None:
        self._network = network
        self._receiver = receiver
        self._port = port  # of the listener that the connection was made to
        self._last_at = 0.0
        self.source = source
        self.target = receiver.host
        # (time of arrival, time of sending, pieces or FIN or RESET)
        self.segments: deque[tuple[float, float, Any]] = deque()
        self.unread = 0

    def send(self, what: Any) -> None:
        network, segments = self._network, self.segments
        scheduler = network.scheduler
        now = scheduler.now
        if type(what) is bytes:
            self.unread += len(what)
            if segments:
                last = segments[-1]
                if last[1] == now and type(last[2]) is list:
                    last[2].append(what)
                    return
            what = [what]
        at = now + network.delay(self.source, self.target)
        if at < self._last_at:  # nothing overtakes
            at = self._last_at
        self._last_at = at
        segments.append((at, now, what))
        scheduler.at(at, self.pump)

    def drop(self) -> None:
        self.segments.clear()

    def pump(self, _: None = None) -> None:
        """Deliver what has arrived, unless the path is cut: then it is sent again later."""
        network, segments = self._network, self.segments
        if not segments:
            return
        if (network.cuts or network.off) and network.is_cut(self.source, self.target, self._port):
            return
        scheduler = network.scheduler
        now, trace = scheduler.now, scheduler.trace
        while segments and segments[0][0] <= now:
            what = segments.popleft()[2]
            if type(what) is list:
                data = what[0] if len(what) == 1 else b"".join(what)
                receiver = self._receiver
                if trace.hashed:
                    trace.add(
                        now, f"{self.source}>{self.target} #{receiver.number} "
                        f"{len(data)} {zlib.crc32(data):08x}",
                    )  # fmt: skip
                else:
                    trace.events += 1
                receiver.on_data(data)
            elif what == FIN:
                self._receiver.on_fin()
            else:
                self._receiver.on_reset()


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: Network, loop: SimLoop, host: str, number: int) -> None:
        super().__init__()
        self.loop = loop
        self.host = host
        self.number = number
        self.vanished = False  # this end's kernel knows nothing of the connection
        self.out: Pipe
        self._network = network
        self._peer: SimTransport
        self._peer_name = ("", 0)
        self._protocol: Any = None
        self._fills_buffers = False  # whether it is a BufferedProtocol
        self._received: deque[bytes | memoryview] = deque()
        self._eof = False
        self._reading = True
        self._read_scheduled = False
        self._closing = False
        self._lost = False
        self._writing_paused = False

    def join(self, peer: SimTransport, peer_name: tuple[str, int], port: int) -> None:
        self._peer, self._peer_name = peer, peer_name
        self.out = Pipe(self._network, self.host, peer, port)

    def begin(self, protocol: asyncio.BaseProtocol) -> None:
        """The process has it; bytes may have come before."""
        self.set_protocol(protocol)
        protocol.connection_made(self)
        self._schedule_read()

    # -- what arrives

    def on_data(self, data: bytes) -> None:
        if self.vanished or self._closing:
            self._peer.out.unread = 0
            self._answer_reset()
            return
        self._received.append(data)
        self._schedule_read()

    def on_fin(self) -> None:
        if not self.vanished and not self._closing:
            self._eof = True
            self._schedule_read()

    def on_reset(self) -> None:
        if not self.vanished:
            self._end(ConnectionResetError(errno.ECONNRESET, "Connection reset by peer"))

    def _answer_reset(self) -> None:
        """Bytes for a socket that is closed here."""
        if self.host not in self._network.off:
            self.out.drop()
            self.out.send(RESET)

    def _schedule_read(self) -> None:
        if (
            not self._read_scheduled
            and self._reading
            and self._protocol is not None
            and (self._received or self._eof)
        ):
            self._read_scheduled = True
            self.loop.call_soon(self._read)

    def _read(self) -> None:
        self._read_scheduled = False
        protocol, received = self._protocol, self._received
        while received and self._reading and not self._closing:
            data = received.popleft()
            size = len(data)
            if self._fills_buffers:
                buffer = protocol.get_buffer(-1)
                if len(buffer) < size:
                    received.appendleft(memoryview(data)[len(buffer) :])
                    size = len(buffer)
                    data = data[:size]
                buffer[:size] = data
                self._peer.on_read(size)
                protocol.buffer_updated(size)
            else:
                self._peer.on_read(size)
                protocol.data_received(bytes(data))
        if self._eof and not received and self._reading and not self._closing:
            self._eof = False
            if not protocol.eof_received():
                self.close()

    # -- sending

    def write(self, data: Any) -> None:
        if self._closing or self.vanished or not len(data):
            return
        out = self.out
        out.send(bytes(data))
        if out.unread > SEND_WINDOW_BYTES + HIGH_WATER_BYTES and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def on_read(self, size: int) -> None:
        """The other end's process has read so much."""
        out = self.out
        out.unread = out.unread - size if out.unread > size else 0
        if self._writing_paused and self.get_write_buffer_size() < HIGH_WATER_BYTES // 4:
            self._writing_paused = False
            if not self._closing and self._protocol is not None:
                self.loop.call_soon(self._protocol.resume_writing)

    def get_write_buffer_size(self) -> int:
        return max(0, self.out.unread - SEND_WINDOW_BYTES)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return HIGH_WATER_BYTES // 4, HIGH_WATER_BYTES

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False

    # -- reading

    def is_reading(self) -> bool:
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        self._schedule_read()

    # -- the end

    def close(self) -> None:
        if not self._closing and not self.vanished:
            self.out.send(FIN)
            self._end(None)

    def abort(self) -> None:
        self.close()

    def is_closing(self) -> bool:
        return self._closing

    def _end(self, error: Exception | None) -> None:
        if self._closing:
            return
        self._closing = True
        self._received.clear()
        if self._protocol is not None and not self._lost:
            self._lost = True
            self.loop.call_soon(self._protocol.connection_lost, error)
        self._forget()

    def _forget(self) -> None:
        """Closed at both ends, with nothing under way: no need to know it any more."""
        peer = self._peer
        if (self._closing or self.vanished) and (peer._closing or peer.vanished):
            self._network.connections.pop(self.number, None)

    def on_process_end(self) -> None:
        """The kernel closes it: in order, or by a reset where bytes were not read."""
        if self._closing or self.vanished:
            return
        reset = bool(self._received) or self._network.random.random() < 0.3
        self.out.send(RESET if reset else FIN)
        self._closing = True
        self._forget()

    def vanish(self) -> None:
        """The host lost its power."""
        self.vanished = True
        if hasattr(self, "out"):
            self.out.drop()
        self._received.clear()

    # -- what there is to know

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "peername":
            return self._peer_name
        if name == "sockname":
            return (self.host, 0)
        return default

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        self._fills_buffers = isinstance(protocol, asyncio.BufferedProtocol)
