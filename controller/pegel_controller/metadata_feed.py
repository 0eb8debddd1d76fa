"""The committed end of the metadata log, kept in memory for the brokers that follow it."""

from __future__ import annotations

import asyncio
from collections import deque

from pegel_controller.rpc.messages import MetadataEntry

# Older entries are served as a snapshot of the image.
MAX_TAIL_BYTES = 8 * 1024 * 1024


class MetadataFeed:
    """Committed entries with an index above ``base``, and who waits for the next one."""

    def __init__(self) -> None:
        self.base = 0
        self.index = 0
        self._entries: deque[MetadataEntry] = deque()
        self._bytes = 0
        self._waiters: list[asyncio.Future[None]] = []

    def append(self, entry: MetadataEntry) -> None:
        """A newly committed entry; wakes everybody."""
        self._entries.append(entry)
        self._bytes += len(entry.data)
        self.index = entry.index
        while self._bytes > MAX_TAIL_BYTES and len(self._entries) > 1:
            dropped = self._entries.popleft()
            self._bytes -= len(dropped.data)
            self.base = dropped.index
        self._wake()

    def restart(self, index: int) -> None:
        """A snapshot at ``index`` replaced everything."""
        self._entries.clear()
        self._bytes = 0
        self.base = self.index = index
        self._wake()

    def after(self, index: int, max_bytes: int) -> tuple[MetadataEntry, ...] | None:
        """Entries behind ``index``, at least one if there is any; None: too old, or unknown."""
        if index < self.base or index > self.index:
            return None
        chosen: list[MetadataEntry] = []
        size = 0
        for entry in reversed(self._entries):
            if entry.index <= index:
                break
            chosen.append(entry)
        chosen.reverse()
        for count, entry in enumerate(chosen):
            size += len(entry.data)
            if size > max_bytes and count:
                return tuple(chosen[:count])
        return tuple(chosen)

    async def changed(self, timeout: float) -> None:
        """Return at the next entry, or after ``timeout`` seconds."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            pass
        finally:
            if waiter in self._waiters:  # an entry may have come in the same turn of the loop
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
