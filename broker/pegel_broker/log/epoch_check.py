"""Whether ``leader-epoch-checkpoint`` tells of the log beside it, and what it should say.

The file is Kafka's and has no checksum, and a log that was stopped cleanly is not read again; after
a crash it may also be older than the log. With a wrong entry a leader tells its followers that
their logs part from its own where they do not, and they cut off what was committed (KIP-101). Every
entry names a batch, and each batch its epoch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from pegel.record.batch import HEADER_SIZE, BatchHeader, read_header
from pegel.seams import Disk
from pegel_broker.log import recovery
from pegel_broker.log.errors import CorruptLogError
from pegel_broker.log.leader_epochs import NO_EPOCH, LeaderEpochs
from pegel_broker.log.reading import MisreadError, find_batch_end
from pegel_broker.log.segment import Segment, indexed_position


def epochs_are_of_log(
    disk: Disk,
    segments: Sequence[Segment],
    entries: Sequence[tuple[int, int]],
    log_start_offset: int,
    log_end_offset: int,
    *,
    gaps: bool,
) -> bool:
    """Compare ``entries`` (epoch, start offset; all below the log end) with the log's batches.

    ``gaps``: compaction may have removed the batch in which an epoch began. Two look-ups for each
    entry.

    Raises:
        CorruptLogError: the log is damaged there.
        OSError: the disk failed.
    """
    if log_end_offset <= log_start_offset:
        return True

    def epoch_at(offset: int) -> tuple[int, int] | None:
        header = _batch_at(disk, segments, offset)
        return None if header is None else (header.partition_leader_epoch, header.base_offset)

    before = NO_EPOCH
    for number, (epoch, start) in enumerate(entries):
        following = entries[number + 1][1] if number + 1 < len(entries) else log_end_offset
        at = max(start, log_start_offset)
        found = epoch_at(at) if at < following else None  # else its records are all deleted
        if found is not None:
            # A log start may lie within a batch.
            begins = found[1] == start or start <= log_start_offset
            if found[0] < epoch or (not gaps and not (begins and found[0] == epoch)):
                return False
        if start > log_start_offset and not gaps:
            found = epoch_at(start - 1)
            if found is not None and found[0] != before:
                return False
        before = epoch
    found = epoch_at(log_end_offset - 1)
    return found is None or found[0] == before


def epochs_of_log(disk: Disk, segments: Sequence[Segment]) -> LeaderEpochs:
    """The epochs as the headers of all batches tell them.

    Raises:
        CorruptLogError: an epoch that goes back, or a batch that is none.
        OSError: the disk failed.
    """
    epochs = LeaderEpochs()
    for segment in segments:
        if not segment.size:
            continue

        def on_batch(at: int, header: BatchHeader, segment: Segment = segment) -> None:
            check_epoch_order(segment, at, header, epochs.latest)
            epochs.assign(header.partition_leader_epoch, header.base_offset)

        file = disk.open(segment.path())
        try:
            end = recovery.scan_batches(
                file.read, segment.size, 0, segment.base_offset, on_batch,
                gaps=True, checksums=False,
            )  # fmt: skip
        finally:
            file.close()
        if end.problem is not None:
            raise CorruptLogError(segment.path(), end.position, end.problem)
    return epochs


def check_epoch_order(segment: Segment, at: int, header: BatchHeader, newest: int) -> None:
    """Epochs only rise, and no checksum covers that of a header. Raises CorruptLogError."""
    if header.partition_leader_epoch < newest:
        raise CorruptLogError(
            segment.path(),
            at,
            f"a batch of leader epoch {header.partition_leader_epoch} follows one of {newest}",
        )


def _batch_at(disk: Disk, segments: Sequence[Segment], offset: int) -> BatchHeader | None:
    """Header of the first batch that reaches to ``offset``, in its segment or one after it."""
    first = max(0, bisect_right([s.base_offset for s in segments], offset) - 1)
    for segment in segments[first:]:
        if not segment.size:
            continue
        position = indexed_position(disk, segment, offset)
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
