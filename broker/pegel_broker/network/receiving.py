"""The memory of requests that are still arriving, in all connections together."""

from __future__ import annotations

from typing import Protocol


class Receiver(Protocol):
    """A connection whose reading can be held."""

    def hold_receiving(self) -> None: ...

    def release_receiving(self) -> None: ...


class ReceivingMemory:
    """Counts the bytes that are here of frames that are not whole yet.

    Above ``limit`` bytes (negative: none) only the connection whose frame began first is read, so
    that there is always one that can go on: what is held stays below the limit and one frame. Bytes
    count as they arrive, not as they are announced: to announce much costs nobody anything. A
    client that does not send the rest of its frame is closed by the listener, which lets the next
    one go on.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0
        self._frames: dict[Receiver, int] = {}  # in the order in which the frames began
        self._held: dict[Receiver, None] = {}

    def on_received(self, receiver: Receiver, size: int) -> None:
        """``size`` bytes of its frame are here; 0 where the frame is whole, or will never be."""
        self.bytes += size - self._frames.get(receiver, 0)
        if size:
            self._frames[receiver] = size
        else:
            self._frames.pop(receiver, None)
            if receiver in self._held:
                del self._held[receiver]
                receiver.release_receiving()
        if 0 <= self.limit < self.bytes:
            self._hold_all_but_the_first()
        elif self._held:
            held, self._held = self._held, {}
            for one in held:
                one.release_receiving()

    def _hold_all_but_the_first(self) -> None:
        first = next(iter(self._frames))
        for receiver in self._frames:
            if receiver is not first and receiver not in self._held:
                self._held[receiver] = None
                receiver.hold_receiving()
        if first in self._held:
            del self._held[first]
            first.release_receiving()
