"""Frames over a transport, however the bytes are cut."""

from __future__ import annotations

import asyncio
import mmap
import random
import socket

import pytest
import uvloop

from pegel.protocol import framing
from pegel.protocol.framing import FrameProtocol


class Transport(asyncio.Transport):
    """Records what a protocol asks of it."""

    def __init__(self) -> None:
        super().__init__()
        self.aborted = False
        self.reading = True
        self.sent = bytearray()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Collector(FrameProtocol):
    def __init__(self, max_frame_bytes: int = 1 << 20) -> None:
        super().__init__(max_frame_bytes)
        self.frames: list[memoryview] = []
        self.oversized: list[int] = []
        self.lost = asyncio.Event()

    def on_frame(self, frame: memoryview) -> None:
        self.frames.append(frame)

    def on_oversized(self, size: int) -> None:
        self.oversized.append(size)

    def on_disconnected(self, exc: Exception | None) -> None:
        self.lost.set()

    @property
    def received(self) -> list[bytes]:
        return [bytes(frame) for frame in self.frames]


def framed(*bodies: bytes) -> bytes:
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def feed(protocol: FrameProtocol, data: bytes, step: int) -> None:
    """Deliver ``data`` as a transport does, at most ``step`` bytes at a time."""
    position = 0
    while position < len(data) and protocol.transport is not None:
        buffer = protocol.get_buffer(-1)
        assert len(buffer) > 0
        piece = data[position : position + min(step, len(buffer))]
        buffer[: len(piece)] = piece
        protocol.buffer_updated(len(piece))
        position += len(piece)


def connected(protocol: Collector) -> Transport:
    transport = Transport()
    protocol.connection_made(transport)
    return transport


def run(main: object) -> None:
    asyncio.run(main)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 7, 61, 1000, 1 << 20])
def test_frames_are_whole_however_the_stream_is_cut(step: int) -> None:
    async def main() -> None:
        rng = random.Random(step)
        sizes = [0, 1, 5, 4000, 16384, 16385, 70_000, 3, 0, 9000]
        bodies = [rng.randbytes(size) for size in sizes]
        protocol = Collector()
        connected(protocol)
        feed(protocol, framed(*bodies), step)
        assert protocol.received == bodies
        assert protocol.partial_since is None

    run(main())


def test_every_split_of_two_frames() -> None:
    async def main() -> None:
        data = framed(b"first", b"second frame")
        for cut in range(len(data) + 1):
            protocol = Collector()
            connected(protocol)
            feed(protocol, data[:cut], 1 << 16)
            feed(protocol, data[cut:], 1 << 16)
            assert protocol.received == [b"first", b"second frame"], cut

    run(main())


def test_a_frame_handed_out_never_changes_and_may_be_written() -> None:
    async def main() -> None:
        rng = random.Random(1)
        protocol = Collector()
        connected(protocol)
        bodies = [rng.randbytes(rng.choice((10, 500, 20_000))) for _ in range(500)]
        feed(protocol, framed(*bodies), 30_000)
        assert protocol.received == bodies
        assert all(not frame.readonly for frame in protocol.frames)
        protocol.frames[0][:] = b"\xff" * len(bodies[0])
        assert protocol.received[1:] == bodies[1:]

    run(main())


@pytest.mark.parametrize("size", [-1, 1001, 0x7FFFFFFF])
def test_an_oversized_frame_ends_the_connection_before_any_memory_is_taken(size: int) -> None:
    async def main() -> None:
        protocol = Collector(max_frame_bytes=1000)
        transport = connected(protocol)
        feed(protocol, framed(b"x" * 1000) + size.to_bytes(4, "big", signed=True) + b"more", 4096)
        assert len(protocol.frames) == 1
        assert protocol.oversized == [size]
        assert transport.aborted

    run(main())


def test_a_large_frame_that_does_not_come_is_timed_and_a_pause_stops_the_clock() -> None:
    async def main() -> None:
        protocol = Collector(max_frame_bytes=200 << 20)
        connected(protocol)
        feed(protocol, (150 << 20).to_bytes(4, "big") + b"begin", 4096)
        assert protocol.partial_since is not None
        protocol.pause_reading()
        assert protocol.partial_since is None
        protocol.resume_reading()
        await asyncio.sleep(0)
        assert protocol.partial_since is not None

    run(main())


