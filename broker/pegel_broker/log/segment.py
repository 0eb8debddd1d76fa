"""One segment of a log: its state in memory, and the files that belong to it."""

from __future__ import annotations

import contextlib
from struct import Struct

from pegel.seams.disk import Disk, File
from pegel_broker.log.checkpoints import (
    LOG_SUFFIX,
    OFFSET_INDEX_SUFFIX,
    TIME_INDEX_SUFFIX,
    TRANSACTION_INDEX_SUFFIX,
    segment_name,
)
from pegel_broker.log.index import (
    OFFSET_ENTRY,
    TIME_ENTRY,
    SegmentIndex,
    find_position,
    last_at_most,
)

# Of files that compaction makes: not whole yet, and whole and about to take the place of others.
CLEANED_SUFFIX = ".cleaned"
SWAP_SUFFIX = ".swap"


class Segment:
    """State of one segment; the event loop owns it, except for the two file handles.

    ``size`` counts every byte appended, ``written`` those known to be in the file. ``index`` is
    there while the segment is active; a sealed one's indexes are searched in their files.
    ``writer`` belongs to the directory's write queue. ``reader`` is opened by the read queue and
    used by it and by the event loop.
    """

    __slots__ = ("base_offset", "created_ms", "entry_synced", "first_timestamp", "folder", "index",
                 "max_timestamp", "reader", "size", "writer", "written")  # fmt: skip

    def __init__(self, folder: str, base_offset: int, created_ms: int) -> None:
        self.folder = folder
        self.base_offset = base_offset
        self.created_ms = created_ms
        self.size = 0
        self.written = 0
        self.entry_synced = False  # whether its name is known to be on stable storage
        self.index: SegmentIndex | None = None
        self.first_timestamp = -1  # of the first batch (its largest)
        self.max_timestamp = -1
        self.writer: File | None = None
        self.reader: File | None = None

    def path(self, suffix: str = LOG_SUFFIX) -> str:
        return f"{self.folder}/{segment_name(self.base_offset, suffix)}"

    @property
    def largest_timestamp(self) -> int:
        """Of its records, in ms; when it was made (or found) if they have none."""
        return self.max_timestamp if self.max_timestamp >= 0 else self.created_ms


def read_if_there(disk: Disk, path: str) -> bytes | None:
    try:
        return disk.read_file(path)
    except FileNotFoundError:
        return None


def remove_if_there(disk: Disk, path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        disk.remove(path)


def sync_path(disk: Disk, path: str) -> None:
    """Sync one file; it may be gone meanwhile (retention, deletion)."""
    try:
        file = disk.open(path)
    except FileNotFoundError:
        return
    try:
        file.sync()
    finally:
        file.close()


def write_tail(disk: Disk, path: str, saved: int, data: bytes, *, sync: bool) -> None:
    """Make the file at ``path`` its first ``saved`` bytes followed by ``data``."""
    file = disk.open(path, create=True)
    try:
        size = file.size()
        if size < saved:  # lost to a crash: the caller keeps all of it, so this cannot be
            raise OSError(f"{path} has {size} bytes where {saved} were written")
        if size > saved:
            file.truncate(saved)
        if data:
            file.write_at(saved, data)
        if sync:
            file.sync()
    finally:
        file.close()


def save_index(disk: Disk, segment: Segment, index: SegmentIndex, *, sync: bool) -> None:
    """Write what the index files lack. Runs in a queue: the index must not grow meanwhile."""
    _save(disk, segment, *take_unsaved(index), sync=sync)


Unsaved = tuple[int, bytes, int, bytes]


def take_unsaved(index: SegmentIndex) -> Unsaved:
    """What the files lack, with the place of each; from now on it counts as saved."""
    taken = (
        index.saved_offsets,
        bytes(memoryview(index.offsets)[index.saved_offsets :]),
        index.saved_times,
        bytes(memoryview(index.times)[index.saved_times :]),
    )
    index.saved_offsets = len(index.offsets)
    index.saved_times = len(index.times)
    return taken


def _save(
    disk: Disk,
    segment: Segment,
    saved_offsets: int,
    offsets: bytes,
    saved_times: int,
    times: bytes,
    *,
    sync: bool,
) -> None:
    write_tail(disk, segment.path(OFFSET_INDEX_SUFFIX), saved_offsets, offsets, sync=sync)
    write_tail(disk, segment.path(TIME_INDEX_SUFFIX), saved_times, times, sync=sync)


def save_unsaved(disk: Disk, segment: Segment, unsaved: Unsaved, *, sync: bool) -> None:
    """Write what ``take_unsaved`` took, in a queue."""
    _save(disk, segment, *unsaved, sync=sync)


def remove_segment_files(disk: Disk, segment: Segment) -> None:
    """Remove the segment; its ``.log`` goes first, as the others mean nothing without it."""
    for suffix in (LOG_SUFFIX, OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, TRANSACTION_INDEX_SUFFIX):
        remove_if_there(disk, segment.path(suffix))


class IndexFile:
    """Binary search in an index file, by positional reads of single entries.

    A file that is missing has no entries: a search then starts at the segment's beginning.
    """

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path

    def find_position(self, relative_offset: int) -> int:
        """As ``index.find_position``."""
        entry = self._find(OFFSET_ENTRY, 0, relative_offset)
        return entry[1] if entry else 0

    def find_indexed_byte(self, position: int) -> int:
        """As ``index.find_indexed_byte``."""
        entry = self._find(OFFSET_ENTRY, 1, position)
        return entry[1] if entry else 0

    def find_time(self, timestamp: int) -> int:
        """As ``index.find_time``."""
        entry = self._find(TIME_ENTRY, 0, timestamp - 1)
        return entry[1] if entry else 0

    def last_time_entry(self) -> tuple[int, int]:
        """As ``index.last_time_entry``."""
        return self._find(TIME_ENTRY, 0, 2**63 - 1) or (-1, 0)

    def _find(self, entry: Struct, key: int, target: int) -> tuple[int, int] | None:
        """The last entry whose field number ``key`` is <= ``target``."""
        try:
            file = self._disk.open(self._path)
        except FileNotFoundError:
            return None
        size = entry.size
        try:
            found = last_at_most(
                file.size() // size,
                lambda index: int(entry.unpack(file.read(index * size, size))[key]),
                target,
            )
            if found < 0:
                return None
            first, second = entry.unpack(file.read(found * size, size))
            return first, second
        finally:
            file.close()


def indexed_position(disk: Disk, segment: Segment, offset: int) -> int:
    """Byte position of an indexed batch at or before ``offset``; 0 where there is none."""
    relative = offset - segment.base_offset
    if relative < 0:
        return 0
    if segment.index is not None:
        return find_position(segment.index.offsets, relative)
    return IndexFile(disk, segment.path(OFFSET_INDEX_SUFFIX)).find_position(relative)
