"""Length-prefixed frames over an asyncio transport, received without joining copies.

Small frames are slices of a receive buffer that is filled once and never filled again, so many of
them cost one ``recv`` and no copy. A frame too big for that gets memory of exactly its size, and
the kernel writes straight into it. Either way a frame that was handed out belongs to whoever holds
it: its bytes never change under them, and they may be changed in place (a broker writes offsets
into the batches that it stores).
"""

from __future__ import annotations

import asyncio
import mmap
import struct
import sys
from collections.abc import Sequence
from typing import cast

from pegel.protocol.schema import Buffer

_SIZE = struct.Struct(">i")
DEFAULT_MAX_FRAME_BYTES = 100 * 1024 * 1024
# A quiet connection keeps one small buffer; it doubles while single reads fill half of it or more,
# and halves while they do not: a thousand connections of one request at a time stay small.
_FIRST_CHUNK_BYTES = 8 * 1024
_LARGEST_CHUNK_BYTES = 128 * 1024
# Below this much space one more ``recv`` is not worth its call.
_LEAST_SPACE_BYTES = 2 * 1024
# A frame above this size that has not arrived whole is received into its own memory.
_OWN_MEMORY_BYTES = 16 * 1024
# Above this size memory is mapped, not allocated: pages then cost nothing until bytes arrive, so a
# peer cannot make a node grow, or zero much memory, by announcing a large frame and sending none of
# it. Fresh pages are dear, though: to fill a megabyte takes 600 us of processor time where it was
# mapped, and 45 to 170 in memory that the allocator has had before.
_MAP_BYTES = 16 * 1024 * 1024


