import pytest

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.wal_format import HEADER_SIZE, RECORD_BYTES_MAX, frame, scan

PAYLOADS = [b"first", b"second record", b"third", b"the last one"]
DATA = b"".join(frame(p) for p in PAYLOADS)
LAST_TWO = sum(len(frame(p)) for p in PAYLOADS[:2])


def test_every_cut_in_the_last_two_records_leaves_the_longest_valid_prefix() -> None:
    for size in range(LAST_TWO, len(DATA) + 1):
        payloads, valid = scan(DATA[:size], "wal", last_segment=True)
        assert payloads == PAYLOADS[: len(payloads)]
        assert valid == sum(len(p) + HEADER_SIZE for p in payloads) <= size
        assert len(payloads) == 2 + (size >= LAST_TWO + len(frame(b"third"))) + (size == len(DATA))


def test_every_bit_flip_before_the_last_record_is_refused() -> None:
    last = len(DATA) - len(frame(PAYLOADS[-1]))
    for at in range(last):
        for bit in range(8):
            damaged = bytearray(DATA)
            damaged[at] ^= 1 << bit
            with pytest.raises(RaftError, match=r"wal is damaged at offset \d+"):
                scan(bytes(damaged), "wal", last_segment=True)


def test_a_torn_tail_is_refused_in_a_segment_that_is_not_the_last() -> None:
    with pytest.raises(RaftError, match="damaged"):
        scan(DATA[:-1], "wal", last_segment=False)


def test_record_size_is_bounded() -> None:
    for payload in (b"", bytes(RECORD_BYTES_MAX + 1)):
        with pytest.raises(RaftError, match="outside"):
            frame(payload)
