"""What a Raft node keeps on disk: a segmented write-ahead log and one snapshot.

One stream of checksummed records (``wal_format``) holds entries, truncations and hard states, so
that one sync covers them all and their order on disk is the order in which they were decided. A
segment starts with the hard state of that moment; old segments may go without losing it.

All methods block; the runner calls them on its disk queue.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import msgpack
from crc32c import crc32c

from pegel.seams.disk import Disk, File
from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.log_view import Entry, EntryKind
from pegel_controller.raft.ready import HardState, Snapshot
from pegel_controller.raft.wal_format import frame, scan

_SEGMENT_SUFFIX = ".wal"
_SNAPSHOT_SUFFIX = ".snapshot"
_FORMAT_VERSION = 1
_SNAPSHOT_HEADER = struct.Struct(">4sIQQ")  # magic, CRC-32C of what follows, index, term
_SNAPSHOT_MAGIC = b"PGS1"


class RecordKind(IntEnum):
    """First element of a log record; numbers are on disk."""

    ENTRY = 0
    HARD_STATE = 1
    TRUNCATE = 2
    SEGMENT = 3
    COMPACTED = 4  # a leader's snapshot replaced what is up to this index


@dataclass(slots=True)
class Recovered:
    """What a restarted node begins with; all of it is durable."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot | None = None
    entries: list[Entry] = field(default_factory=list)
    base: int | None = None  # index that the first entry follows; None: not known from the log