def test_no_frame_is_handed_out_while_reading_is_paused() -> None:
    class OneAtATime(Collector):
        def on_frame(self, frame: memoryview) -> None:
            super().on_frame(frame)
            self.pause_reading()

    async def main() -> None:
        bodies = [b"one", b"two", b"x" * 30_000, b"four"]
        protocol = OneAtATime()
        transport = connected(protocol)
        feed(protocol, framed(*bodies), 1 << 16)
        for expected in range(1, 5):
            assert protocol.received == bodies[:expected]
            assert not transport.reading
            protocol.resume_reading()
            assert protocol.received == bodies[:expected], "not from within resume_reading"
            await asyncio.sleep(0)
        assert protocol.received == bodies

    run(main())


def test_nothing_follows_a_close_inside_on_frame() -> None:
    class Closer(Collector):
        def on_frame(self, frame: memoryview) -> None:
            super().on_frame(frame)
            self.close()

    async def main() -> None:
        protocol = Closer()
        connected(protocol)
        feed(protocol, framed(b"one", b"two"), 100)
        assert protocol.received == [b"one"]
        protocol.write([b"ignored"])

    run(main())


def test_drain_waits_for_the_transport_and_fails_when_it_is_lost() -> None:
    async def main() -> None:
        protocol = Collector()
        connected(protocol)
        await protocol.drain()
        protocol.pause_writing()
        assert protocol.paused
        waiting = asyncio.ensure_future(protocol.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        protocol.resume_writing()
        await waiting
        protocol.pause_writing()
        waiting = asyncio.ensure_future(protocol.drain())
        await asyncio.sleep(0)
        protocol.connection_lost(None)
        with pytest.raises(ConnectionResetError):
            await waiting
        with pytest.raises(ConnectionResetError):
            await protocol.drain()

    run(main())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_over_a_real_socket(new_loop: object) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        left, right = socket.socketpair()
        sender, receiver = Collector(), Collector(max_frame_bytes=8 << 20)
        await loop.create_connection(lambda: sender, sock=left)
        await loop.create_connection(lambda: receiver, sock=right)
        rng = random.Random(3)
        bodies = [rng.randbytes(size) for size in (10, 100, 3 << 20, 7, 200_000, 0)]
        bodies += [b"%d" % i for i in range(2000)]
        for body in bodies:
            sender.write([len(body).to_bytes(4, "big"), body])
            await sender.drain()
        sender.close()
        await receiver.lost.wait()
        assert receiver.received == bodies

    with asyncio.Runner(loop_factory=new_loop) as runner:  # type: ignore[arg-type]
        runner.run(main())


def _chunk_after(reads: int, size: int, step: int) -> int:
    """Size of the receive buffer after so many frames of ``size`` bytes that come in ``step``s."""
    protocol = Collector()
    connected(protocol)
    body = bytes(size)
    if step > size:
        feed(protocol, framed(*[body] * reads), step)
    else:
        for _ in range(reads):
            feed(protocol, framed(body), step)
    assert len(protocol.frames) == reads
    return len(protocol._chunk)


def test_a_connection_of_one_request_at_a_time_keeps_a_small_buffer() -> None:
    """A thousand of them are not to hold a thousand times what one busy connection needs."""

    async def main() -> None:
        assert _chunk_after(2000, 100, 100) == framing._FIRST_CHUNK_BYTES
        assert _chunk_after(2000, 10_000, 10_000) <= 4 * framing._FIRST_CHUNK_BYTES

    run(main())


def test_a_connection_that_fills_its_buffer_gets_a_larger_one_until_it_falls_quiet() -> None:
    async def main() -> None:
        assert _chunk_after(20_000, 100, 1 << 20) == framing._LARGEST_CHUNK_BYTES
        protocol = Collector()
        connected(protocol)
        feed(protocol, framed(*[bytes(100)] * 20_000), 1 << 20)
        for _ in range(10_000):
            feed(protocol, framed(bytes(100)), 1000)
        assert len(protocol._chunk) == framing._FIRST_CHUNK_BYTES

    run(main())


@pytest.mark.parametrize(("over", "kind"), [(0, bytearray), (1, mmap.mmap)])
def test_a_frame_above_the_limit_is_received_into_pages_that_cost_nothing_until_bytes_come(
    over: int, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 256 * 1024
    monkeypatch.setattr(framing, "_MAP_BYTES", limit)
    body = random.Random(over).randbytes(limit + over)

    async def main() -> None:
        protocol = Collector()
        connected(protocol)
        feed(protocol, framed(b"before", body, b"after"), 50_000)
        assert protocol.received == [b"before", body, b"after"]
        assert isinstance(protocol.frames[1].obj, kind)

    run(main())
