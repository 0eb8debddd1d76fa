"""One replica's log: a sequence of record batches by offset, in memory and in segment files."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from pegel_broker.log.config import LogConfig
from pegel_broker.log.results import AppendResult, Buffer, ReadResult, TimestampOffset


class PartitionLog:
    """Everything here runs on the event loop; file work is queued on the log directory.

    Offsets: ``log_start_offset`` <= ``high_watermark`` <= ``log_end_offset`` (the next to be
    appended), and ``stable_offset`` <= ``log_end_offset``: what is below it is written, and synced
    where ``flush.messages`` demands, so it may be acknowledged and counted.

    ``on_stable(log)`` is called on the loop whenever ``stable_offset`` has grown.
    ``on_offline(log, reason)`` is called once when the log has failed; from then on appends and
    reads raise KAFKA_STORAGE_ERROR and nothing more becomes stable.
    """

    topic: str
    partition: int
    topic_id: uuid.UUID
    config: LogConfig
    log_start_offset: int
    log_end_offset: int
    stable_offset: int
    on_stable: Callable[[PartitionLog], None] | None
    on_offline: Callable[[PartitionLog, str], None] | None
    offline: str | None  # the reason, once failed

    @property
    def high_watermark(self) -> int:
        """Set by replication; checkpointed to ``replication-offset-checkpoint``."""
        raise NotImplementedError

    @high_watermark.setter
    def high_watermark(self, offset: int) -> None:
        raise NotImplementedError

    @property
    def latest_epoch(self) -> int:
        """The leader epoch of the last batch (or assigned last); -1 for none."""
        raise NotImplementedError

    @property
    def size_bytes(self) -> int:
        """Bytes of all segments, what is not yet written included."""
        raise NotImplementedError

    def append_as_leader(self, records: Buffer, leader_epoch: int, now_ms: int) -> AppendResult:
        """Append one batch of a client, giving it offsets and the epoch in place.

        Raises:
            LogError: CORRUPT_MESSAGE, INVALID_RECORD, MESSAGE_TOO_LARGE, RECORD_LIST_TOO_LARGE,
                INVALID_TIMESTAMP, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_PRODUCER_EPOCH,
                KAFKA_STORAGE_ERROR; nothing was changed.
        """
        raise NotImplementedError

    def append_as_follower(self, records: Buffer) -> AppendResult:
        """Append batches fetched from the leader, with the offsets and epochs that they carry.

        A torn batch at the end is left out (a fetch may cut one).

        Raises:
            LogError: CORRUPT_MESSAGE, or OFFSET_OUT_OF_RANGE where it does not continue the log.
        """
        raise NotImplementedError

    def read(
        self, offset: int, max_bytes: int, *, limit_offset: int, min_one: bool = True
    ) -> ReadResult | asyncio.Future[ReadResult]:
        """Whole batches from the one that holds ``offset``, all below ``limit_offset``.

        At most ``max_bytes`` together, but with ``min_one`` at least one batch of any size. From
        memory or page cache the result comes at once; where a device must be waited for, a future.

        Raises:
            LogError: OFFSET_OUT_OF_RANGE below the log start or above the log end.
        """
        raise NotImplementedError

    def assign_epoch(self, leader_epoch: int) -> None:
        """Note that ``leader_epoch`` starts at the log end (on becoming leader)."""
        raise NotImplementedError

    def end_offset_for_epoch(self, leader_epoch: int) -> tuple[int, int]:
        """The largest known epoch <= the one asked for, and where it ends (KIP-279).

        (-1, -1) where there is none.
        """
        raise NotImplementedError

    def epoch_for_offset(self, offset: int) -> int:
        """The leader epoch that the record at ``offset`` was written in; -1 if not known."""
        raise NotImplementedError

    def offset_for_timestamp(self, timestamp_ms: int) -> asyncio.Future[TimestampOffset | None]:
        """The first record at or after the log start whose timestamp is >= ``timestamp_ms``."""
        raise NotImplementedError

    def max_timestamp(self) -> asyncio.Future[TimestampOffset | None]:
        """The first record that has the largest timestamp of the log."""
        raise NotImplementedError

    def truncate_to(self, offset: int) -> asyncio.Future[None]:
        """Remove all batches that reach to ``offset`` or above; appends wait for nobody: they are
        refused until this is done."""
        raise NotImplementedError

    def truncate_fully_and_start_at(self, offset: int) -> asyncio.Future[None]:
        """Remove everything and go on, empty, at ``offset``."""
        raise NotImplementedError

    def delete_records_before(self, offset: int) -> None:
        """Raise the log start offset; whole segments below it are removed.

        Raises:
            LogError: OFFSET_OUT_OF_RANGE above the high watermark.
        """
        raise NotImplementedError

    def roll(self, now_ms: int) -> None:
        """Close the active segment and start the next at the log end offset."""
        raise NotImplementedError

    def flush(self) -> asyncio.Future[None]:
        """Sync everything appended so far."""
        raise NotImplementedError

    def retention(self, now_ms: int) -> int:
        """Remove segments past retention.ms or retention.bytes; returns how many."""
        raise NotImplementedError

    def update_config(self, config: LogConfig) -> None:
        """Use ``config`` from the next append on."""
        raise NotImplementedError

    def delete(self) -> asyncio.Future[None]:
        """Remove the replica: done when its directory is renamed away; its bytes go later."""
        raise NotImplementedError
