"""A partition's log in memory that checks sequences as a broker does."""

from __future__ import annotations

from dataclasses import dataclass, field

from pegel.protocol.errors import ErrorCode
from pegel.protocol.schema import Buffer
from pegel.record import decode_batch, read_header
from pegel.record.batch import BatchHeader, check_batch, set_base_offset, set_leader_epoch

_REMEMBERED = 5


@dataclass
class ProducerState:
    epoch: int
    # First sequence, last sequence and base offset of the last batches.
    batches: list[tuple[int, int, int]] = field(default_factory=list)


@dataclass
class FakePartition:
    """``leader`` is a node id; ``batches`` are (header, bytes) with their final offsets."""

    leader: int
    leader_epoch: int = 0
    adding: tuple[int, ...] = ()  # replicas that a reassignment adds; not in sync yet
    log_start_offset: int = 0
    log_end_offset: int = 0
    max_message_bytes: int = 1 << 20
    batches: list[tuple[BatchHeader, bytes]] = field(default_factory=list)
    producers: dict[int, ProducerState] = field(default_factory=dict)

    def append(self, records: Buffer) -> tuple[ErrorCode, int]:
        """Error and base offset; a repeated batch gets its first answer."""
        batch = bytearray(records)
        header = read_header(batch)
        check_batch(batch, 0, header, client=True)
        assert header.size == len(batch)
        if len(batch) > self.max_message_bytes:
            return ErrorCode.MESSAGE_TOO_LARGE, -1
        offset = self.log_end_offset
        if header.has_producer_id:
            error, known = self._check_sequence(header, offset)
            if error or known >= 0:
                return error, known
        set_base_offset(batch, 0, offset)
        set_leader_epoch(batch, 0, self.leader_epoch)
        self.batches.append((read_header(batch), bytes(batch)))
        self.log_end_offset += header.record_count
        return ErrorCode.NONE, offset

    def _check_sequence(self, header: BatchHeader, offset: int) -> tuple[ErrorCode, int]:
        state = self.producers.get(header.producer_id)
        first, last = header.base_sequence, header.last_sequence
        if state is None:
            state = self.producers[header.producer_id] = ProducerState(header.producer_epoch)
        elif header.producer_epoch < state.epoch:
            return ErrorCode.INVALID_PRODUCER_EPOCH, -1
        elif header.producer_epoch > state.epoch:
            if first != 0:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
            state.epoch, state.batches = header.producer_epoch, []
        else:
            for known_first, known_last, known_offset in state.batches:
                if (first, last) == (known_first, known_last):
                    return ErrorCode.NONE, known_offset
            if state.batches and first != (state.batches[-1][1] + 1) & 0x7FFFFFFF:
                return ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1
        state.batches = [*state.batches[-_REMEMBERED + 1 :], (first, last, offset)]
        return ErrorCode.NONE, -1

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that holds ``offset``; at least one."""
        pieces: list[bytes] = []
        for header, data in self.batches:
            if header.next_offset <= offset:
                continue
            if pieces and max_bytes < len(data):
                break
            pieces.append(data)
            max_bytes -= len(data)
        return b"".join(pieces)

    def values(self) -> list[bytes | None]:
        """All values in the order of their offsets."""
        return [value for _, data in self.batches for value in decode_batch(data).values]

    def truncate(self, offset: int) -> None:
        """Lose the batches from ``offset`` on, as an unclean election would."""
        self.batches = [b for b in self.batches if b[0].next_offset <= offset]
        self.log_end_offset = self.batches[-1][0].next_offset if self.batches else 0

    def end_of_epoch(self, epoch: int) -> tuple[int, int]:
        """The largest epoch not above ``epoch`` and the offset behind it (KIP-101)."""
        if epoch > self.leader_epoch:
            return -1, -1
        found = [h for h, _ in self.batches if h.partition_leader_epoch <= epoch]
        later = [h for h, _ in self.batches if h.partition_leader_epoch > epoch]
        end = later[0].base_offset if later else self.log_end_offset
        return (found[-1].partition_leader_epoch if found else epoch), end
