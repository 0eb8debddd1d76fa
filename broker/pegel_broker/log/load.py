"""Reading one log from its directory: trusting what a clean shutdown left, recovering the rest.

Blocking; runs in a disk queue before the log serves anybody, and again after a truncation.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import NamedTuple

from pegel.record.batch import BatchHeader, read_header
from pegel.record.compression import CorruptBatchError
from pegel.seams.disk import Disk, File
from pegel_broker.log import recovery
from pegel_broker.log.checkpoints import (
    COMPACTED_FILE,
    LEADER_EPOCH_FILE,
    LOG_SUFFIX,
    OFFSET_INDEX_SUFFIX,
    PARTITION_METADATA_FILE,
    SNAPSHOT_SUFFIX,
    TIME_INDEX_SUFFIX,
    CheckpointError,
    decode_epochs,
    decode_partition_metadata,
    parse_segment_name,
)
from pegel_broker.log.epoch_check import check_epoch_order, epochs_are_of_log, epochs_of_log
from pegel_broker.log.errors import CorruptLogError
from pegel_broker.log.index import (
    OFFSET_ENTRY,
    OFFSET_ENTRY_SIZE,
    TIME_ENTRY_SIZE,
    IndexDamageError,
    SegmentIndex,
    check_offset_index,
    check_time_index,
)
from pegel_broker.log.leader_epochs import NO_EPOCH, LeaderEpochs
from pegel_broker.log.producer_load import load_producers
from pegel_broker.log.producer_state import ProducerTable
from pegel_broker.log.segment import (
    CLEANED_SUFFIX,
    SWAP_SUFFIX,
    IndexFile,
    Segment,
    read_if_there,
    remove_segment_files,
    save_index,
)

_LEFTOVERS = (".tmp", ".deleted", CLEANED_SUFFIX)


class LoadOptions(NamedTuple):
    """``clean``: the last run ended by a clean shutdown, so everything was synced.

    ``gaps``: compaction may have left holes between offsets. Checkpointed offsets are 0 where a
    checkpoint did not name the log.
    """

    clean: bool
    log_start_offset: int = 0
    recovery_point: int = 0
    high_watermark: int = 0
    cleaned_offset: int = 0
    page_cache_lost: bool = False
    gaps: bool = False
    index_interval_bytes: int = 4096
    now_ms: int = 0


@dataclass(slots=True)
class LoadedLog:
    """What ``load_log`` found. ``segments`` is never empty; the last one is active.

    ``snapshots`` are the offsets of the producer snapshot files that are there.
    ``torn_bytes`` were cut off its end.
    """

    topic_id: uuid.UUID
    log_start_offset: int
    log_end_offset: int
    recovery_point: int
    high_watermark: int
    segments: list[Segment] = field(default_factory=list)
    epochs: LeaderEpochs = field(default_factory=LeaderEpochs)
    producers: ProducerTable = field(default_factory=ProducerTable)
    snapshots: list[int] = field(default_factory=list)
    torn_bytes: int = 0
    scanned_bytes: int = 0
    cleaned_offset: int = 0


def load_log(disk: Disk, folder: str, options: LoadOptions) -> LoadedLog:
    """Load the log in ``folder``.

    Raises:
        CorruptLogError: damage where no crash can have torn a write; no file was changed.
        OSError: the disk failed.
    """
    if disk.exists(f"{folder}/{COMPACTED_FILE}"):
        options = options._replace(gaps=True)
    return _Loader(disk, folder, options).load()


def read_topic_id(disk: Disk, folder: str) -> uuid.UUID:
    """From ``partition.metadata``; 0 where that is missing, or torn: the controller knows it."""
    data = read_if_there(disk, f"{folder}/{PARTITION_METADATA_FILE}")
    if data is not None:
        try:
            return decode_partition_metadata(data)
        except CheckpointError:
            pass
    return uuid.UUID(int=0)


def finish_swaps(disk: Disk, folder: str) -> None:
    """Finish, or undo, what a crash left of a compaction (see ``cleaner``).

    A ``.log.swap`` is whole and synced: it stands for all segments in its range of offsets. Index
    files without one belong to a swap that never began.

    Raises:
        CorruptLogError: a swap file that holds no batches.
    """
    names = disk.list_directory(folder)
    swaps = {name.removesuffix(SWAP_SUFFIX) for name in names if name.endswith(SWAP_SUFFIX)}
    if not swaps:
        return
    logs = [n for n in names if (parsed := parse_segment_name(n)) and parsed[1] == LOG_SUFFIX]
    for name in sorted(swaps):
        parsed = parse_segment_name(name)
        if parsed is None:
            continue
        base, suffix = parsed
        if f"{base:020d}{LOG_SUFFIX}" not in swaps:
            disk.remove(f"{folder}/{name}{SWAP_SUFFIX}")
        elif suffix == LOG_SUFFIX:
            path = f"{folder}/{name}{SWAP_SUFFIX}"
            file = disk.open(path)
            try:
                end = recovery.scan_batches(
                    file.read, file.size(), 0, base, lambda *_: None, gaps=True, checksums=False
                )
            finally:
                file.close()
            if end.problem is not None:
                raise CorruptLogError(path, end.position, end.problem)
            for other in logs:
                at = int(other.removesuffix(LOG_SUFFIX))
                if base < at < end.next_offset:
                    remove_segment_files(disk, Segment(folder, at, 0))
            for kind in (OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX, LOG_SUFFIX):
                target = Segment(folder, base, 0).path(kind)
                if disk.exists(target + SWAP_SUFFIX):
                    disk.rename(target + SWAP_SUFFIX, target)
    disk.sync_directory(folder)


class _Loader:
    def __init__(self, disk: Disk, folder: str, options: LoadOptions) -> None:
        self._disk = disk
        self._folder = folder
        self._options = options
        self._loaded = LoadedLog(
            topic_id=uuid.UUID(int=0),
            log_start_offset=options.log_start_offset,
            log_end_offset=0,
            recovery_point=options.recovery_point,
            high_watermark=options.high_watermark,
            cleaned_offset=options.cleaned_offset,
        )

    def load(self) -> LoadedLog:
        loaded, options = self._loaded, self._options
        bases = self._tidy_directory()
        loaded.topic_id = read_topic_id(self._disk, self._folder)
        loaded.epochs = self._read_epochs()
        stored = loaded.epochs.entries()
        now_ms = options.now_ms
        loaded.segments = [Segment(self._folder, base, now_ms) for base in bases]
        if not loaded.segments:
            loaded.segments = [Segment(self._folder, options.log_start_offset, now_ms)]
        first = loaded.segments[0].base_offset
        loaded.log_start_offset = max(options.log_start_offset, first)
        self._load_segments()
        if not options.clean and loaded.log_end_offset < options.recovery_point:
            last = loaded.segments[-1]
            raise CorruptLogError(
                last.path(),
                last.size,
                f"the log ends at offset {loaded.log_end_offset}, but was synced up to "
                f"{options.recovery_point}",
            )
        if loaded.log_end_offset < loaded.log_start_offset:
            self._start_again()
        end = loaded.log_end_offset
        loaded.high_watermark = max(loaded.log_start_offset, min(options.high_watermark, end))
        loaded.recovery_point = (
            end if options.clean else max(min(options.recovery_point, end), loaded.log_start_offset)
        )
        self._check_epochs(stored)
        loaded.producers, loaded.snapshots = load_producers(
            self._disk, self._folder, loaded.segments, loaded.snapshots, end
        )
        return loaded

    # --- the directory ---

    def _tidy_directory(self) -> list[int]:
        bases = []
        finish_swaps(self._disk, self._folder)
        for name in self._disk.list_directory(self._folder):
            if name.endswith(_LEFTOVERS):
                self._disk.remove(f"{self._folder}/{name}")
            elif parsed := parse_segment_name(name):
                base, suffix = parsed
                if suffix == LOG_SUFFIX:
                    bases.append(base)
                elif suffix == SNAPSHOT_SUFFIX:
                    self._loaded.snapshots.append(base)
        return bases

    def _read_epochs(self) -> LeaderEpochs:
        data = read_if_there(self._disk, f"{self._folder}/{LEADER_EPOCH_FILE}")
        if data is None:
            return LeaderEpochs()
        try:
            return LeaderEpochs(decode_epochs(data))
        except CheckpointError as error:
            path = f"{self._folder}/{LEADER_EPOCH_FILE}"
            raise CorruptLogError(path, 0, str(error)) from error

    def _check_epochs(self, stored: list[tuple[int, int]]) -> None:
        """Make them again from the log where they do not tell of it; ``stored``: as in the file."""
        loaded, disk = self._loaded, self._disk
        start, end = loaded.log_start_offset, loaded.log_end_offset
        loaded.epochs.truncate_from_end(end)
        entries = loaded.epochs.entries()
        if not epochs_are_of_log(
            disk, loaded.segments, entries, start, end, gaps=self._options.gaps
        ):
            loaded.epochs = epochs_of_log(disk, loaded.segments)
        loaded.epochs.truncate_from_start(start)
        loaded.epochs.dirty = loaded.epochs.entries() != stored

    def _start_again(self) -> None:
        """Everything lies below the log start (a follower whose leader deleted it): keep none."""
        loaded = self._loaded
        for segment in reversed(loaded.segments):
            remove_segment_files(self._disk, segment)
        fresh = Segment(self._folder, loaded.log_start_offset, self._options.now_ms)
        fresh.index = SegmentIndex()
        loaded.segments = [fresh]
        loaded.log_end_offset = loaded.log_start_offset
        loaded.epochs.clear()

    # --- the segments ---

    def _load_segments(self) -> None:
        loaded, options = self._loaded, self._options
        segments = loaded.segments
        for number, segment in enumerate(segments):
            following = segments[number + 1] if number + 1 < len(segments) else None
            try:
                file = self._disk.open(segment.path())
            except FileNotFoundError:  # a new, empty log
                segment.index = SegmentIndex()
                loaded.log_end_offset = segment.base_offset
                return
            try:
                segment.size = segment.written = file.size()
                trusted = following is not None and (
                    options.clean or following.base_offset <= options.recovery_point
                )
                if trusted and self._trust_sealed(segment, file):
                    continue
                if not self._scan_segment(number, segment, following, file):
                    return
            finally:
                file.close()

    def _trust_sealed(self, segment: Segment, file: File) -> bool:
        """Take a sealed, synced segment with a look at its indexes; False to have it scanned."""
        if segment.size >= 61:
            segment.first_timestamp = read_header(file.read(0, 61)).max_timestamp
        for suffix, entry_size in (
            (OFFSET_INDEX_SUFFIX, OFFSET_ENTRY_SIZE),
            (TIME_INDEX_SUFFIX, TIME_ENTRY_SIZE),
        ):
            try:
                index_file = self._disk.open(segment.path(suffix))
            except FileNotFoundError:
                return False
            try:
                size = index_file.size()
                if size % entry_size:
                    return False
                if suffix == OFFSET_INDEX_SUFFIX and size:
                    last = index_file.read(size - entry_size, entry_size)
                    offset, position = OFFSET_ENTRY.unpack(last)
                    if offset < 0 or not 0 <= position < segment.size:
                        return False
            finally:
                index_file.close()
        times = IndexFile(self._disk, segment.path(TIME_INDEX_SUFFIX))
        segment.max_timestamp = times.last_time_entry()[0]
        return segment.max_timestamp >= 0 or segment.size == 0

    def _scan_segment(
        self, number: int, segment: Segment, following: Segment | None, file: File
    ) -> bool:
        """Scan past the recovery point; True where the segment after it is to be loaded too."""
        loaded, options = self._loaded, self._options
        index = self._saved_index(segment)
        keep_below = 2**31 - 1
        if not options.clean:
            keep_below = max(0, options.recovery_point - segment.base_offset)
        index.truncate(keep_below)
        position, expected = self._resume_at(index, segment, file)
        if position == 0:
            index.truncate(0)
        segment.index = index
        if segment.size >= 61:
            segment.first_timestamp = read_header(file.read(0, 61)).max_timestamp

        newest = NO_EPOCH

        def on_batch(at: int, header: BatchHeader) -> None:
            nonlocal newest
            check_epoch_order(segment, at, header, newest)
            newest = header.partition_leader_epoch
            index.add(
                header.last_offset - segment.base_offset,
                at,
                header.size,
                header.max_timestamp,
                options.index_interval_bytes,
            )
            loaded.epochs.assign(header.partition_leader_epoch, header.base_offset)

        end = recovery.scan_batches(
            file.read, segment.size, position, expected, on_batch,
            gaps=options.gaps, checksums=not options.clean,
        )  # fmt: skip
        loaded.scanned_bytes += end.position - position
        loaded.log_end_offset = end.next_offset
        segment.max_timestamp = index.max_timestamp
        cut = self._check_end(number, segment, following, file, end)
        if following is None or cut:
            return False
        index.add_time_entry()
        # A process that was killed may have left it unsynced, and nobody writes to it any more:
        # the next sync, of the active segment, will move the recovery point past it.
        file.sync()
        save_index(self._disk, segment, index, sync=True)
        segment.index = None
        return True

    def _check_end(
        self,
        number: int,
        segment: Segment,
        following: Segment | None,
        file: File,
        end: recovery.ScanEnd,
    ) -> bool:
        """Cut a torn tail and the segments after it: True. Raises CorruptLogError for damage."""
        loaded, options = self._loaded, self._options
        problem = end.problem
        if problem is None:
            if (
                following is None
                or end.next_offset == following.base_offset
                or (options.gaps and end.next_offset < following.base_offset)
            ):
                return False
            problem = (
                f"the segment ends at offset {end.next_offset}, the next one begins at "
                f"{following.base_offset}"
            )
        valid_after = recovery.find_valid_batch(
            file.read, segment.size, end.position, end.next_offset
        ) is not None or self._has_batches(loaded.segments[number + 1 :], end.next_offset)
        if recovery.is_damage(
            next_offset=end.next_offset,
            recovery_point=2**63 - 1 if options.clean else options.recovery_point,
            high_watermark=options.high_watermark,
            valid_after=valid_after,
            cut_short=end.cut_short,
            page_cache_lost=options.page_cache_lost,
        ):
            why = recovery.evidence(
                next_offset=end.next_offset,
                recovery_point=options.recovery_point,
                high_watermark=options.high_watermark,
                valid_after=valid_after,
            )
            raise CorruptLogError(segment.path(), end.position, f"{problem}; {why}")
        for later in reversed(loaded.segments[number + 1 :]):
            remove_segment_files(self._disk, later)
        del loaded.segments[number + 1 :]
        loaded.torn_bytes += segment.size - end.position
        file.truncate(end.position)
        file.sync()
        segment.size = segment.written = end.position
        return True

    def _has_batches(self, segments: list[Segment], next_offset: int) -> bool:
        for segment in segments:
            file = self._disk.open(segment.path())
            try:
                found = recovery.find_valid_batch(file.read, file.size(), 0, next_offset)
            finally:
                file.close()
            if found is not None:
                return True
        return False

    def _saved_index(self, segment: Segment) -> SegmentIndex:
        """The index files' content; empty where it cannot belong to the segment."""
        offsets = read_if_there(self._disk, segment.path(OFFSET_INDEX_SUFFIX))
        times = read_if_there(self._disk, segment.path(TIME_INDEX_SUFFIX))
        if offsets is None or times is None:  # they are written, and rebuilt, together
            return SegmentIndex()
        try:
            check_offset_index(offsets, segment.size)
            check_time_index(times)
        except IndexDamageError:
            return SegmentIndex()
        return SegmentIndex(bytearray(offsets), bytearray(times))

    def _resume_at(self, index: SegmentIndex, segment: Segment, file: File) -> tuple[int, int]:
        """Byte position and base offset of the last indexed batch; the segment's start else."""
        if index.offsets:
            relative, position = OFFSET_ENTRY.unpack_from(
                index.offsets, len(index.offsets) - OFFSET_ENTRY_SIZE
            )
            try:
                header = read_header(file.read(position, 61))
            except CorruptBatchError:
                return 0, segment.base_offset
            if header.magic == 2 and header.last_offset == segment.base_offset + relative:
                return position, header.base_offset
        return 0, segment.base_offset
