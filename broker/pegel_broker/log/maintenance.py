"""What changes a log other than by appending: sealing, truncating, retention, removal."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pegel.protocol.errors import ErrorCode
from pegel.seams.disk import Disk
from pegel_broker.log.checkpoints import (
    COMPACTED_FILE,
    HIGH_WATERMARK_FILE,
    LOG_START_FILE,
    RECOVERY_POINT_FILE,
    SNAPSHOT_SUFFIX,
    deleted_directory_name,
    segment_name,
)
from pegel_broker.log.errors import LogError
from pegel_broker.log.index import SegmentIndex
from pegel_broker.log.load import LoadedLog, LoadOptions, load_log
from pegel_broker.log.reading import find_batch_end
from pegel_broker.log.retention import SegmentFacts, expired_segments
from pegel_broker.log.segment import (
    Segment,
    Unsaved,
    indexed_position,
    remove_if_there,
    remove_segment_files,
    save_unsaved,
    sync_path,
    take_unsaved,
    write_tail,
)

if TYPE_CHECKING:
    from pegel_broker.log.stored_log import StoredLog


# --- sealing ---


@dataclass(slots=True)
class Sealing:
    """A segment that is full; its files are completed once all of it is written.

    ``snapshot`` is the producer state as of ``next_base``, the base offset of the next segment.
    """

    segment: Segment
    unsaved: Unsaved
    next_base: int
    snapshot: bytes


def seal(log: StoredLog, segment: Segment, now_ms: int) -> Segment:
    """Close ``segment``; returns the new active one."""
    index = segment.index
    assert index is not None
    index.add_time_entry()
    end = log.log_end_offset
    log.sealing.append(Sealing(segment, take_unsaved(index), end, log.producers.encode_snapshot()))
    fresh = Segment(log.folder, end, now_ms)
    fresh.index = SegmentIndex()
    log.segments.append(fresh)
    return fresh


def finish_sealing(log: StoredLog) -> None:
    """Sync, and write the indexes and the snapshot of, the sealed segments that are written."""
    directory = log.keeper.directory
    disk = directory.disk
    while log.sealing and log.sealing[0].segment.written == log.sealing[0].segment.size:
        sealing = log.sealing.pop(0)
        segment = sealing.segment
        segment.index = None
        directory.run("write", lambda s=segment: close_writer(s))  # type: ignore[misc]

        def complete(sealing: Sealing = sealing) -> None:
            if not log.deleted:
                _complete_files(disk, sealing)

        def completed(_result: None, sealing: Sealing = sealing) -> None:
            if log.deleted or sealing.segment not in log.segments:
                return
            log.snapshots.append(sealing.next_base)
            log.unsynced = [s for s in log.unsynced if s is not sealing.segment]
            log.advance_recovery_point(sealing.next_base)

        directory.run("background", complete, completed, log)


def close_writer(segment: Segment) -> None:
    """In the write queue, which owns the handle."""
    if segment.writer is not None:
        segment.writer.close()
        segment.writer = None


def _complete_files(disk: Disk, sealing: Sealing) -> None:
    segment = sealing.segment
    if not disk.exists(segment.path()):
        return  # removed by retention meanwhile
    sync_path(disk, segment.path())
    save_unsaved(disk, segment, sealing.unsaved, sync=True)
    write_snapshot(disk, segment.folder, sealing.next_base, sealing.snapshot)
    disk.sync_directory(segment.folder)


def write_snapshot(disk: Disk, folder: str, offset: int, data: bytes) -> None:
    """Write a producer snapshot. Its checksum tells a torn one, so it is not written aside."""
    write_tail(disk, f"{folder}/{segment_name(offset, SNAPSHOT_SUFFIX)}", 0, data, sync=True)


def note_gaps(log: StoredLog) -> None:
    """Remember in the log's directory that offsets may be missing, before any are.

    In the write queue: what is appended from now on is written later.
    """
    if log.offline is not None or not (log.config.compact_policy or log.gaps):
        return  # what is damaged is left as it is: it may lack offsets that it should have
    disk = log.keeper.directory.disk
    path = f"{log.folder}/{COMPACTED_FILE}"

    def write() -> None:
        if not log.deleted and not disk.exists(path):
            disk.write_file(path, b"")

    log.keeper.directory.run("write", write)


# --- truncation ---


@dataclass(slots=True)
class Truncation:
    """Asked for; ``started`` once the writes before it are done."""

    offset: int
    fully: bool
    done: asyncio.Future[None]
    started: bool = False


def truncate(log: StoredLog, offset: int, *, fully: bool) -> asyncio.Future[None]:
    """Begin a truncation, after what is being written."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if log.offline is not None or log.deleted:
        done.set_exception(LogError(ErrorCode.KAFKA_STORAGE_ERROR, log.offline or "deleted"))
    elif log.truncation is not None:
        done.set_exception(LogError(ErrorCode.KAFKA_STORAGE_ERROR, "a truncation is under way"))
    elif not fully and offset >= log.log_end_offset:
        log.epochs.truncate_from_end(log.log_end_offset)
        log.keeper.mark_epochs(log)
        done.set_result(None)
    else:
        log.truncation = Truncation(offset, fully, done)
        continue_truncation(log)
    return done