class WriteAheadLog:
    """The files of one Raft node in ``directory``. One writer; not safe for several threads."""

    def __init__(self, disk: Disk, directory: str, segment_bytes: int) -> None:
        self._disk = disk
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._file: File | None = None
        self._size = 0
        self._number = 0
        self._hard_state = HardState()
        # Highest entry index in each segment, by its number: what decides when it may go.
        self._last_indexes: dict[int, int] = {}

    def recover(self) -> Recovered:
        """Read everything back, cut a torn tail, and open the log for appending.

        Raises:
            RaftError: damage that is no torn tail; names the file and the offset.
        """
        self._disk.make_directories(self._directory)
        names = self._disk.list_directory(self._directory)
        found = Recovered(snapshot=self._newest_snapshot(names))
        numbers = sorted(
            int(n.removesuffix(_SEGMENT_SUFFIX)) for n in names if n.endswith(_SEGMENT_SUFFIX)
        )
        if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
            raise RaftError(f"{self._directory} lacks a segment: it has {numbers}")
        entries: list[Entry] = []
        for number in numbers:
            self._recover_segment(number, number == numbers[-1], entries, found)
        found.entries = _behind_snapshot(entries, found.snapshot, self._directory)
        dropped = bool(entries) and not found.entries
        last = found.entries[-1].index if found.entries else 0
        last = max(last, found.snapshot.index if found.snapshot else 0)
        if found.hard_state.commit_index > last:
            raise RaftError(
                f"{self._directory}: entries up to {found.hard_state.commit_index} were committed, "
                f"the log ends at {last}"
            )
        self._hard_state = found.hard_state
        if not numbers:
            self._start_segment(1)
        if found.snapshot is not None and dropped:
            # The crash came between a leader's snapshot and its mark in the log.
            index = found.snapshot.index
            self.append(index + 1, (), None, sync=True, compacted=index)
        found.base = None
        return found

    def append(
        self,
        truncate_from: int | None,
        entries: Sequence[Entry],
        hard_state: HardState | None,
        *,
        sync: bool,
        compacted: int | None = None,
    ) -> None:
        """Write, in this order, and sync once; ``OSError`` leaves the log unusable.

        ``compacted`` is the index of a leader's snapshot (already saved) that stands for all
        entries up to it: the log on disk may be shorter or differ there, and must not be read.
        """
        if self._size >= self._segment_bytes:
            self._roll()
        assert self._file is not None, "recover() first"
        records: list[list[object]] = []
        if truncate_from is not None:
            records.append([RecordKind.TRUNCATE, truncate_from])
        if compacted is not None:
            records.append([RecordKind.COMPACTED, compacted])
        records += [[RecordKind.ENTRY, e.index, e.term, e.kind, e.data] for e in entries]
        if hard_state is not None:
            self._hard_state = hard_state
            state = [hard_state.term, hard_state.vote, hard_state.commit_index]
            records.append([RecordKind.HARD_STATE, *state])
        if entries:
            known = self._last_indexes.get(self._number, 0)
            self._last_indexes[self._number] = max(known, entries[-1].index)
        self._write(records)
        if sync:
            self._file.sync()

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Make ``snapshot`` durable, then drop older ones. The log is not touched."""
        body = snapshot.encode()
        numbers = struct.pack(">QQ", snapshot.index, snapshot.term)
        header = _SNAPSHOT_HEADER.pack(
            _SNAPSHOT_MAGIC, crc32c(body, crc32c(numbers)), snapshot.index, snapshot.term
        )
        name = f"{snapshot.index:020d}{_SNAPSHOT_SUFFIX}"
        self._disk.write_file(self._path(name), header + body)
        for other in self._disk.list_directory(self._directory):
            if other.endswith(_SNAPSHOT_SUFFIX) and other < name:
                self._disk.remove(self._path(other))

    def compact(self, index: int) -> None:
        """Remove segments whose entries a durable snapshot at ``index`` all holds."""
        for number in sorted(self._last_indexes):
            if number == self._number or self._last_indexes[number] > index:
                break  # segments stay contiguous
            self._disk.remove(self._segment_path(number))
            del self._last_indexes[number]

    def close(self) -> None:
        if self._file is not None:
            self._file.sync()
            self._file.close()
            self._file = None

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"

    def _segment_path(self, number: int) -> str:
        return self._path(f"{number:020d}{_SEGMENT_SUFFIX}")

    def _write(self, records: Sequence[Sequence[object]]) -> None:
        assert self._file is not None
        framed = [frame(bytes(msgpack.packb(record))) for record in records]
        self._file.append(framed)
        self._size += sum(map(len, framed))

    def _roll(self) -> None:
        assert self._file is not None
        self._file.sync()
        self._file.close()
        self._start_segment(self._number + 1)

    def _start_segment(self, number: int) -> None:
        self._file = self._disk.open(self._segment_path(number), create=True)
        self._number, self._size = number, 0
        self._last_indexes[number] = 0
        state = self._hard_state
        header = [RecordKind.SEGMENT, _FORMAT_VERSION, state.term, state.vote, state.commit_index]
        self._write([header])
        self._file.sync()
        self._disk.sync_directory(self._directory)

    def _recover_segment(
        self, number: int, last: bool, entries: list[Entry], found: Recovered
    ) -> None:
        path = self._segment_path(number)
        data = self._disk.read_file(path)
        payloads, size = scan(data, path, last_segment=last)
        self._last_indexes[number] = 0
        for payload in payloads:
            try:
                _replay(msgpack.unpackb(payload), entries, found)
            except RaftError as error:
                raise RaftError(f"{path}: {error}") from None
            except Exception as error:  # its checksum is right: written by something else
                raise RaftError(f"{path} holds a record that does not decode: {error!r}") from None
            if entries:
                top = max(self._last_indexes[number], entries[-1].index)
                self._last_indexes[number] = top
        if last:
            # What was read may be in the page cache alone: the process was killed before its sync,
            # or the sync failed and the kernel takes the lost pages for clean (Linux).
            self._disk.write_file(path, data[:size])
            self._file = self._disk.open(path)
            self._number, self._size = number, size
            if not payloads:  # the crash came before the segment's first record
                self._hard_state = found.hard_state
                self._file.close()
                self._start_segment(number)

    def _newest_snapshot(self, names: Sequence[str]) -> Snapshot | None:
        snapshots = sorted(n for n in names if n.endswith(_SNAPSHOT_SUFFIX))
        if not snapshots:
            return None
        path = self._path(snapshots[-1])
        data = self._disk.read_file(path)
        if len(data) < _SNAPSHOT_HEADER.size:
            raise RaftError(f"{path} is cut short at {len(data)} bytes")
        magic, crc, index, term = _SNAPSHOT_HEADER.unpack_from(data)
        body = data[_SNAPSHOT_HEADER.size :]
        # Written aside and renamed, so damage here is no torn write: never fall back over it.
        if magic != _SNAPSHOT_MAGIC or crc32c(body, crc32c(data[8:24])) != crc:
            raise RaftError(f"{path} is damaged: its checksum does not match")
        return Snapshot.decode(index, term, body)


def _replay(record: list[object], entries: list[Entry], found: Recovered) -> None:
    """Apply one record of the log to what was recovered so far."""
    match record:
        case [RecordKind.ENTRY, int(index), int(term), int(kind), bytes(data), *_]:
            _cut(entries, index)
            before = entries[-1].index if entries else found.base
            if before is not None and before != index - 1:
                raise RaftError(f"entry {index} follows entry {before}")
            entries.append(Entry(index, term, EntryKind(kind), data))
        case [RecordKind.HARD_STATE, int(term), (int() | None) as vote, int(commit), *_]:
            found.hard_state = HardState(term, vote, commit)
        case [RecordKind.TRUNCATE, int(index), *_]:
            _cut(entries, index)
        case [RecordKind.COMPACTED, int(index), *_]:
            entries[:] = [entry for entry in entries if entry.index > index]
            found.base = index
        case [RecordKind.SEGMENT, int(version), int(term), (int() | None) as vote, int(commit), *_]:
            if version != _FORMAT_VERSION:
                raise RaftError(f"format version {version} is unknown to this release")
            found.hard_state = HardState(term, vote, commit)
        case _:
            raise RaftError(f"an unknown record {record!r:.80}")


def _cut(entries: list[Entry], index: int) -> None:
    """Drop ``index`` and all behind it."""
    if entries and entries[-1].index >= index:
        del entries[max(0, index - entries[0].index) :]


def _behind_snapshot(
    entries: list[Entry], snapshot: Snapshot | None, directory: str
) -> list[Entry]:
    """The entries that follow the snapshot; none where the log contradicts it.

    A crash may come after a leader's snapshot was saved and before the log was cut for it.
    """
    if not entries:
        return []
    first, start = entries[0].index, (snapshot.index if snapshot else 0) + 1
    if first > start:
        raise RaftError(f"{directory}: entries {start} to {first - 1} are missing")
    if snapshot is not None:
        if entries[-1].index < snapshot.index:
            return []
        if first <= snapshot.index and entries[snapshot.index - first].term != snapshot.term:
            return []
    return entries[start - first :]
