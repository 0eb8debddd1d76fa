"""The log as the Raft core sees it: the entries in memory behind a snapshot.

Indexes start at 1. Entries up to ``snapshot_index`` are compacted away; of them only the last
one's term is known. Truncation below the commit index is a broken invariant, not a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from pegel_controller.raft.errors import RaftError


class EntryKind(IntEnum):
    COMMAND = 0
    NO_OP = 1
    MEMBERSHIP = 2


@dataclass(frozen=True, slots=True)
class Entry:
    index: int
    term: int
    kind: EntryKind
    data: bytes


class LogView:
    """Entries ``first_index..last_index``, contiguous, with terms that never fall."""

    __slots__ = ("_entries", "commit_index", "snapshot_index", "snapshot_term")

    def __init__(self, snapshot_index: int = 0, snapshot_term: int = 0) -> None:
        self._entries: list[Entry] = []
        self.snapshot_index = snapshot_index
        self.snapshot_term = snapshot_term
        self.commit_index = snapshot_index  # never falls; >= snapshot_index

    @property
    def first_index(self) -> int:
        return self.snapshot_index + 1

    @property
    def last_index(self) -> int:
        return self.snapshot_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.snapshot_term

    def term_at(self, index: int) -> int | None:
        """The entry's term; None where it is compacted away or not there yet."""
        if index == self.snapshot_index:
            return self.snapshot_term
        position = index - self.first_index
        return self._entries[position].term if 0 <= position < len(self._entries) else None

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate's log may win this node's vote (Raft paper, section 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entries: Sequence[Entry]) -> None:
        """Add entries behind the last one."""
        for entry in entries:
            assert entry.index == self.last_index + 1
            assert entry.term >= self.last_term
            self._entries.append(entry)

    def merge(self, entries: Sequence[Entry]) -> tuple[int | None, Sequence[Entry]]:
        """Take a leader's entries whose predecessor matches; truncates at a mismatch only.

        Truncating without a mismatch would let a delayed, shorter message undo what this node
        has acknowledged. Returns the index truncated from, if any, and the entries appended.

        Raises:
            RaftError: the leader contradicts a committed entry.
        """
        for position, entry in enumerate(entries):
            if entry.index <= self.snapshot_index:
                continue  # committed and compacted: it can only be equal
            known = self.term_at(entry.index)
            if known == entry.term:
                continue
            if known is not None:
                self.truncate_from(entry.index)
            self.append(entries[position:])
            return (entry.index if known is not None else None), entries[position:]
        return None, ()

    def truncate_from(self, index: int) -> None:
        """Drop ``index`` and all behind it. Raises RaftError below the commit index."""
        if index <= self.commit_index:
            raise RaftError(f"entry {index} is committed (up to {self.commit_index})")
        del self._entries[index - self.first_index :]

    def conflict_hint(self, previous_index: int) -> tuple[int, int]:
        """Term and index for the leader to back off to, one term a round trip (section 5.3).

        A log that is too short answers term 0 and the index behind its end.
        """
        term = self.term_at(previous_index)
        if term is None:
            return 0, min(self.last_index + 1, previous_index)
        index = previous_index
        while index > max(self.first_index, self.commit_index + 1):
            if self.term_at(index - 1) != term:
                break
            index -= 1
        return term, index

    def slice(self, start: int, end: int, bytes_max: int) -> list[Entry]:
        """Entries of ``[start, end]`` within ``bytes_max``, but at least one."""
        assert start >= self.first_index
        chosen: list[Entry] = []
        size = 0
        for entry in self._entries[start - self.first_index : end - self.first_index + 1]:
            size += len(entry.data)
            if chosen and size > bytes_max:
                break
            chosen.append(entry)
        return chosen

    def commit_to(self, index: int) -> None:
        """Raise the commit index; it never falls."""
        assert index <= self.last_index
        self.commit_index = max(self.commit_index, index)

    def compact(self, index: int) -> None:
        """Forget the prefix up to ``index``, which a snapshot now holds."""
        assert self.snapshot_index <= index <= self.commit_index
        term = self.term_at(index)
        assert term is not None
        del self._entries[: index - self.snapshot_index]
        self.snapshot_index, self.snapshot_term = index, term

    def reset(self, index: int, term: int) -> None:
        """Start over behind a snapshot that this log does not reach or contradicts."""
        assert index > self.commit_index
        self._entries.clear()
        self.snapshot_index, self.snapshot_term, self.commit_index = index, term, index