def _map(size: int) -> mmap.mmap:
    """``size`` bytes of fresh pages, of this process alone: shared ones cost half as much again."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class FrameProtocol(asyncio.BufferedProtocol):
    """One connection that carries frames of a 4-byte big-endian length and that many bytes.

    Subclasses override the ``on_*`` methods, all called on the event loop.

    Attributes:
        max_frame_bytes: limit of an incoming frame; raise it after authentication.
        paused: whether the transport's write buffer is over its high-water mark.
        partial_since: loop time (seconds) at which the frame that is still incomplete began to
            arrive, ``None`` between frames. A shell drops peers that stay incomplete too long.
        transport: set from ``on_connected`` until ``on_disconnected``.
    """

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self.paused = False
        self.partial_since: float | None = None
        self.transport: asyncio.Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._drain_waiters: list[asyncio.Future[None]] = []
        self._reading_paused = False
        self._closed = False
        # Bytes [_start, _end) of the chunk have arrived and are not yet handed out.
        self._chunk = memoryview(b"")
        self._start = 0
        self._end = 0
        self._next_chunk_bytes = _FIRST_CHUNK_BYTES
        self._chunk_is_small = False  # a read took all of the half of it that was free, or more
        # The frame being received into memory of its own, and how much of it is there.
        self._frame: memoryview | None = None
        self._frame_filled = 0

    @property
    def partial_bytes(self) -> int:
        """Bytes that are here of a large frame that is not whole yet."""
        return 0 if self._frame is None else self._frame_filled

    # Hooks

    def on_connected(self) -> None:
        """The transport is there."""

    def on_disconnected(self, exc: Exception | None) -> None:
        """The connection is gone; ``None`` means closed by either side without an error."""

    def on_frame(self, frame: memoryview) -> None:
        """One frame, without its length; writable, and the receiver's to keep."""
        raise NotImplementedError

    def on_oversized(self, size: int) -> None:
        """The peer announced a frame of ``size`` bytes, negative or over the limit.

        The connection is aborted when this returns: what follows cannot be told apart.
        """

    # Sending

    def write(self, buffers: Sequence[Buffer]) -> None:
        """Send the buffers in order; they must not change afterwards. No-op once closed."""
        transport = self.transport
        if transport is None or self._closed:
            return
        if len(buffers) == 1:
            transport.write(buffers[0])
        else:
            transport.writelines(buffers)

    async def drain(self) -> None:
        """Wait until the write buffer is below its mark.

        Raises:
            ConnectionResetError: the connection is closed.
        """
        if self._closed:
            raise ConnectionResetError("the connection is closed")
        if self.paused:
            waiter = asyncio.get_running_loop().create_future()
            self._drain_waiters.append(waiter)
            await waiter

    # Receiving

    def pause_reading(self) -> None:
        """No more frames until ``resume_reading``, not even those already received."""
        if not self._reading_paused:
            self._reading_paused = True
            self.partial_since = None  # from here on it is we who are slow
            if self.transport is not None and not self._closed:
                self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Undo ``pause_reading``. Frames already received follow from the loop, not from here."""
        if self._reading_paused:
            self._reading_paused = False
            if self.transport is not None and not self._closed:
                self.transport.resume_reading()
                if self._frame is not None or self._end > self._start:
                    assert self._loop is not None
                    self._loop.call_soon(self._hand_out)

    def close(self) -> None:
        """Send what is buffered, then close. No frame is handed out any more."""
        self._closed = True
        if self.transport is not None:
            self.transport.close()
        self._wake_drainers()

    def abort(self) -> None:
        """Close at once and drop what is buffered."""
        self._closed = True
        if self.transport is not None:
            self.transport.abort()
        self._wake_drainers()

    # Called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()
        self.on_connected()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self.transport = None
        self._frame = None
        self.partial_since = None
        self._wake_drainers()
        self.on_disconnected(exc)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _wake_drainers(self) -> None:
        waiters, self._drain_waiters = self._drain_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_exception(ConnectionResetError("the connection is closed"))

    def eof_received(self) -> bool:
        return False

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._frame is not None:
            return self._frame[self._frame_filled :]
        if len(self._chunk) - self._end < _LEAST_SPACE_BYTES:
            self._start_chunk()
        return self._chunk[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        frame = self._frame
        if frame is None:
            self._end += nbytes
            if self._end == len(self._chunk) <= 2 * nbytes:
                self._chunk_is_small = True
            self._hand_out()
            return
        self._frame_filled += nbytes
        # While reading is paused a complete frame waits here; nothing can arrive behind it
        # because ``get_buffer`` is not asked again before reading resumes.
        if self._frame_filled == len(frame):
            self._frame = None
            if self._reading_paused:
                self._keep_for_later(frame)
            elif not self._closed:
                self.partial_since = None
                self.on_frame(frame)

    def _keep_for_later(self, frame: memoryview) -> None:
        """A frame that a paused transport still delivered goes back in front of the chunk."""
        chunk = memoryview(bytearray(4 + len(frame) + _LEAST_SPACE_BYTES))
        chunk[:4] = len(frame).to_bytes(4, "big")
        chunk[4 : 4 + len(frame)] = frame
        self._chunk, self._start, self._end = chunk, 0, 4 + len(frame)

    def _start_chunk(self) -> None:
        """A fresh chunk that begins with the bytes not yet handed out."""
        rest = self._chunk[self._start : self._end]
        size = self._next_chunk_bytes
        if self._chunk_is_small:
            size = min(2 * size, _LARGEST_CHUNK_BYTES)
        elif len(rest) < size // 4:  # else its frames are of this size
            size = max(size // 2, _FIRST_CHUNK_BYTES)
        self._next_chunk_bytes, self._chunk_is_small = size, False
        # A paused reader may leave more than a chunk; an incomplete small frame must fit whole.
        chunk = memoryview(bytearray(max(size, len(rest) + 2 * _LEAST_SPACE_BYTES)))
        chunk[: len(rest)] = rest
        self._chunk, self._start, self._end = chunk, 0, len(rest)

    def _hand_out(self) -> None:
        """Hand out every whole frame of the chunk."""
        while not self._closed and not self._reading_paused:
            chunk, start = self._chunk, self._start
            arrived = self._end - start
            if arrived < 4:
                break
            size = _SIZE.unpack_from(chunk, start)[0]
            if not 0 <= size <= self.max_frame_bytes:
                self.on_oversized(size)
                self.abort()
                return
            if arrived < 4 + size:
                if size > _OWN_MEMORY_BYTES:
                    self._receive_directly(size)
                break
            # Moved on before the call: the receiver may pause, close or raise.
            self._start = start + 4 + size
            self.partial_since = None
            self.on_frame(chunk[start + 4 : start + 4 + size])
        if self._closed or self._reading_paused or self.partial_since is not None:
            return
        if self._frame is not None or self._end > self._start:
            assert self._loop is not None
            self.partial_since = self._loop.time()

    def _receive_directly(self, size: int) -> None:
        memory = bytearray(size) if size <= _MAP_BYTES else _map(size)
        frame = memoryview(memory)
        have = self._end - self._start - 4
        frame[:have] = self._chunk[self._start + 4 : self._end]
        self._start = self._end
        self._frame, self._frame_filled = frame, have
