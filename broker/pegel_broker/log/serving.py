"""Reads of a log that go to its files: at once from the page cache, else by the read queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from pegel.protocol.errors import ErrorCode
from pegel.seams.disk import Disk, File, Outcome
from pegel_broker.log.checkpoints import OFFSET_INDEX_SUFFIX, TIME_INDEX_SUFFIX
from pegel_broker.log.errors import CorruptLogError, LogError
from pegel_broker.log.index import find_position
from pegel_broker.log.index import find_time as find_time_entry
from pegel_broker.log.reading import (
    FileRead,
    MisreadError,
    Reader,
    WouldBlockError,
    find_timestamp,
    find_timestamp_in,
    read_batches,
)
from pegel_broker.log.results import ReadResult, TimestampOffset
from pegel_broker.log.segment import IndexFile, Segment

if TYPE_CHECKING:
    from pegel_broker.log.stored_log import StoredLog

T = TypeVar("T")
_UNKNOWN = -1


def read_files(
    log: StoredLog, offset: int, max_bytes: int, limit_offset: int, min_one: bool
) -> ReadResult | asyncio.Future[ReadResult]:
    """Batches that are in the files, from one segment."""
    number = log.segment_for(offset)
    segment = log.segments[number]
    position, slack = _start(log, segment, offset)
    end = segment.written
    if segment.reader is not None and position != _UNKNOWN:
        try:
            found = read_batches(
                _nowait(segment.reader), position, end, offset, limit_offset, max_bytes,
                min_one=min_one, slack=slack, end_offset=_end_offset(log, number),
            )  # fmt: skip
        except WouldBlockError:
            pass
        except MisreadError as error:
            raise _damaged(log, segment, error) from None
        else:
            return _remember(log, segment, found)
    disk = log.keeper.directory.disk
    following = log.segments[number + 1 :]
    ends = [s.base_offset for s in following]

    def read() -> tuple[Segment, FileRead, File | None]:
        opened = None
        at, room = position, slack
        current, until = segment, end
        later, later_ends = iter(following), iter(ends)
        while True:
            file = current.reader
            opened = None
            if file is None:
                file = opened = disk.open(current.path())
            if at == _UNKNOWN:
                index = IndexFile(disk, current.path(OFFSET_INDEX_SUFFIX))
                at = index.find_position(offset - current.base_offset)
            end_offset = next(later_ends, log.log_end_offset)
            try:
                found = read_batches(
                    file.read, at, until, offset, limit_offset, max_bytes,
                    min_one=min_one, slack=room, end_offset=end_offset,
                )  # fmt: skip
            except BaseException as error:
                if opened is not None:
                    opened.close()
                if isinstance(error, MisreadError):
                    raise CorruptLogError(current.path(), error.position, error.problem) from None
                raise
            if found.result.records or found.next_position < until:
                return current, found, opened
            following_segment = next(later, None)
            if following_segment is None:
                return current, found, opened
            if opened is not None:  # compaction left nothing from the offset on in this segment
                opened.close()
            current, until, at, room = following_segment, following_segment.written, 0, 0

    def finish(result: tuple[Segment, FileRead, File | None]) -> ReadResult:
        current, found, opened = result
        if opened is not None:
            if log.deleted or current not in log.segments:
                log.keeper.directory.close_file(opened)
            else:
                log.keeper.directory.keep_reader(current, opened)
        return _remember(log, current, found)

    return _in_read_queue(log, read, finish)


def _end_offset(log: StoredLog, number: int) -> int:
    """Above every offset of the segment of that number."""
    following = log.segments[number + 1 : number + 2]
    return following[0].base_offset if following else log.log_end_offset


def _start(log: StoredLog, segment: Segment, offset: int) -> tuple[int, int]:
    """A batch's byte position at or before ``offset``, and how far from it that may be."""
    hint = log.next_read
    if hint is not None and hint[0] == offset and hint[1] is segment:
        return hint[2], 0
    if segment.index is None:
        return (0, 0) if offset == segment.base_offset else (_UNKNOWN, 8192)
    relative = offset - segment.base_offset
    position = find_position(segment.index.offsets, relative)
    return position, log.config.index_interval_bytes + 4096


