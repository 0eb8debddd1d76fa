"""The pure parts: epochs, producers, indexes, checkpoint texts, retention."""

from __future__ import annotations

import random
import uuid

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.record.batch import BatchHeader
from pegel_broker.log import LogError, checkpoints
from pegel_broker.log.index import SegmentIndex, find_position, find_time
from pegel_broker.log.leader_epochs import LeaderEpochs
from pegel_broker.log.producer_state import ProducerTable, SnapshotError
from pegel_broker.log.retention import SegmentFacts, expired_segments

LAST = 2**31 - 1


def _header(sequence: int, count: int = 1, *, epoch: int = 0, offset: int = 0) -> BatchHeader:
    return BatchHeader(offset, 100, 0, 2, 0, 0, count - 1, 0, 1000, 7, epoch, sequence, count)


def test_epochs_answer_as_kip_279_says() -> None:
    epochs = LeaderEpochs([(2, 0), (5, 10), (9, 30)])
    answers = {1: (1, 0), 2: (2, 10), 4: (2, 10), 5: (5, 30), 8: (5, 30), 9: (9, 44),
               10: (-1, -1), -1: (-1, -1)}  # fmt: skip
    assert {e: epochs.end_offset_for(e, 44) for e in answers} == answers
    assert [epochs.epoch_for(o) for o in (0, 9, 10, 29, 30, 99)] == [2, 2, 5, 5, 9, 9]
    epochs.truncate_from_start(12)
    assert epochs.entries() == [(5, 12), (9, 30)]
    epochs.truncate_from_end(30)
    assert epochs.entries() == [(5, 12)]
    epochs.assign(6, 12)  # an epoch without a record gives way
    epochs.assign(6, 40)
    assert epochs.entries() == [(6, 12)]
    epochs.assign(8, 50)  # led without a write, and then copied one of before
    epochs.assign(6, 50)
    assert epochs.entries() == [(6, 12)]


def test_a_retry_of_one_of_the_last_five_batches_is_known() -> None:
    table = ProducerTable()
    for number in range(7):
        header = _header(2 * number, 2)
        assert table.check(header) is None
        table.update(header, 100 + 2 * number)
    for number in range(2, 7):
        earlier = table.check(_header(2 * number, 2))
        assert earlier is not None
        assert (earlier.first_offset, earlier.last_offset) == (100 + 2 * number, 101 + 2 * number)
    for sequence, count in ((2, 2), (16, 2), (12, 1), (13, 1)):
        with pytest.raises(LogError) as caught:
            table.check(_header(sequence, count))
        assert caught.value.code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


def test_epochs_of_producers_only_rise_and_start_at_zero() -> None:
    table = ProducerTable()
    table.update(_header(0, epoch=3), 0)
    with pytest.raises(LogError) as caught:
        table.check(_header(1, epoch=2))
    assert caught.value.code == ErrorCode.INVALID_PRODUCER_EPOCH
    with pytest.raises(LogError):
        table.check(_header(1, epoch=4))
    assert table.check(_header(0, epoch=4)) is None


@pytest.mark.parametrize("first", [LAST, LAST - 1, LAST - 2])
def test_sequences_wrap_after_the_largest(first: int) -> None:
    table = ProducerTable()
    table.update(_header(first, 3), 10)
    following = (first + 3) & LAST
    assert table.check(_header(following)) is None
    again = ProducerTable.decode_snapshot(table.encode_snapshot())
    assert again == table
    assert again.check(_header(first, 3)) is not None


def test_a_snapshot_with_any_flipped_bit_or_cut_is_refused() -> None:
    table = ProducerTable()
    table.update(_header(5, 3), 10)
    data = table.encode_snapshot()
    for position in range(len(data)):
        broken = bytearray(data)
        broken[position] ^= 0x10
        for bad in (bytes(broken), data[:position]):
            with pytest.raises(SnapshotError):
                ProducerTable.decode_snapshot(bad)


def test_producers_expire() -> None:
    table = ProducerTable()
    table.update(_header(0), 0)
    assert table.expire(1999, 1000) == 0
    assert table.expire(2000, 1000) == 1
    assert table.check(_header(77)) is None


@pytest.mark.parametrize("seed", range(20))
def test_index_look_up_equals_a_linear_scan(seed: int) -> None:
    rng = random.Random(seed)
    index = SegmentIndex()
    batches = []
    offset = position = 0
    timestamp = 1000
    for _ in range(rng.randint(0, 200)):
        last = offset + rng.randint(0, 9)
        size = rng.randint(61, 900)
        timestamp += rng.randint(-20, 30)
        index.add(last, position, size, timestamp, 500)
        batches.append((offset, last, position, timestamp))
        offset, position = last + 1, position + size
    for _ in range(50):
        target = rng.randint(0, offset)
        found = find_position(index.offsets, target)
        holder = next((p for _f, last, p, _t in batches if last >= target), position)
        assert found <= holder
        assert holder - found <= 500 + 2 * 900
    for _ in range(50):
        target = rng.randint(900, timestamp + 100)
        start = find_position(index.offsets, find_time(index.times, target))
        first = next((p for _f, _l, p, t in batches if t >= target), None)
        assert first is None or start <= first


def test_checkpoints_have_kafkas_text() -> None:
    rows = [("a.b", 0, 5), ("t-1", 12, 2**40)]
    data = checkpoints.encode_offsets(rows)
    assert data == b"0\n2\na.b 0 5\nt-1 12 1099511627776\n"
    assert checkpoints.decode_offsets(data) == {("a.b", 0): 5, ("t-1", 12): 2**40}
    assert checkpoints.encode_epochs([(3, 9)]) == b"0\n1\n3 9\n"
    topic_id = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
    metadata = checkpoints.encode_partition_metadata(topic_id)
    assert metadata == b"version: 0\ntopic_id: ABEiM0RVZneImaq7zN3u_w"
    assert checkpoints.decode_partition_metadata(metadata) == topic_id
    properties = {"cluster.id": "a=b:c#d e!\\", "version": "1"}
    assert checkpoints.decode_properties(checkpoints.encode_properties(properties)) == properties
    for bad in (b"", b"1\n0\n", b"0\n2\nt 0 1\n", b"0\n1\nt 0\n", b"0\n1\nt 0 x\n", b"\xff\xfe"):
        with pytest.raises(checkpoints.CheckpointError):
            checkpoints.decode_offsets(bad)


def test_retention_by_age_size_and_log_start() -> None:
    facts = [SegmentFacts(10 * (n + 1), 100, 1000 * n) for n in range(5)]

    def expired(**more: int) -> int:
        settings = {"now_ms": 5000, "log_start_offset": 0, "high_watermark": 50,
                    "retention_ms": -1, "retention_bytes": -1} | more  # fmt: skip
        return expired_segments(facts, **settings)

    assert expired() == 0
    assert expired(retention_ms=2500) == 3
    assert expired(retention_ms=0) == 5
    assert expired(retention_ms=0, high_watermark=29) == 2
    assert expired(retention_bytes=250) == 2
    assert expired(retention_bytes=0) == 5
    assert expired(log_start_offset=25) == 2