def continue_truncation(log: StoredLog) -> None:
    """Checkpoint lower offsets, then cut the files, then take over what is left.

    The checkpoints go first: a crash in between must not find a log that ends below what they
    say was synced or committed, which recovery rightly calls damage.
    """
    truncation = log.truncation
    assert truncation is not None
    if log.busy or not log.ready:
        log.keeper.directory.enqueue(log)
        return
    if log.swapping is not None:
        return  # called again when that is done
    if truncation.started:
        return
    truncation.started = True
    keeper = log.keeper
    first = log.segments[0].base_offset
    floor = 0 if truncation.fully else log.segments[log.segment_for(truncation.offset)].base_offset
    if not truncation.fully and truncation.offset <= first:
        floor = 0
    if log.recovery_point > floor:
        log.recovery_point = floor
        keeper.mark(RECOVERY_POINT_FILE)
    lowered = {}
    if truncation.fully or log.high_watermark > truncation.offset:
        lowered[log] = floor
        keeper.mark(HIGH_WATERMARK_FILE)
        keeper.mark(LOG_START_FILE)
    directory = keeper.directory
    disk = directory.disk
    for segment in log.segments:
        directory.drop_reader(segment)
    active = log.segments[-1]
    assert active.index is not None
    unsaved = take_unsaved(active.index)
    options = LoadOptions(
        clean=True,
        log_start_offset=truncation.offset if truncation.fully else log.log_start_offset,
        high_watermark=log.high_watermark,
        gaps=log.config.compact_policy or log.gaps,
        index_interval_bytes=log.config.index_interval_bytes,
        now_ms=directory.clock.wall_ms(),
    )
    segments = list(log.segments)

    def cut() -> LoadedLog:
        for segment in segments:
            close_writer(segment)
        if truncation.fully:
            for segment in reversed(segments):
                remove_segment_files(disk, segment)
            for name in disk.list_directory(log.folder):
                if name.endswith(SNAPSHOT_SUFFIX):
                    disk.remove(f"{log.folder}/{name}")
            disk.open(Segment(log.folder, truncation.offset, 0).path(), create=True).close()
            disk.sync_directory(log.folder)
        else:
            if disk.exists(active.path()):
                save_unsaved(disk, active, unsaved, sync=False)
            _cut_files(disk, segments, truncation.offset)
        return load_log(disk, log.folder, options)

    def finished(loaded: LoadedLog) -> None:
        _finish_truncation(log, loaded)

    keeper.write_checkpoints(lambda _result: directory.run("write", cut, finished, log), lowered)


def _cut_files(disk: Disk, segments: list[Segment], offset: int) -> None:
    """Remove batches that reach to ``offset`` or above, from the end backwards."""
    keep = max((n for n, s in enumerate(segments) if s.base_offset <= offset), default=0)
    for segment in reversed(segments[keep + 1 :]):
        remove_segment_files(disk, segment)
    segment = segments[keep]
    if not disk.exists(segment.path()):
        return
    position = indexed_position(disk, segment, offset)
    file = disk.open(segment.path())
    try:
        at, _base = find_batch_end(file.read, position, file.size(), offset)
        file.truncate(at)
        file.sync()
    finally:
        file.close()


def _finish_truncation(log: StoredLog, loaded: LoadedLog) -> None:
    truncation = log.truncation
    if truncation is None:  # deleted or failed meanwhile
        return
    end = loaded.log_end_offset
    loaded.recovery_point = min(log.recovery_point, end)
    loaded.high_watermark = max(loaded.log_start_offset, min(log.high_watermark, end))
    loaded.epochs = log.epochs
    log.epochs.truncate_from_end(end)
    if truncation.fully:
        log.epochs.clear()
        loaded.recovery_point = loaded.high_watermark = end
    log.truncation = None
    log.adopt(loaded)
    log.keeper.mark_epochs(log)
    for name in (HIGH_WATERMARK_FILE, RECOVERY_POINT_FILE, LOG_START_FILE):
        log.keeper.mark(name)
    if not truncation.done.done():
        truncation.done.set_result(None)


# --- retention ---


