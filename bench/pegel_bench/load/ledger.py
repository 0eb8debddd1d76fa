"""What was acknowledged, and the check that the log holds it."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from pegel.errors import PegelError
from pegel.record.batch import check_batch, iter_batches
from pegel.record.compression import CorruptBatchError
from pegel_bench.load.asking import Asker

_FETCH_BYTES = 8 * 1024 * 1024
_EMPTY_FETCHES = 20


class Ledger:
    """Acknowledged batches of one worker: partition → base offsets, record counts, checksums."""

    def __init__(self) -> None:
        self._offsets: dict[int, array[int]] = {}
        self._counts: dict[int, array[int]] = {}
        self._checksums: dict[int, array[int]] = {}
        self.records = 0

    def add(self, partition: int, base_offset: int, records: int, crc: int = 0) -> None:
        """One acknowledged batch; ``crc`` 0 where the driver does not know it."""
        if partition not in self._offsets:
            self._offsets[partition] = array("q")
            self._counts[partition] = array("q")
            self._checksums[partition] = array("I")
        self._offsets[partition].append(base_offset)
        self._counts[partition].append(records)
        self._checksums[partition].append(crc)
        self.records += records

    def partitions(self) -> list[int]:
        return sorted(self._offsets)

    def entries(self, partition: int) -> list[tuple[int, int, int]]:
        """(base offset, records, checksum), in the order of offsets."""
        return sorted(
            zip(
                self._offsets[partition],
                self._counts[partition],
                self._checksums[partition],
                strict=True,
            )
        )


@dataclass(slots=True)
class Verdict:
    """Records that were acknowledged and are not there; offsets that were acknowledged twice."""

    checked: int = 0
    lost: int = 0
    doubled: int = 0


class Checker:
    """Holds the batches of one partition's log, fed in order, to the ledger's entries."""

    def __init__(self, entries: list[tuple[int, int, int]]) -> None:
        self._entries = entries
        self._at = 0
        self._left = 0  # records of the current entry that were not seen yet
        self.verdict = Verdict(checked=sum(n for _, n, _ in entries))
        end = -1
        for base, count, _ in entries:
            self.verdict.doubled += max(0, min(end - base, count))
            end = max(end, base + count)
        self._next = entries[0][0] if entries else 0

    @property
    def done(self) -> bool:
        return self._at >= len(self._entries)

    @property
    def next_offset(self) -> int:
        return self._next

    def take(self, base: int, end: int, crc: int) -> None:
        """A batch of the log that covers offsets ``base`` to ``end`` (exclusive)."""
        while not self.done:
            start, count, wanted = self._entries[self._at]
            stop = start + count
            if start >= end:
                break
            if wanted:  # the very batch that was sent must stand here
                if base > start or crc != wanted:
                    self.verdict.lost += count
            else:
                covered = min(stop, end) - max(start, base, self._next)
                self._left += max(0, covered)
                if stop > end:
                    break
                self.verdict.lost += max(0, count - self._left)
                self._left = 0
            self._at += 1
        self._next = max(self._next, end)

    def finish(self) -> Verdict:
        """The log has ended: whatever was not seen is lost."""
        while not self.done:
            self.verdict.lost += self._entries[self._at][1] - self._left
            self._left = 0
            self._at += 1
        return self.verdict


def verify(asker: Asker, topic: str, ledger: Ledger, tick: Callable[[int], None]) -> Verdict:
    """Read the log and look for everything that was acknowledged. ``tick`` gets records checked.

    Raises:
        OSError, PegelError: the log cannot be read.
    """
    total = Verdict()
    for partition in ledger.partitions():
        checker = Checker(ledger.entries(partition))
        empty = 0
        while not checker.done and empty < _EMPTY_FETCHES:
            records = asker.fetch(topic, partition, checker.next_offset, _FETCH_BYTES)
            before = checker.next_offset
            for position, header in iter_batches(records):
                try:
                    check_batch(records, position, header)
                except CorruptBatchError as error:
                    raise PegelError(
                        f"{topic}-{partition} at offset {header.base_offset}: {error}"
                    ) from error
                checker.take(header.base_offset, header.next_offset, header.crc)
            empty = 0 if checker.next_offset > before else empty + 1
            tick(total.checked)
        verdict = checker.finish()
        total.checked += verdict.checked
        total.lost += verdict.lost
        total.doubled += verdict.doubled
        tick(total.checked)
    return total
