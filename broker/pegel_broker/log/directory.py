"""One log directory: its queues, the pipeline of writes and syncs, and what happens on failure.

Appends of one turn of the event loop, and all that arrive while a write is under way, go into
the next write together: one ``writev`` for each log, then one sync for each log that asks for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from pegel.protocol.errors import ErrorCode
from pegel.seams import World
from pegel.seams.disk import Disk, File, Outcome
from pegel_broker.log.errors import CorruptLogError, LogError
from pegel_broker.log.results import Buffer
from pegel_broker.log.segment import Segment, sync_path
from pegel_broker.metrics.stats import LogStats

T = TypeVar("T")

# Appended but not yet written, over all logs of the directory. Past it appends are refused (a
# retriable error) until the disk has caught up.
MAX_UNWRITTEN_BYTES = 64 << 20
# Past it, connections that write are asked to wait: with acks=0 nothing else slows a client down.
CROWDED_BYTES = 16 << 20
# Batches kept in memory after they were written, for followers and consumers at the log end.
TAIL_CACHE_BYTES = 4 << 20
# Open handles for reading; the least recently opened is closed first.
MAX_READERS = 256


@dataclass(slots=True)
class WriteBatch:
    """One log's share of a write: buffers by segment, then segments to sync.

    The log's offsets up to ``end_offset`` are in the files once it is done, and with ``synced``
    on stable storage.
    """

    log: WritableLog
    pieces: list[tuple[Segment, list[Buffer]]]
    sync: list[Segment]
    synced: bool
    end_offset: int
    size: int


class WritableLog(Protocol):
    """What the pipeline asks of a log; all calls come from the event loop."""

    def take_writes(self) -> WriteBatch | None:
        """What is to be written (or synced) now; it is no longer pending."""
        ...

    def on_written(self, batch: WriteBatch) -> None:
        """``batch`` is in the files, and synced where it asked for that."""
        ...

    def fail(self, reason: str) -> None:
        """Go offline."""
        ...

    def drop_cached(self, base_offset: int) -> bool:
        """Forget the oldest batch in memory, if it begins there; False: it is not yet written."""
        ...


def write_all(
    disk: Disk, now: Callable[[], float], batches: list[WriteBatch]
) -> tuple[float, list[float]]:
    """The blocking part; runs in the write queue, which owns the ``writer`` handles.

    Returns the seconds that writing took, and each sync.
    """
    began = now()
    syncs: list[float] = []
    for batch in batches:
        for segment, buffers in batch.pieces:
            writer = segment.writer
            if writer is None:
                writer = segment.writer = disk.open(segment.path(), create=True)
            writer.append(buffers)
        for segment in batch.sync:
            sync_began = now()
            if segment.writer is not None:
                segment.writer.sync()
            else:
                sync_path(disk, segment.path())
            if not segment.entry_synced:
                # The names of new files must survive with their content.
                disk.sync_directory(segment.folder)
                disk.sync_directory(segment.folder.rpartition("/")[0] or "/")
                segment.entry_synced = True
            syncs.append(now() - sync_began)
    return now() - began - sum(syncs), syncs


class LogDirectory:
    """Queues and write pipeline of the directory at ``path``.

    ``offline`` is the reason once a write, sync or other file operation has failed; from then on
    nothing is written, nothing becomes stable, and every log in it is offline.
    """

    def __init__(
        self, world: World, path: str, on_offline: Callable[[LogDirectory, str], None]
    ) -> None:
        self.path = path
        self.disk = world.disk
        self.clock = world.clock
        self.offline: str | None = None
        self.stats = LogStats()
        self.unwritten_bytes = 0
        self.writes = world.new_disk_queue("log-write")
        self.reads = world.new_disk_queue("log-read")
        self.background = world.new_disk_queue("log-background")
        self._on_offline = on_offline
        self._dirty: dict[WritableLog, None] = {}
        self._writing: list[WriteBatch] | None = None
        self._writing_since = 0.0  # monotonic seconds, while a write is under way
        self._reading = 0  # reads that are not yet answered
        self._reading_since = 0.0  # when one was last answered, or the first of them was asked for
        self._closed = False
        self._scheduled = False
        self._cached: deque[tuple[WritableLog, int, int]] = deque()
        self._cached_bytes = 0
        self._readers: dict[Segment, None] = {}
        self._awaiting_room: list[Callable[[], None]] = []
        self._loop = asyncio.get_running_loop()

    # --- writes ---

    def await_room(self, resume: Callable[[], None]) -> bool:
        """Whether the disk is so far behind that more should not be read from clients.

        ``resume`` is then called, once, when it has caught up, or the directory has failed.
        """
        if self.unwritten_bytes <= CROWDED_BYTES or self.offline is not None:
            return False
        self._awaiting_room.append(resume)
        return True

    def _make_room(self) -> None:
        waiting, self._awaiting_room = self._awaiting_room, []
        for resume in waiting:
            resume()

    def check_writable(self, size: int) -> None:
        """Raises LogError: KAFKA_STORAGE_ERROR when offline, REQUEST_TIMED_OUT when the disk is
        ``MAX_UNWRITTEN_BYTES`` behind (one batch is always let through)."""
        if self.offline is not None:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, f"{self.path} is offline: {self.offline}")
        if self.unwritten_bytes and self.unwritten_bytes + size > MAX_UNWRITTEN_BYTES:
            raise LogError(
                ErrorCode.REQUEST_TIMED_OUT,
                f"the disk of {self.path} is {self.unwritten_bytes} bytes behind",
            )

    def cache(self, log: WritableLog, base_offset: int, size: int) -> None:
        """Count a batch that ``log`` holds in memory; it is dropped, oldest first, by budget."""
        self._cached.append((log, base_offset, size))
        self._cached_bytes += size
        self.unwritten_bytes += size

    def enqueue(self, log: WritableLog) -> None:
        """Have ``log`` asked for its writes, after this turn of the loop or the write under way."""
        self._dirty[log] = None
        if self._writing is None and not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._submit)

    def _submit(self) -> None:
        self._scheduled = False
        if self.offline is not None or self._writing is not None:
            return
        logs, self._dirty = self._dirty, {}
        batches = [batch for log in logs if (batch := log.take_writes()) is not None]
        if not batches:
            return
        self._writing = batches
        self._writing_since = self.clock.monotonic()
        disk, now = self.disk, self.clock.monotonic
        self.writes.run(lambda: write_all(disk, now, batches), self._on_written)

    def _on_written(self, outcome: Outcome[tuple[float, list[float]]]) -> None:
        batches, self._writing = self._writing, None
        if outcome.error is not None:
            self.fail(_describe(outcome.error))
            return
        if self.offline is not None:
            return
        assert batches is not None
        written, syncs = outcome.result()
        self.stats.append.observe(written)
        for seconds in syncs:
            self.stats.flush.observe(seconds)
        for batch in batches:
            self.unwritten_bytes -= batch.size
            batch.log.on_written(batch)
        self._drop_cached()
        self.give_back(0)
        if self._dirty and not self._scheduled:
            self._submit()

    def give_back(self, size: int) -> None:
        """So many bytes that were counted will not be written."""
        self.unwritten_bytes -= size
        if self._awaiting_room and self.unwritten_bytes <= CROWDED_BYTES // 2:
            self._make_room()

    def _drop_cached(self) -> None:
        cached = self._cached
        while self._cached_bytes > TAIL_CACHE_BYTES and cached:
            log, base_offset, size = cached[0]
            if not log.drop_cached(base_offset):
                return
            cached.popleft()
            self._cached_bytes -= size

    def forget(self, log: WritableLog) -> None:
        """``log`` is removed: nothing of it is written any more."""
        self._dirty.pop(log, None)

    def stalled_seconds(self) -> float:
        """For how long nothing that was asked of the disk has been answered; 0 where nothing is.

        Reads count as well: where nobody writes, a leader that cannot read serves nobody. The
        background's work does not, which may rightly take long.
        """
        now = self.clock.monotonic()
        if self.offline is not None:
            return 0.0
        writing = now - self._writing_since if self._writing is not None else 0.0
        reading = now - self._reading_since if self._reading else 0.0
        return max(writing, reading)

    # --- other file work ---

    def read(self, call: Callable[[], T], done: Callable[[Outcome[T]], None]) -> None:
        """Run ``call`` in the read queue."""
        if not self._reading:
            self._reading_since = self.clock.monotonic()
        self._reading += 1

        def answered(outcome: Outcome[T]) -> None:
            self._reading -= 1
            self._reading_since = self.clock.monotonic()
            done(outcome)

        self.reads.run(call, answered)

    def run(
        self,
        queue_name: str,
        call: Callable[[], T],
        done: Callable[[T], None] | None = None,
        log: WritableLog | None = None,
    ) -> None:
        """Run ``call`` in the queue of that name, then ``done`` on the loop.

        A CorruptLogError takes ``log`` offline, any other failure the whole directory. Once it is
        closed nothing is run: what is left of a removal, say, is removed at the next start.
        """
        if self.offline is not None or self._closed:
            return

        def on_done(outcome: Outcome[T]) -> None:
            error = outcome.error
            if error is None:
                if done is not None and self.offline is None:
                    done(outcome.result())
            elif isinstance(error, CorruptLogError) and log is not None:
                log.fail(str(error))
            else:
                self.fail(_describe(error))

        run = {"write": self.writes.run, "read": self.read, "background": self.background.run}
        run[queue_name](call, on_done)

    def fail(self, reason: str) -> None:
        """Take the directory offline, once."""
        if self.offline is None:
            self.offline = reason
            self._dirty.clear()
            self._on_offline(self, reason)
            self._make_room()

    # --- reading handles ---

    def keep_reader(self, segment: Segment, file: File) -> None:
        """Keep ``file`` as the segment's reader; closes the oldest beyond ``MAX_READERS``."""
        if segment.reader is not None or self.offline is not None or self._closed:
            self.close_file(file)
            return
        segment.reader = file
        self._readers[segment] = None
        if len(self._readers) > MAX_READERS:
            self.drop_reader(next(iter(self._readers)))

    def drop_reader(self, segment: Segment) -> None:
        """Close the segment's reader, once the reads that were queued before are done."""
        if self._readers.pop(segment, 0) is None and segment.reader is not None:
            file, segment.reader = segment.reader, None
            self.close_file(file)

    def close_file(self, file: File) -> None:
        """Close ``file`` after the reads that were queued before; at once where none is left."""
        if self._closed:  # a read was answered after the queue had ended
            file.close()
        else:
            self.reads.submit(file.close)

    def close(self) -> None:
        """Stop the queues, having finished what they hold."""
        for segment in list(self._readers):
            self.drop_reader(segment)
        self._closed = True
        for queue in (self.writes, self.background, self.reads):
            queue.close()


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
