"""The state of one log on the event loop, and its side of the directory's write pipeline."""

from __future__ import annotations

import asyncio
import uuid
from bisect import bisect_right
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, cast

from pegel.protocol.errors import ErrorCode
from pegel_broker.log import maintenance
from pegel_broker.log.checkpointing import DirectoryKeeper
from pegel_broker.log.checkpoints import HIGH_WATERMARK_FILE, RECOVERY_POINT_FILE
from pegel_broker.log.config import LONG_MAX, LogConfig
from pegel_broker.log.directory import WriteBatch
from pegel_broker.log.errors import LogError
from pegel_broker.log.index import SegmentIndex
from pegel_broker.log.load import LoadedLog
from pegel_broker.log.results import Buffer
from pegel_broker.log.segment import Segment
from pegel_broker.log.tail import Tail

if TYPE_CHECKING:
    from pegel_broker.log.partition_log import PartitionLog

_BASE_OFFSET = attrgetter("base_offset")


class StoredLog:
    """What a log is made of, and how it takes part in its directory's writes and syncs.

    The invariants of the offsets stand at ``partition_log.PartitionLog``, which adds what a log
    does for others.
    """

    __slots__ = (
        "_active", "_flush_waiters", "_flushed_offset", "_high_watermark", "_in_flight", "_pending",
        "_pending_bytes", "_sync_due", "_tail", "_written_offset", "cleaned_offset", "config",
        "deleted", "epochs", "folder", "gaps", "keeper", "log_end_offset", "log_start_offset",
        "next_read",
        "offline", "on_deleted", "on_offline", "on_stable", "partition", "producers", "ready",
        "recovery_point", "sealing", "segments", "snapshots", "stable_offset", "swapping", "topic",
        "topic_id", "truncation", "unsynced",
    )  # fmt: skip

    log_start_offset: int
    log_end_offset: int
    stable_offset: int
    recovery_point: int
    cleaned_offset: int
    segments: list[Segment]
    snapshots: list[int]
    unsynced: list[Segment]
    next_read: tuple[int, Segment, int] | None

    def __init__(
        self,
        keeper: DirectoryKeeper,
        topic: str,
        partition: int,
        folder: str,
        config: LogConfig,
        loaded: LoadedLog,
        *,
        ready: bool = True,
    ) -> None:
        """``ready``: its directory is there (else ``set_ready`` says when)."""
        self.keeper = keeper
        self.topic = topic
        self.partition = partition
        self.folder = folder
        self.config = config
        self.ready = ready
        self.gaps = False  # a leader has sent batches that do not follow each other
        self.deleted = False
        self.offline: str | None = None
        self.on_stable: Callable[[PartitionLog], None] | None = None
        self.on_offline: Callable[[PartitionLog, str], None] | None = None
        self.on_deleted: Callable[[PartitionLog, asyncio.Future[None]], None] | None = None
        self.topic_id: uuid.UUID = loaded.topic_id
        self.epochs = loaded.epochs
        self._tail = Tail()
        self._pending: list[tuple[Segment, list[Buffer]]] = []
        self._pending_bytes = 0
        self._in_flight = False
        self._sync_due = False
        self._flush_waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.sealing: list[maintenance.Sealing] = []
        self.truncation: maintenance.Truncation | None = None
        # While compaction exchanges files: they are not to be cut meanwhile.
        self.swapping: asyncio.Future[None] | None = None
        self.cleaned_offset = loaded.cleaned_offset
        self.adopt(loaded)

    def adopt(self, loaded: LoadedLog) -> None:
        """Take the files' state as it was just loaded; nothing may be pending."""
        assert not self._pending
        assert not self._in_flight
        self.segments = loaded.segments
        self._active = loaded.segments[-1]
        if self._active.index is None:
            self._active.index = SegmentIndex()
        self.producers = loaded.producers
        self.snapshots = loaded.snapshots
        self.log_start_offset = loaded.log_start_offset
        self._high_watermark = loaded.high_watermark
        self.recovery_point = loaded.recovery_point
        self.cleaned_offset = min(self.cleaned_offset, loaded.log_end_offset)
        self.log_end_offset = end = loaded.log_end_offset
        self.stable_offset = self._written_offset = end
        self._flushed_offset = self.recovery_point
        self.unsynced = [] if self.recovery_point == end else [self._active]
        self._tail.clear()
        self.next_read = None

    # --- properties ---

    @property
    def high_watermark(self) -> int:
        """Set by replication; checkpointed to ``replication-offset-checkpoint``."""
        return self._high_watermark

    @high_watermark.setter
    def high_watermark(self, offset: int) -> None:
        if offset != self._high_watermark:
            self._high_watermark = offset
            self.keeper.mark(HIGH_WATERMARK_FILE)

    @property
    def latest_epoch(self) -> int:
        """The leader epoch of the last batch (or assigned last); -1 for none."""
        return self.epochs.latest

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments, what is not yet written included."""
        return sum(segment.size for segment in self.segments)

    @property
    def written_offset(self) -> int:
        """What is below it is in the files."""
        return self._written_offset

    @property
    def busy(self) -> bool:
        """Whether anything is not yet written."""
        return bool(self._pending) or self._in_flight

    def tail_batches(self) -> list[Buffer]:
        """The newest batches, in memory; they include all that are not in the files."""
        return self._tail.batches()

    def segment_for(self, offset: int) -> int:
        """Number of the segment that holds ``offset``."""
        return max(0, bisect_right(self.segments, offset, key=_BASE_OFFSET) - 1)

    def roll(self, now_ms: int) -> None:
        """Close the active segment, unless it is empty, and start the next at the log end."""
        if self._active.size:
            self._active = maintenance.seal(self, self._active, now_ms)
            self.keeper.directory.stats.rolled += 1
            maintenance.finish_sealing(self)  # where all of it is written already

    # --- the write pipeline (see directory.WritableLog) ---

    def take_writes(self) -> WriteBatch | None:
        """What is to be written (or synced) now; it is no longer pending."""
        if self.offline is not None or self.deleted or not self.ready or self._in_flight:
            return None
        end = self.log_end_offset
        config = self.config
        sync = (
            self._sync_due
            or bool(self._flush_waiters)
            or end - self._flushed_offset >= config.flush_messages
        )
        pending = self._pending
        if not pending and not sync:
            return None
        size, self._pending_bytes = self._pending_bytes, 0
        self._pending = []
        for segment, _buffers in pending:
            if segment not in self.unsynced:
                self.unsynced.append(segment)
        self._in_flight = True
        if sync:
            self._sync_due = False
        elif config.flush_ms != LONG_MAX:
            self.keeper.flush_within(self, config.flush_ms / 1000)
        return WriteBatch(self, pending, list(self.unsynced) if sync else [], sync, end, size)

    def on_written(self, batch: WriteBatch) -> None:
        """``batch`` is in the files, and synced where it asked for that."""
        self._in_flight = False
        if self.deleted or self.offline is not None:
            return
        for segment, buffers in batch.pieces:
            segment.written += sum(map(len, buffers))
        end = batch.end_offset
        self._written_offset = end
        if batch.synced:
            self._flushed_offset = end
            self.unsynced = [s for s in self.unsynced if s is self._active]
            self.advance_recovery_point(end)
            waiters, self._flush_waiters = self._flush_waiters, []
            for target, future in waiters:
                if target > end:
                    self._flush_waiters.append((target, future))
                elif not future.done():
                    future.set_result(None)
        if self.sealing:
            maintenance.finish_sealing(self)
        if self._pending or self._flush_waiters:
            self.keeper.directory.enqueue(self)
        if end > self.stable_offset:
            self.stable_offset = end
            if self.on_stable is not None:
                self.on_stable(cast("PartitionLog", self))
        if self.truncation is not None:
            maintenance.continue_truncation(self)

    def drop_cached(self, base_offset: int) -> bool:
        """Forget the oldest batch in memory, if it begins there; False: it is not yet written."""
        tail = self._tail
        if tail.first_offset != base_offset:
            return True  # truncated or deleted meanwhile
        following = tail.second_offset
        if (self.log_end_offset if following < 0 else following) > self._written_offset:
            return False
        tail.drop_first()
        return True

    def fail(self, reason: str) -> None:
        """Go offline, once."""
        if self.offline is not None:
            return
        self.offline = reason
        directory = self.keeper.directory
        if directory.offline is None:  # not the disk, but what it holds
            directory.stats.corrupt += 1
        self._drop_batches()
        self._fail_waiters(LogError(ErrorCode.KAFKA_STORAGE_ERROR, reason))
        if self.on_offline is not None:
            self.on_offline(cast("PartitionLog", self), reason)

    def set_ready(self) -> None:
        """The directory of a new log is there: what was appended meanwhile may be written."""
        self.ready = True
        self.keeper.mark_epochs(self)
        self.keeper.directory.enqueue(self)
        if self.truncation is not None:
            maintenance.continue_truncation(self)

    def forget_tail(self, offset: int) -> None:
        """Hold no batches in memory that end below ``offset``: the files have others now."""
        tail = self._tail
        while tail.first_offset >= 0 and 0 <= tail.second_offset <= offset:
            tail.drop_first()

    def on_swapped(self) -> None:
        """The files of compacted segments are in their places."""
        self.swapping = None
        if self.truncation is not None:
            maintenance.continue_truncation(self)

    def advance_recovery_point(self, offset: int) -> None:
        """Everything below ``offset`` is synced."""
        if offset > self.recovery_point:
            self.recovery_point = offset
            self.keeper.mark(RECOVERY_POINT_FILE)

    def request_sync(self) -> None:
        """Sync with the next write, for ``flush.ms``."""
        self._sync_due = True
        self.keeper.directory.enqueue(self)

    def flush(self) -> asyncio.Future[None]:
        """Sync everything appended so far.

        The future raises LogError (KAFKA_STORAGE_ERROR) where that fails.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.offline is not None:
            future.set_exception(LogError(ErrorCode.KAFKA_STORAGE_ERROR, self.offline))
        elif self._flushed_offset == self.log_end_offset:
            future.set_result(None)
        else:
            self._flush_waiters.append((self.log_end_offset, future))
            self.keeper.directory.enqueue(self)
        return future

    def tell_deleted(self, done: asyncio.Future[None]) -> None:
        """The manager forgets the log now; its directory is free when ``done`` is."""
        if self.on_deleted is not None:
            self.on_deleted(cast("PartitionLog", self), done)

    def release(self) -> None:
        """The log is deleted: nobody waits for it any more, and it holds no batches."""
        self._drop_batches()
        self.sealing.clear()
        self._fail_waiters(LogError(ErrorCode.KAFKA_STORAGE_ERROR, "the log was deleted"))

    def _drop_batches(self) -> None:
        """Hold none in memory: nothing of this log is written any more."""
        size, self._pending_bytes = self._pending_bytes, 0
        self._pending.clear()
        self._tail.clear()
        self.keeper.directory.give_back(size)

    def _fail_waiters(self, error: LogError) -> None:
        waiting = [future for _target, future in self._flush_waiters]
        if self.truncation is not None:
            waiting.append(self.truncation.done)
            self.truncation = None
        self._flush_waiters.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