def remove_below_start(log: StoredLog) -> int:
    """Remove the segments that lie wholly below the log start offset."""
    count = 0
    removable = _removable(log)
    while (
        count < removable
        and count + 1 < len(log.segments)
        and log.segments[count + 1].base_offset <= log.log_start_offset
    ):
        count += 1
    log.keeper.directory.stats.deleted["log_start"] += count
    _remove_oldest(log, count)
    return count


def _removable(log: StoredLog) -> int:
    """How many of the oldest segments are wholly in their files: a queued write would make a
    removed file anew. The others go at a later call."""
    sealing = [s.segment for s in log.sealing]
    count = 0
    for segment in log.segments:
        if segment.written != segment.size or segment in sealing:
            break
        count += 1
    return count


def apply_retention(log: StoredLog, now_ms: int) -> int:
    """Remove old segments by the log's configuration; rolls the active one if it is old too."""
    if log.offline is not None or log.deleted or log.truncation is not None:
        return 0
    if not log.config.delete_policy:
        return remove_below_start(log)
    bases = [s.base_offset for s in log.segments[1:]] + [log.log_end_offset]
    facts = [
        SegmentFacts(next_base, s.size, s.largest_timestamp)
        for s, next_base in zip(log.segments, bases, strict=True)
    ]
    count = expired_segments(
        facts,
        now_ms=now_ms,
        log_start_offset=log.log_start_offset,
        high_watermark=log.high_watermark,
        retention_ms=log.config.retention_ms,
        retention_bytes=log.config.retention_bytes,
    )
    count = min(count, _removable(log))
    if count == 0:
        return 0
    oldest = now_ms - log.config.retention_ms
    by_time = sum(log.config.retention_ms >= 0 and f.largest_timestamp < oldest
                  for f in facts[:count])  # fmt: skip
    deleted = log.keeper.directory.stats.deleted
    deleted["retention_time"] += by_time
    deleted["retention_size"] += count - by_time
    if count == len(log.segments):
        log.roll(now_ms)
    new_start = log.segments[count].base_offset
    if new_start > log.log_start_offset:
        log.log_start_offset = new_start
        log.epochs.truncate_from_start(new_start)
        log.keeper.mark_epochs(log)
        log.keeper.mark(LOG_START_FILE)
    _remove_oldest(log, count)
    return count


def _remove_oldest(log: StoredLog, count: int) -> None:
    """Take the ``count`` oldest segments out of the log; their files go in the background."""
    if count == 0:
        return
    gone, log.segments = log.segments[:count], log.segments[count:]
    kept = log.segments[0]
    first = kept.base_offset
    # The newest snapshot stays: it may be all that is known of a producer.
    stale = [o for o in log.snapshots if o < first and o != max(log.snapshots)]
    log.snapshots = [o for o in log.snapshots if o not in stale]
    log.unsynced = [s for s in log.unsynced if s not in gone]
    directory = log.keeper.directory
    disk = directory.disk
    for segment in gone:
        directory.drop_reader(segment)

    def remove() -> None:
        if log.deleted:
            return
        for segment in gone:
            remove_segment_files(disk, segment)
        for offset in stale:
            remove_if_there(disk, f"{log.folder}/{segment_name(offset, SNAPSHOT_SUFFIX)}")

    def release() -> None:
        for segment in gone:
            close_writer(segment)
        if not log.deleted:
            # The name of the first segment is what says where the log starts: it must be there
            # before the others go, though nothing may have been written to it yet.
            disk.open(kept.path(), create=True).close()
            disk.sync_directory(kept.folder)

    directory.run("write", release, lambda _result: directory.run("background", remove))


# --- removal ---


def delete(log: StoredLog) -> asyncio.Future[None]:
    """Rename the log's directory away, after the file work queued for it; then remove it."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    directory = log.keeper.directory
    if log.deleted:
        done.set_result(None)
        return done
    log.deleted = True
    log.release()
    log.keeper.forget(log)
    log.tell_deleted(done)
    for name in (HIGH_WATERMARK_FILE, RECOVERY_POINT_FILE, LOG_START_FILE):
        log.keeper.mark(name)
    log.keeper.on_gone([(log.topic, log.partition)])
    disk = directory.disk
    segments = list(log.segments)
    for segment in segments:
        directory.drop_reader(segment)
    unique = f"{log.keeper.next_unique():032x}"
    target = f"{directory.path}/{deleted_directory_name(log.topic, log.partition, unique)}"

    def release() -> None:
        for segment in segments:
            close_writer(segment)

    def released(_result: None) -> None:
        log.keeper.rename_away(log.folder, target, renamed)

    def renamed(there: bool) -> None:
        if there:
            directory.run("background", lambda: disk.remove_tree(target))
        if not done.done():
            done.set_result(None)

    if directory.offline is not None:  # it is removed when the directory is back, at a start
        done.set_result(None)
        return done
    directory.run("write", release, released)
    return done
