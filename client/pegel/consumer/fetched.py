"""Bytes of one partition as a broker sent them, cut into batches when the reader comes to them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from pegel.consumer.subscription import PartitionState
from pegel.protocol.messages.fetch import AbortedTransaction
from pegel.protocol.schema import Buffer
from pegel.record import BatchHeader, RecordColumns, decode_batch, iter_batches

_ABORT_MARKER = 0


class Fetched:
    """Record batches of one response, not yet decoded.

    Raises (from the constructor and from ``next_columns``):
        CorruptBatchError: what the broker sent breaks the format.
    """

    __slots__ = ("_aborted", "_aborting", "_at", "_batches", "_buffer", "generation", "size",
                 "state")  # fmt: skip

    def __init__(
        self,
        state: PartitionState,
        buffer: Buffer,
        aborted: Sequence[AbortedTransaction] | None,
    ) -> None:
        self.state = state
        self.generation = state.generation
        self.size = len(buffer)
        self._buffer = buffer
        self._batches: list[tuple[int, BatchHeader]] = list(iter_batches(buffer))
        self._at = 0
        # Aborted transactions, the earliest last, and those that the reader is inside of.
        self._aborted = sorted(aborted or (), key=lambda a: a.first_offset, reverse=True)
        self._aborting: set[int] = set()

    @property
    def last(self) -> BatchHeader | None:
        """Header of the last whole batch."""
        return self._batches[-1][1] if self._batches else None

    @property
    def stale(self) -> bool:
        """Whether the reader has moved elsewhere since."""
        return self.generation != self.state.generation

    def next_columns(self) -> RecordColumns | None:
        """The next batch with something to read; ``None`` at the end. Moves the position."""
        state = self.state
        while self._at < len(self._batches):
            at, header = self._batches[self._at]
            self._at += 1
            if header.next_offset <= state.position:
                continue
            if header.is_control:
                self._on_control(at, header)
                state.position = header.next_offset
                continue
            if self._is_aborted(header):
                state.position = header.next_offset
                continue
            columns = decode_batch(self._buffer, at)
            position, state.position = state.position, header.next_offset
            state.position_epoch = header.partition_leader_epoch
            columns = columns_from(columns, position)
            if columns.offsets:
                return columns
        return None

    def _is_aborted(self, header: BatchHeader) -> bool:
        while self._aborted and self._aborted[-1].first_offset <= header.last_offset:
            self._aborting.add(self._aborted.pop().producer_id)
        return header.is_transactional and header.producer_id in self._aborting

    def _on_control(self, at: int, header: BatchHeader) -> None:
        if not self._aborting and not self._aborted:
            return
        self._is_aborted(header)
        key = next(iter(decode_batch(self._buffer, at).keys), None)
        if key is not None and int.from_bytes(key[2:4], "big") == _ABORT_MARKER:
            self._aborting.discard(header.producer_id)


def columns_from(columns: RecordColumns, position: int) -> RecordColumns:
    """Without what is before an offset: a broker answers with the whole batch around it."""
    start = bisect_left(columns.offsets, position)
    if not start:
        return columns
    return RecordColumns(
        columns.header,
        columns.offsets[start:],
        columns.timestamps[start:],
        columns.keys[start:],
        columns.values[start:],
        columns.headers[start:],
    )
