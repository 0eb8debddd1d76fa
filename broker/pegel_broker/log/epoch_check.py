"""Whether ``leader-epoch-checkpoint`` tells of the log beside it.

The file is Kafka's and has no checksum, and a log that was stopped cleanly is not read again. With
a wrong entry a leader tells its followers that their logs part from its own where they do not, and
they cut off what was committed (KIP-101). Every entry names a batch, and each batch its epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from pegel.record.batch import HEADER_SIZE, BatchHeader, read_header
from pegel.seams import Disk
from pegel_broker.log.checkpoints import LEADER_EPOCH_FILE, OFFSET_INDEX_SUFFIX
from pegel_broker.log.errors import CorruptLogError
from pegel_broker.log.index import find_position
from pegel_broker.log.leader_epochs import NO_EPOCH
from pegel_broker.log.reading import MisreadError, find_batch_end
from pegel_broker.log.segment import IndexFile, Segment


def checked_epochs(
    disk: Disk,
    folder: str,
    segments: Sequence[Segment],
    entries: Sequence[tuple[int, int]],
    log_start_offset: int,
    log_end_offset: int,
    *,
    gaps: bool,
) -> list[tuple[int, int]]:
    """``entries`` (epoch, start offset; all below the log end), compared with the log's batches.

    The first may begin too late, where the file knows of a log start that a crash has undone: it
    begins where the log does. ``gaps``: compaction may have removed the batch in which an epoch
    began.

    Raises:
        CorruptLogError: an entry is not of this log, or the log is damaged there.
        OSError: the disk failed.
    """
    checked = list(entries)
    if not checked or log_end_offset <= log_start_offset:
        return checked

    def batch_at(offset: int) -> BatchHeader | None:
        return _batch_at(disk, segments, offset)

    epoch, start = checked[0]
    if start > log_start_offset:
        header = batch_at(log_start_offset)
        if header is not None and header.partition_leader_epoch == epoch:
            checked[0] = epoch, log_start_offset
    before = NO_EPOCH
    for number, (epoch, start) in enumerate(checked):
        following = checked[number + 1][1] if number + 1 < len(checked) else log_end_offset
        at = max(start, log_start_offset)
        if at < following:  # else all of its records are deleted
            header = batch_at(at)
            if header is not None and not _begins(header, epoch, start, log_start_offset, gaps):
                raise _wrong(folder, epoch, start, header)
        if start > log_start_offset and not gaps:
            header = batch_at(start - 1)
            if header is not None and header.partition_leader_epoch != before:
                raise _wrong(folder, epoch, start, header)
        before = epoch
    header = batch_at(log_end_offset - 1)
    if header is not None and header.partition_leader_epoch != before:
        raise _wrong(folder, *checked[-1], header)
    return checked


def _begins(header: BatchHeader, epoch: int, start: int, log_start_offset: int, gaps: bool) -> bool:
    if gaps:
        return header.partition_leader_epoch >= epoch
    # A log start may lie within a batch.
    there = header.base_offset == start or start <= log_start_offset
    return there and header.partition_leader_epoch == epoch


def _wrong(folder: str, epoch: int, start: int, header: BatchHeader) -> CorruptLogError:
    return CorruptLogError(
        f"{folder}/{LEADER_EPOCH_FILE}",
        0,
        f"it says that epoch {epoch} begins at offset {start}, but the batch of offsets "
        f"{header.base_offset} to {header.last_offset} is of epoch {header.partition_leader_epoch}",
    )


def _batch_at(disk: Disk, segments: Sequence[Segment], offset: int) -> BatchHeader | None:
    """Header of the first batch that reaches to ``offset``, in its segment or one after it."""
    first = max(0, bisect_right([s.base_offset for s in segments], offset) - 1)
    for segment in segments[first:]:
        if not segment.size:
            continue
        relative = max(0, offset - segment.base_offset)
        if segment.index is not None:
            position = find_position(segment.index.offsets, relative)
        else:
            index = IndexFile(disk, segment.path(OFFSET_INDEX_SUFFIX))
            position = index.find_position(relative)
        file = disk.open(segment.path())
        try:
            at, _base = find_batch_end(file.read, position, segment.size, offset)
            if segment.size - at >= HEADER_SIZE:
                return read_header(file.read(at, HEADER_SIZE))
        except MisreadError as error:
            raise CorruptLogError(segment.path(), error.position, str(error)) from error
        finally:
            file.close()
    return None
