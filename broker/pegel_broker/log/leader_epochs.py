"""The leader-epoch cache of a log: at which offset each leader epoch began (KIP-101, KIP-279)."""

from __future__ import annotations

from bisect import bisect_right

NO_EPOCH = -1
NO_OFFSET = -1


class LeaderEpochs:
    """Epochs and their start offsets, both strictly growing.

    ``dirty`` is set by each change, and cleared by whoever has the entries written to
    ``leader-epoch-checkpoint``.
    """

    __slots__ = ("_epochs", "_starts", "dirty")

    def __init__(self, entries: list[tuple[int, int]] | None = None) -> None:
        """``entries`` are (epoch, start offset) as checkpointed; they may be in any order."""
        self._epochs: list[int] = []
        self._starts: list[int] = []
        for epoch, start in sorted(entries or ()):
            self.assign(epoch, start)
        self.dirty = False

    @property
    def latest(self) -> int:
        """The newest epoch, -1 for none."""
        return self._epochs[-1] if self._epochs else NO_EPOCH

    def entries(self) -> list[tuple[int, int]]:
        return list(zip(self._epochs, self._starts, strict=True))

    def assign(self, epoch: int, start_offset: int) -> None:
        """Note that ``epoch`` begins at ``start_offset``, the log end, or goes on there.

        An entry that begins at or after ``start_offset`` never got a record: it is dropped, also
        for an older epoch. (Who led without a write, and then copies what was written before.)
        """
        if epoch < 0 or epoch == self.latest:
            return
        while self._starts and self._starts[-1] >= start_offset:
            self._starts.pop()
            self._epochs.pop()
            self.dirty = True
        if epoch <= self.latest:
            return
        self._epochs.append(epoch)
        self._starts.append(start_offset)
        self.dirty = True

    def end_offset_for(self, epoch: int, log_end_offset: int) -> tuple[int, int]:
        """The largest epoch <= ``epoch`` that is known, and the offset where it ends.

        ``(-1, -1)`` where the epoch is above all known ones, or none is known. An epoch below all
        known ones answers itself with the start of the first, so that a follower from before the
        log start truncates to it (as Apache Kafka answers).
        """
        if epoch < 0 or not self._epochs:
            return NO_EPOCH, NO_OFFSET
        if epoch == self._epochs[-1]:
            return epoch, log_end_offset
        index = bisect_right(self._epochs, epoch)
        if index == len(self._epochs):
            return NO_EPOCH, NO_OFFSET
        return (self._epochs[index - 1] if index else epoch), self._starts[index]

    def epoch_for(self, offset: int) -> int:
        """The epoch that the record at ``offset`` was written in, -1 if before all known ones."""
        index = bisect_right(self._starts, offset)
        return self._epochs[index - 1] if index else NO_EPOCH

    def truncate_from_end(self, end_offset: int) -> None:
        """Forget epochs that begin at or after the new log end."""
        while self._starts and self._starts[-1] >= end_offset:
            self._starts.pop()
            self._epochs.pop()
            self.dirty = True

    def truncate_from_start(self, start_offset: int) -> None:
        """Forget epochs that end before the new log start; the one around it now begins there."""
        index = bisect_right(self._starts, start_offset) - 1
        if index < 0 or (index == 0 and self._starts[0] == start_offset):
            return
        del self._starts[:index]
        del self._epochs[:index]
        self._starts[0] = start_offset
        self.dirty = True

    def clear(self) -> None:
        self.dirty = self.dirty or bool(self._epochs)
        self._epochs.clear()
        self._starts.clear()