def _remember(log: StoredLog, segment: Segment, found: FileRead) -> ReadResult:
    if found.result.records:
        log.next_read = (found.result.next_offset, segment, found.next_position)
    return found.result


def _nowait(file: File) -> Reader:
    def read(position: int, size: int) -> bytes:
        data = file.read_nowait(position, size)
        if data is None:
            raise WouldBlockError
        return data

    return read


def _damaged(log: StoredLog, segment: Segment, error: MisreadError) -> LogError:
    damage = CorruptLogError(segment.path(), error.position, error.problem)
    log.fail(str(damage))
    return damage


def _in_read_queue(
    log: StoredLog, call: Callable[[], T], finish: Callable[[T], ReadResult]
) -> asyncio.Future[ReadResult]:
    done: asyncio.Future[ReadResult] = asyncio.get_running_loop().create_future()
    submit(log, call, lambda result: _resolve(done, finish(result)), done)
    return done


def _resolve(done: asyncio.Future[T], result: T) -> None:
    if not done.done():
        done.set_result(result)


def submit(
    log: StoredLog,
    call: Callable[[], T],
    on_result: Callable[[T], object],
    done: asyncio.Future[ReadResult] | asyncio.Future[TimestampOffset | None],
) -> None:
    """Run ``call`` in the read queue; its failure fails ``done``, and the log or directory."""
    directory = log.keeper.directory

    def on_done(outcome: Outcome[T]) -> None:
        error = outcome.error
        if error is None:
            on_result(outcome.result())
            return
        if isinstance(error, FileNotFoundError):  # removed by retention, or with its topic
            error = LogError(ErrorCode.OFFSET_OUT_OF_RANGE, "the segment was removed")
        elif isinstance(error, CorruptLogError):
            log.fail(str(error))
        elif not isinstance(error, LogError):
            directory.fail(f"{type(error).__name__}: {error}")
            error = LogError(ErrorCode.KAFKA_STORAGE_ERROR, str(error))
        if not done.done():
            done.set_exception(error)

    directory.read(call, on_done)


def find_time(log: StoredLog, timestamp: int) -> asyncio.Future[TimestampOffset | None]:
    """The first record from the log start on that is at least as new as ``timestamp`` (ms).

    Binary search in the time index, then in the offset index, then a short scan; the batch found
    is decoded. What is not yet in the files is searched in memory.
    """
    done: asyncio.Future[TimestampOffset | None] = asyncio.get_running_loop().create_future()
    if log.offline is not None:
        done.set_exception(LogError(ErrorCode.KAFKA_STORAGE_ERROR, log.offline))
        return done
    disk = log.keeper.directory.disk
    start_offset = log.log_start_offset
    plans = [
        (segment, _time_position(segment, timestamp), segment.written)
        for segment in log.segments
        if segment.max_timestamp >= timestamp and segment.written
    ]
    tail = log.tail_batches()

    def search() -> TimestampOffset | None:
        for segment, position, end in plans:
            found = _search_segment(disk, segment, position, end, timestamp, start_offset)
            if found is not None:
                return found
        return find_timestamp_in(tail, timestamp, start_offset)

    submit(log, search, lambda result: _resolve(done, result), done)
    return done


def _time_position(segment: Segment, timestamp: int) -> int:
    """For an active segment, the byte position to search from; its index is the loop's."""
    if segment.index is None:
        return _UNKNOWN
    relative = find_time_entry(segment.index.times, timestamp)
    return find_position(segment.index.offsets, relative)


def _search_segment(
    disk: Disk, segment: Segment, position: int, end: int, timestamp: int, start_offset: int
) -> TimestampOffset | None:
    if position == _UNKNOWN:
        relative = IndexFile(disk, segment.path(TIME_INDEX_SUFFIX)).find_time(timestamp)
        position = IndexFile(disk, segment.path(OFFSET_INDEX_SUFFIX)).find_position(relative)
    file = disk.open(segment.path())
    try:
        return find_timestamp(file.read, position, end, timestamp, start_offset)
    except MisreadError as error:
        raise CorruptLogError(segment.path(), error.position, error.problem) from None
    finally:
        file.close()
