"""One replica's log: a sequence of record batches by offset, in memory and in segment files."""

from __future__ import annotations

import asyncio

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import (
    BatchHeader,
    check_batch,
    iter_batches,
    set_base_offset,
    set_leader_epoch,
    set_log_append_time,
)
from pegel.record.compression import CorruptBatchError
from pegel_broker.log import maintenance, serving
from pegel_broker.log.checkpoints import LOG_START_FILE
from pegel_broker.log.config import LONG_MAX, LogConfig
from pegel_broker.log.errors import LogError
from pegel_broker.log.index import MAX_RELATIVE_OFFSET
from pegel_broker.log.results import AppendResult, Buffer, ReadResult, TimestampOffset
from pegel_broker.log.segment import Segment
from pegel_broker.log.stored_log import StoredLog
from pegel_broker.log.validation import check_client_batch

# A batch that keeps more than so many times its size alive (the receive buffer it lies in) is
# copied when it enters the tail.
_PINNED_FACTOR = 4


class PartitionLog(StoredLog):
    """Everything here runs on the event loop; file work is queued on the log directory.

    Offsets: ``log_start_offset`` <= ``high_watermark`` <= ``log_end_offset`` (the next to be
    appended), and ``stable_offset`` <= ``log_end_offset``: what is below it is written, and synced
    where ``flush.messages`` demands, so it may be acknowledged and counted.

    ``on_stable(log)`` is called on the loop whenever ``stable_offset`` has grown.
    ``on_offline(log, reason)`` is called once when the log has failed; from then on appends and
    reads raise KAFKA_STORAGE_ERROR and nothing more becomes stable.
    """

    __slots__ = ()

    # --- appending ---

    def append_as_leader(self, records: Buffer, leader_epoch: int, now_ms: int) -> AppendResult:
        """Append one batch of a client, giving it offsets and the epoch in place.

        Raises:
            LogError: CORRUPT_MESSAGE, INVALID_RECORD, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
                INVALID_TIMESTAMP, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH,
                KAFKA_STORAGE_ERROR, REQUEST_TIMED_OUT (the disk is far behind); nothing was
                changed.
        """
        self._check_writable(len(records))
        config = self.config
        header = check_client_batch(records, config, now_ms)
        if header.producer_id >= 0:
            earlier = self.producers.check(header)
            if earlier is not None:
                return AppendResult(
                    earlier.first_offset, earlier.last_offset,
                    earlier.timestamp if config.log_append_time else -1,
                    self.log_start_offset, True, 0, 0,
                )  # fmt: skip
        view = _own(records, writable=True)
        base_offset = self.log_end_offset
        set_base_offset(view, 0, base_offset)
        set_leader_epoch(view, 0, leader_epoch)
        append_time = -1
        if config.log_append_time:
            set_log_append_time(view, 0, now_ms)
            append_time = now_ms
            header = header._replace(max_timestamp=now_ms)
        self._append(header, view, base_offset, leader_epoch, now_ms)
        directory = self.keeper.directory
        directory.enqueue(self)
        return AppendResult(
            base_offset, self.log_end_offset - 1, append_time, self.log_start_offset, False,
            len(view), header.record_count,
        )  # fmt: skip

    def append_as_follower(self, records: Buffer) -> AppendResult:
        """Append batches fetched from the leader, with the offsets and epochs that they carry.

        A torn batch at the end is left out (a fetch may cut one). Offsets may be missing between
        batches, whatever the policy is now: the topic may have been compacted once.

        Raises:
            LogError: CORRUPT_MESSAGE; OFFSET_OUT_OF_RANGE where it overlaps the log;
                KAFKA_STORAGE_ERROR, REQUEST_TIMED_OUT. Nothing was changed.
        """
        self._check_writable(len(records))
        batches: list[tuple[int, BatchHeader]] = []
        next_offset = self.log_end_offset
        gaps = self.gaps
        try:
            for position, header in iter_batches(records):
                check_batch(records, position, header)
                if header.base_offset > next_offset:
                    gaps = True
                elif header.base_offset < next_offset:
                    raise LogError(
                        ErrorCode.OFFSET_OUT_OF_RANGE,
                        f"a batch at offset {header.base_offset} overlaps the log of "
                        f"{self.topic}-{self.partition}, which ends at {next_offset}",
                    )
                next_offset = header.next_offset
                batches.append((position, header))
        except CorruptBatchError as error:
            raise LogError(error.code, str(error)) from error
        if gaps and not self.gaps:
            self.gaps = True
            if self.ready:
                maintenance.note_gaps(self)
        first = self.log_end_offset
        view = _own(records)
        now_ms = self.keeper.directory.clock.wall_ms()
        size = count = 0
        for position, header in batches:
            piece = view[position : position + header.size]
            self._append(header, piece, header.base_offset, header.partition_leader_epoch, now_ms)
            size += header.size
            count += header.record_count
        if batches:
            first = batches[0][1].base_offset
            self.keeper.directory.enqueue(self)
        return AppendResult(
            first, self.log_end_offset - 1, -1, self.log_start_offset, False, size, count
        )

    def _check_writable(self, size: int) -> None:
        if self.offline is not None or self.deleted:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, self.offline or "the log was deleted")
        if self.truncation is not None:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, "the log is being truncated")
        self.keeper.directory.check_writable(size)

    def _append(
        self, header: BatchHeader, batch: memoryview, base_offset: int, epoch: int, now_ms: int
    ) -> None:
        """Put a checked batch behind the log end; the caller enqueues the log."""
        size = len(batch)
        last_offset = base_offset + header.last_offset_delta
        timestamp = header.max_timestamp
        segment = self._active
        if segment.size and self._must_roll(segment, size, last_offset, timestamp, now_ms):
            self.roll(now_ms)
            segment = self._active
        if not segment.size:
            segment.first_timestamp = timestamp
        index = segment.index
        assert index is not None
        index.add(
            last_offset - segment.base_offset, segment.size, size, timestamp,
            self.config.index_interval_bytes,
        )  # fmt: skip
        segment.max_timestamp = index.max_timestamp
        segment.size += size
        if epoch != self.epochs.latest:
            self.epochs.assign(epoch, base_offset)
            if self.epochs.dirty:
                self.keeper.mark_epochs(self)
        if header.producer_id >= 0:
            self.producers.update(header, base_offset)
        self._tail.append(base_offset, batch)
        self.keeper.directory.cache(self, base_offset, size)
        pending = self._pending
        if pending and pending[-1][0] is segment:
            pending[-1][1].append(batch)
        else:
            pending.append((segment, [batch]))
        self._pending_bytes += size
        self.log_end_offset = last_offset + 1

    def _must_roll(
        self, segment: Segment, size: int, last_offset: int, timestamp: int, now_ms: int
    ) -> bool:
        """Kafka's rule: by size, by the age of the first batch, by a full index."""
        config = self.config
        if segment.size + size > config.segment_bytes:
            return True
        first = segment.first_timestamp
        age = timestamp - first if first >= 0 and timestamp >= 0 else now_ms - segment.created_ms
        index = segment.index
        assert index is not None
        return (
            age > config.segment_ms
            or last_offset - segment.base_offset > MAX_RELATIVE_OFFSET
            or index.is_full(config.segment_index_bytes)
        )

    # --- reading ---

    def read(
        self, offset: int, max_bytes: int, *, limit_offset: int, min_one: bool = True
    ) -> ReadResult | asyncio.Future[ReadResult]:
        """Whole batches from the one that holds ``offset``, all below ``limit_offset``.

        At most ``max_bytes`` together, but with ``min_one`` at least one batch of any size. From
        memory or page cache the result comes at once; where a device must be waited for, a future
        (it raises LogError as this does).

        Raises:
            LogError: OFFSET_OUT_OF_RANGE below the log start or above the log end,
                KAFKA_STORAGE_ERROR.
        """
        if self.offline is not None or self.deleted:
            raise LogError(ErrorCode.KAFKA_STORAGE_ERROR, self.offline or "the log was deleted")
        end = self.log_end_offset
        if not self.log_start_offset <= offset <= end:
            raise LogError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"offset {offset} of {self.topic}-{self.partition} is not within "
                f"{self.log_start_offset} to {end}",
            )
        limit = min(limit_offset, end)
        if offset >= limit:
            return ReadResult([], 0, offset, offset)
        first = self._tail.first_offset
        if 0 <= first <= offset:
            return self._tail.read(offset, max_bytes, limit, end, min_one)
        return serving.read_files(self, offset, max_bytes, limit, min_one)

    def offset_for_timestamp(self, timestamp_ms: int) -> asyncio.Future[TimestampOffset | None]:
        """The first record at or after the log start whose timestamp is >= ``timestamp_ms``."""
        return serving.find_time(self, timestamp_ms)

    def max_timestamp(self) -> asyncio.Future[TimestampOffset | None]:
        """The first record that has the largest timestamp of the log."""
        return serving.find_time(self, max(s.max_timestamp for s in self.segments))

    # --- leader epochs ---

    def assign_epoch(self, leader_epoch: int) -> None:
        """Note that ``leader_epoch`` starts at the log end (on becoming leader).

        A log that is offline stays as it is: a fresh checkpoint would hide what is damaged.
        """
        if self.offline is not None:
            return
        self.epochs.assign(leader_epoch, self.log_end_offset)
        if self.epochs.dirty:
            self.keeper.mark_epochs(self)

    def end_offset_for_epoch(self, leader_epoch: int) -> tuple[int, int]:
        """The largest known epoch <= the one asked for, and where it ends (KIP-279).

        (-1, -1) where there is none.
        """
        return self.epochs.end_offset_for(leader_epoch, self.log_end_offset)

    def epoch_for_offset(self, offset: int) -> int:
        """The leader epoch that the record at ``offset`` was written in; -1 if not known."""
        return self.epochs.epoch_for(offset)

    # --- truncation, retention, removal ---

    def truncate_to(self, offset: int) -> asyncio.Future[None]:
        """Remove all batches that reach to ``offset`` or above; until done appends are refused.

        The future raises LogError (KAFKA_STORAGE_ERROR) where that fails.
        """
        return maintenance.truncate(self, max(offset, self.log_start_offset), fully=False)

    def truncate_fully_and_start_at(self, offset: int) -> asyncio.Future[None]:
        """Remove everything and go on, empty, at ``offset``; as ``truncate_to`` else."""
        return maintenance.truncate(self, offset, fully=True)

    def delete_records_before(self, offset: int) -> None:
        """Raise the log start offset; whole segments below it are removed.

        Raises:
            LogError: OFFSET_OUT_OF_RANGE above the high watermark.
        """
        if offset > self._high_watermark:
            raise LogError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"cannot delete up to offset {offset}: the high watermark is "
                f"{self._high_watermark}",
            )
        if offset > self.log_start_offset:
            self.log_start_offset = offset
            self.epochs.truncate_from_start(offset)
            self.keeper.mark_epochs(self)
            self.keeper.mark(LOG_START_FILE)
            maintenance.remove_below_start(self)

    def retention(self, now_ms: int) -> int:
        """Remove segments past retention.ms or retention.bytes; returns how many."""
        self.producers.expire(now_ms, self.config.producer_id_expiration_ms)
        return maintenance.apply_retention(self, now_ms)

    def update_config(self, config: LogConfig) -> None:
        """Use ``config`` from the next append on."""
        self.config = config
        if self.ready:
            maintenance.note_gaps(self)
        if config.flush_ms != LONG_MAX and self._flushed_offset < self.log_end_offset:
            self.keeper.flush_within(self, config.flush_ms / 1000)

    def delete(self) -> asyncio.Future[None]:
        """Remove the replica: done when its directory is renamed away; its bytes go later."""
        return maintenance.delete(self)


def _own(records: Buffer, *, writable: bool = False) -> memoryview:
    """``records`` as a view that may be kept: copied where it is a sliver of a large buffer."""
    view = records if isinstance(records, memoryview) else memoryview(records)
    owner = view.obj
    if (writable and view.readonly) or (
        isinstance(owner, bytes | bytearray) and len(owner) > _PINNED_FACTOR * len(view)
    ):
        return memoryview(bytearray(view))
    return view
