"""What a log knows of idempotent producers: their last batches, so that a retry is recognised.

The rules are Apache Kafka's (KIP-98, KIP-360): the last five batches of each producer are kept; a
batch equal to one of them is a duplicate; any other must continue the sequence of its epoch.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import crc32c

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import BatchHeader
from pegel_broker.log.errors import LogError

KEPT_BATCHES = 5
NO_SEQUENCE = -1
_LAST_SEQUENCE = 2**31 - 1

_SNAPSHOT_VERSION = 1
_SNAPSHOT_HEAD = struct.Struct(">hIi")  # version, crc of all after it, number of entries
_SNAPSHOT_ENTRY = struct.Struct(">qhiqiqiq")
_CRC_END = 6


class ProducedBatch(NamedTuple):
    """One batch of a producer, as far as telling duplicates needs it."""

    first_sequence: int
    last_sequence: int
    first_offset: int
    last_offset: int
    timestamp: int


class Producer:
    """One producer id: its epoch and last batches, oldest first (at most ``KEPT_BATCHES``).

    ``transaction_first_offset`` is -1 while no transaction is open here.
    """

    __slots__ = ("batches", "coordinator_epoch", "epoch", "last_timestamp",
                 "transaction_first_offset")  # fmt: skip

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.batches: list[ProducedBatch] = []
        self.last_timestamp = -1
        self.coordinator_epoch = -1
        self.transaction_first_offset = -1


class SnapshotError(ValueError):
    """Bytes that are no producer snapshot."""


class ProducerTable:
    """All producers of one log that have not expired."""

    __slots__ = ("_producers",)

    def __init__(self) -> None:
        self._producers: dict[int, Producer] = {}

    def __len__(self) -> int:
        return len(self._producers)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProducerTable) and self.describe() == other.describe()

    __hash__ = None  # type: ignore[assignment]

    def describe(self) -> dict[int, tuple[int, tuple[ProducedBatch, ...], int]]:
        """Producer id to (epoch, batches, first offset of the open transaction or -1)."""
        return {
            producer_id: (p.epoch, tuple(p.batches), p.transaction_first_offset)
            for producer_id, p in sorted(self._producers.items())
        }

    @property
    def first_unstable_offset(self) -> int | None:
        """Where the oldest open transaction began; None while there is none."""
        offsets = [
            p.transaction_first_offset
            for p in self._producers.values()
            if p.transaction_first_offset >= 0
        ]
        return min(offsets, default=None)

    def check(self, header: BatchHeader) -> ProducedBatch | None:
        """May this batch of a client be appended? The earlier batch, if it is a retry of one.

        Raises:
            LogError: INVALID_PRODUCER_EPOCH for an epoch below the known one,
                OUT_OF_ORDER_SEQUENCE_NUMBER for a gap or a sequence long past.
        """
        producer = self._producers.get(header.producer_id)
        if producer is None:
            return None
        first = header.base_sequence
        if header.producer_epoch == producer.epoch:
            last = header.last_sequence
            for batch in reversed(producer.batches):
                if batch.first_sequence == first and batch.last_sequence == last:
                    return batch
            known = producer.batches[-1].last_sequence if producer.batches else NO_SEQUENCE
            expected = 0 if known == _LAST_SEQUENCE else known + 1
            if first == expected:
                return None
        elif header.producer_epoch < producer.epoch:
            raise LogError(
                ErrorCode.INVALID_PRODUCER_EPOCH,
                f"epoch {header.producer_epoch} of producer {header.producer_id} is smaller than "
                f"the last seen epoch {producer.epoch}",
            )
        elif first == 0:
            return None
        else:
            known, expected = NO_SEQUENCE, 0
        raise LogError(
            ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER,
            f"producer {header.producer_id} epoch {header.producer_epoch}: sequence {first} "
            f"where {expected} was expected (last seen {known})",
        )

    def update(self, header: BatchHeader, first_offset: int) -> None:
        """Take in a batch that was appended at ``first_offset`` (header checked, or replicated)."""
        producer = self._producers.get(header.producer_id)
        if producer is None:
            producer = self._producers[header.producer_id] = Producer(header.producer_epoch)
        elif header.producer_epoch != producer.epoch:
            producer.epoch = header.producer_epoch
            producer.batches.clear()
        producer.last_timestamp = max(producer.last_timestamp, header.max_timestamp)
        if header.is_control:
            producer.transaction_first_offset = -1
            return
        if header.is_transactional and producer.transaction_first_offset < 0:
            producer.transaction_first_offset = first_offset
        batches = producer.batches
        if len(batches) >= KEPT_BATCHES:
            del batches[0]
        batches.append(
            ProducedBatch(
                header.base_sequence,
                header.last_sequence,
                first_offset,
                first_offset + header.last_offset_delta,
                header.max_timestamp,
            )
        )

    def refill(self, header: BatchHeader) -> None:
        """Put back a batch from before a snapshot, which keeps only the last of each producer.

        Called for batches in order of offset; one that is not older than what is known is skipped.
        """
        producer = self._producers.get(header.producer_id)
        if producer is None or producer.epoch != header.producer_epoch or header.is_control:
            return
        batches = producer.batches
        if not batches or header.base_offset >= batches[-1].first_offset:
            return
        if len(batches) >= KEPT_BATCHES:
            del batches[0]
        batches.insert(
            len(batches) - 1,
            ProducedBatch(
                header.base_sequence,
                header.last_sequence,
                header.base_offset,
                header.last_offset,
                header.max_timestamp,
            ),
        )

    def expire(self, now_ms: int, expiration_ms: int) -> int:
        """Forget producers silent for ``expiration_ms``; returns how many."""
        gone = [
            producer_id
            for producer_id, p in self._producers.items()
            if p.transaction_first_offset < 0 and now_ms - p.last_timestamp >= expiration_ms
        ]
        for producer_id in gone:
            del self._producers[producer_id]
        return len(gone)

    def clear(self) -> None:
        self._producers.clear()

    def encode_snapshot(self) -> bytes:
        """Kafka's ``.snapshot`` file: version 1, CRC-32C, and the last batch of each producer."""
        body = bytearray(_SNAPSHOT_HEAD.size)
        for producer_id, p in sorted(self._producers.items()):
            last = p.batches[-1] if p.batches else None
            body += _SNAPSHOT_ENTRY.pack(
                producer_id,
                p.epoch,
                last.last_sequence if last else NO_SEQUENCE,
                last.last_offset if last else -1,
                last.last_offset - last.first_offset if last else 0,
                p.last_timestamp,
                p.coordinator_epoch,
                p.transaction_first_offset,
            )
        _SNAPSHOT_HEAD.pack_into(body, 0, _SNAPSHOT_VERSION, 0, len(self._producers))
        struct.pack_into(">I", body, 2, crc32c.crc32c(memoryview(body)[_CRC_END:]))
        return bytes(body)

    @classmethod
    def decode_snapshot(cls, data: bytes) -> ProducerTable:
        """Read ``encode_snapshot``'s form (or Kafka's).

        Raises:
            SnapshotError: torn, of an unknown version, or with a wrong checksum.
        """
        if len(data) < _SNAPSHOT_HEAD.size:
            raise SnapshotError("shorter than its header")
        version, crc, count = _SNAPSHOT_HEAD.unpack_from(data)
        if version != _SNAPSHOT_VERSION:
            raise SnapshotError(f"version {version} is not known")
        if len(data) != _SNAPSHOT_HEAD.size + count * _SNAPSHOT_ENTRY.size:
            raise SnapshotError(f"{count} entries do not fit {len(data)} bytes")
        if crc32c.crc32c(memoryview(data)[_CRC_END:]) != crc:
            raise SnapshotError("wrong checksum")
        table = cls()
        entries = memoryview(data)[_SNAPSHOT_HEAD.size :]
        for row in _SNAPSHOT_ENTRY.iter_unpack(entries):
            producer_id, epoch, sequence, offset, delta, timestamp, coordinator, first = row
            producer = table._producers[producer_id] = Producer(epoch)
            producer.last_timestamp = timestamp
            producer.coordinator_epoch = coordinator
            producer.transaction_first_offset = first
            if sequence != NO_SEQUENCE:
                first_sequence = sequence - delta
                if first_sequence < 0:  # the sequence wrapped inside the batch
                    first_sequence += _LAST_SEQUENCE + 1
                producer.batches.append(
                    ProducedBatch(first_sequence, sequence, offset - delta, offset, timestamp)
                )
        return table
