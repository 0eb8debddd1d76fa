"""What compaction decides: which keys were written last, which records stay, which segments join.

Pure. The rules are Apache Kafka's (KIP-58, KIP-534): of each key the newest record stays; a
tombstone stays until its delete horizon; records keep their offsets; the last batch of a producer
stays, if need be empty, so that its sequence is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import BatchHeader, compute_crc, iter_batches
from pegel.record.compression import Buffer, CorruptBatchError
from pegel.record.retain import keyed_records, retain_records

# Keys that one pass can tell apart, at roughly 180 bytes each; the rest waits for the next pass.
KEYS_MAX = 200_000
_SHORT_KEY = 16
_HASHED = b"\x01"


def _name(key: bytes) -> bytes:
    """A short stand-in for ``key``; one of 17 bytes is never a key that stands for itself."""
    if len(key) <= _SHORT_KEY:
        return key
    return _HASHED + hashlib.blake2b(key, digest_size=_SHORT_KEY).digest()


class KeyMap:
    """The last offset of each key in the dirty part of a log, as far as it was read.

    ``end_offset`` is the offset behind the last batch that was taken in.
    """

    __slots__ = ("_last", "_limit", "end_offset")

    def __init__(self, start_offset: int, limit: int = KEYS_MAX) -> None:
        self._last: dict[bytes, int] = {}
        self._limit = limit
        self.end_offset = start_offset

    def __len__(self) -> int:
        return len(self._last)

    def add(self, buffer: Buffer, position: int, header: BatchHeader) -> bool:
        """Take a batch in; False where it has no room any more (one batch always has).

        Raises:
            CorruptBatchError: it is not what was written.
        """
        _check_crc(buffer, position, header)
        if self._last and len(self._last) + header.record_count > self._limit:
            return False
        # Transactions: an aborted record supersedes nothing, and who aborted is told elsewhere.
        if not header.is_control and not header.is_transactional:
            last = self._last
            try:
                found = list(keyed_records(buffer, position, header))
            except CorruptBatchError:
                found = []  # see `_compact_batch`
            for offset, key in found:
                if key is not None:
                    last[_name(key)] = offset
        self.end_offset = header.next_offset
        return True

    def is_superseded(self, key: bytes, offset: int) -> bool:
        """Whether the key was written again later."""
        return offset < self._last.get(_name(key), -1)


class Rules(NamedTuple):
    """``producer_ends``: the last offset of each producer's last batch, by producer id."""

    now_ms: int
    delete_retention_ms: int
    producer_ends: Mapping[int, int]


def compact(
    chunk: Buffer, keys: KeyMap, rules: Rules, *, last_offset: int
) -> list[tuple[Buffer, BatchHeader]]:
    """What stays of the whole batches in ``chunk``, with the headers that they had.

    The batch that ends at ``last_offset`` stays at least as an empty one: a segment then still
    ends where the next one begins.

    Raises:
        CorruptBatchError: a batch is not what was written.
    """
    kept: list[tuple[Buffer, BatchHeader]] = []
    for position, header in iter_batches(chunk):
        piece: Buffer | None = memoryview(chunk)[position : position + header.size]
        if not header.is_control and not header.is_transactional:
            stays = header.last_offset == last_offset or (
                header.has_producer_id
                and rules.producer_ends.get(header.producer_id) == header.last_offset
            )
            piece = _compact_batch(chunk, position, header, keys, rules, keep_empty=stays)
        if piece is not None:
            kept.append((piece, header))
    return kept


def _compact_batch(
    chunk: Buffer,
    position: int,
    header: BatchHeader,
    keys: KeyMap,
    rules: Rules,
    *,
    keep_empty: bool,
) -> Buffer | None:
    # With a horizon the base timestamp is that horizon.
    expired = header.has_delete_horizon and rules.now_ms > header.base_timestamp

    def keep(offset: int, key: bytes | None, is_tombstone: bool) -> bool:
        if key is None or keys.is_superseded(key, offset):
            return False
        return not (is_tombstone and expired)

    whole = memoryview(chunk)[position : position + header.size]
    # What is written anew gets a checksum of its own, which must not vouch for a flipped bit.
    _check_crc(chunk, position, header)
    if not header.record_count:
        return whole if keep_empty else None
    try:
        return retain_records(
            chunk, position, header, keep,
            delete_horizon_ms=rules.now_ms + rules.delete_retention_ms, keep_empty=keep_empty,
        )  # fmt: skip
    except CorruptBatchError:
        # Records are opaque to a broker that takes them in, so a client may have written what
        # nobody can read. It stays as it is: no reason to give the replica up.
        return whole


def _check_crc(buffer: Buffer, position: int, header: BatchHeader) -> None:
    if compute_crc(buffer, position, header.size) != header.crc:
        raise CorruptBatchError(
            ErrorCode.CORRUPT_MESSAGE,
            f"the checksum of the batch at offset {header.base_offset} is wrong",
        )


class SegmentSpan(NamedTuple):
    """A sealed segment: offsets from ``base`` to ``next_base``, excluded; bytes; newest record."""

    base: int
    next_base: int
    size: int
    largest_timestamp: int


def cleanable(
    spans: Sequence[SegmentSpan], *, safe_offset: int, newest_ms: int
) -> Sequence[SegmentSpan]:
    """The oldest segments that may be compacted.

    They end at ``safe_offset`` (committed, and of no open transaction) or before, and hold no
    record newer than ``newest_ms`` (``min.compaction.lag.ms``).
    """
    count = 0
    for span in spans:
        if span.next_base > safe_offset or span.largest_timestamp > newest_ms:
            break
        count += 1
    return spans[:count]


def dirty_ratio(spans: Sequence[SegmentSpan], first_dirty: int) -> float:
    """Share of the bytes that no pass has been over yet; 0 for none."""
    total = sum(span.size for span in spans)
    dirty = sum(span.size for span in spans if span.next_base > first_dirty)
    return dirty / total if total else 0.0


def is_due(
    spans: Sequence[SegmentSpan],
    first_dirty: int,
    *,
    min_ratio: float,
    now_ms: int,
    max_lag_ms: int,
) -> bool:
    """Whether a log is to be compacted: enough of it is dirty, or a part has been for too long."""
    dirty = [span for span in spans if span.next_base > first_dirty]
    if not dirty:
        return False
    if any(now_ms - span.largest_timestamp > max_lag_ms for span in dirty):
        return True
    return dirty_ratio(spans, first_dirty) > min_ratio


def group(
    spans: Sequence[SegmentSpan], *, max_bytes: int, max_offsets: int
) -> list[list[SegmentSpan]]:
    """Neighbours that together fit into one segment."""
    groups: list[list[SegmentSpan]] = []
    size = 0
    for span in spans:
        if (
            groups
            and size + span.size <= max_bytes
            and span.next_base - groups[-1][0].base <= max_offsets
        ):
            groups[-1].append(span)
            size += span.size
        else:
            groups.append([span])
            size = span.size
    return groups
