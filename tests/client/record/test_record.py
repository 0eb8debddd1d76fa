"""Record batches against another implementation, and under damage."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from pegel.protocol.errors import ErrorCode
from pegel.record import Codec, CorruptBatchError, check_batch, decode_batch, encode_batch
from pegel.record import batch as b
from pegel.record.compression import compress, decompress
from pegel.record.decode import count_records
from pegel.record.varint import decode, encode, size

VALUES = [b"first", b"", None, b"x" * 200, b"last"]
KEYS = [b"k", None, b"", b"key" * 50, b"k"]
HEADERS = [[], [("trace", b"1")], [("a", None), ("b", b"")], [], [("ü", b"\xff" * 90)]]
TIMES = [1_000, 1_500, 900, 1_000_000, 1_000]

CODECS = list(Codec)


@pytest.mark.parametrize("codec", CODECS)
def test_kafka_python_reads_what_is_encoded(codec: Codec) -> None:
    data = encode_batch(
        VALUES, keys=KEYS, headers=HEADERS, timestamps=TIMES, codec=codec, producer_id=7,
        producer_epoch=3, base_sequence=11,
    )  # fmt: skip
    other = DefaultRecordBatch(bytes(data))
    assert other.validate_crc()
    assert (other.producer_id, other.producer_epoch, other.base_sequence) == (7, 3, 11)
    records = list(other)
    assert [r.value for r in records] == VALUES
    assert [r.key for r in records] == KEYS
    assert [[tuple(h) for h in r.headers] for r in records] == HEADERS
    assert [r.timestamp for r in records] == TIMES
    assert [r.offset for r in records] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("codec", CODECS)
def test_what_kafka_python_encodes_is_read(codec: Codec) -> None:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=9, producer_epoch=1,
        base_sequence=0, batch_size=1 << 20,
    )  # fmt: skip
    for i, (key, value, headers) in enumerate(zip(KEYS, VALUES, HEADERS, strict=True)):
        builder.append(i, TIMES[i], key, value, headers)
    data = builder.build()
    columns = decode_batch(data)
    assert columns.values == VALUES
    assert columns.keys == KEYS
    assert [list(h) for h in columns.headers] == HEADERS
    assert columns.timestamps == TIMES
    assert columns.header.max_timestamp == max(TIMES)


@pytest.mark.parametrize("count", [1, 63, 64, 65, 8191, 8192, 8193, 20_000])
def test_plain_records_of_any_number(count: int) -> None:
    values = [b"v" * (i % 150) for i in range(count)]
    data = encode_batch(values, timestamps=5)
    assert bytes(data) == bytes(encode_batch(values, keys=[None] * count, timestamps=5))
    columns = decode_batch(data)
    assert columns.values == values
    assert columns.offsets == list(range(count))


@pytest.mark.parametrize("length", [0, 55, 56, 57, 58, 63, 64, 8_000, 8_192, 20_000, 1 << 21])
def test_plain_values_of_any_length(length: int) -> None:
    assert decode_batch(encode_batch([b"v" * length], timestamps=5)).values == [b"v" * length]


def test_offsets_epochs_and_append_time_are_set_in_place() -> None:
    data = encode_batch(VALUES[:2], timestamps=[1, 2], producer_id=1, producer_epoch=0,
                        base_sequence=b.MAX_SEQUENCE)  # fmt: skip
    b.set_base_offset(data, 0, 1 << 40)
    b.set_leader_epoch(data, 0, 77)
    header = b.read_header(data)
    check_batch(data, 0, header)
    assert (header.base_offset, header.next_offset) == (1 << 40, (1 << 40) + 2)
    assert header.partition_leader_epoch == 77
    assert header.last_sequence == 0
    b.set_log_append_time(data, 0, 123_456)
    columns = decode_batch(data)
    assert columns.timestamps == [123_456, 123_456]
    assert columns.offsets == [1 << 40, (1 << 40) + 1]


def test_batches_are_walked_without_their_torn_end() -> None:
    one, two = encode_batch([b"1"], timestamps=0), encode_batch([b"2", b"3"], timestamps=0)
    data = bytes(one + two + two[:-1])
    assert [(p, h.record_count) for p, h in b.iter_batches(data)] == [(0, 1), (len(one), 2)]
    assert b.whole_batches_size(data) == len(one) + len(two)


def _broken(mutate: str) -> bytearray:
    codec = Codec.GZIP if mutate == "compressed offset" else Codec.NONE
    data = encode_batch([b"a", b"b"], timestamps=0, producer_id=1, producer_epoch=0,
                        base_sequence=0, codec=codec)  # fmt: skip

    def put(at: int, value: int, width: int) -> None:
        data[at : at + width] = (value % (1 << (8 * width))).to_bytes(width, "big")

    match mutate:
        case "magic":
            put(16, 1, 1)
        case "crc":
            data[-1] ^= 1
            return data
        case "count":
            put(57, 3, 4)
        case "huge count":
            put(57, 1 << 30, 4)
            put(23, (1 << 30) - 1, 4)
        case "codec":
            put(21, 7, 2)
        case "compressed offset":
            put(0, 5, 8)
        case "control":
            put(21, 0x20, 2)
        case "sequence":
            put(53, -1, 4)
        case "length":
            put(8, 10, 4)
            return data
        case "too long":
            put(8, 1_000, 4)
            return data
    put(17, b.compute_crc(data, 0, len(data)), 4)
    return data


@pytest.mark.parametrize(
    ("mutate", "code"),
    [
        ("magic", ErrorCode.INVALID_RECORD),
        ("crc", ErrorCode.CORRUPT_MESSAGE),
        ("count", ErrorCode.INVALID_RECORD),
        ("huge count", ErrorCode.INVALID_RECORD),
        ("codec", ErrorCode.INVALID_RECORD),
        ("compressed offset", ErrorCode.INVALID_RECORD),
        ("control", ErrorCode.INVALID_RECORD),
        ("sequence", ErrorCode.INVALID_RECORD),
        ("length", ErrorCode.CORRUPT_MESSAGE),
        ("too long", ErrorCode.CORRUPT_MESSAGE),
    ],
)
def test_a_broken_batch_is_refused_with_its_code(mutate: str, code: ErrorCode) -> None:
    data = _broken(mutate)
    with pytest.raises(CorruptBatchError) as caught:
        check_batch(data, 0, b.read_header(data), client=True)
    assert caught.value.code == code
    assert str(caught.value)


def test_the_records_that_are_there_are_counted() -> None:
    for codec in CODECS:
        data = encode_batch([b"a", b"b", b"c"], timestamps=0, codec=codec)
        assert count_records(data, 0, b.read_header(data)) == 3


@pytest.mark.parametrize("codec", CODECS[1:])
def test_a_bomb_ends_at_the_limit(codec: Codec) -> None:
    bomb = bytes(compress(codec, bytes(32 << 20)))
    with pytest.raises(CorruptBatchError) as caught:
        decompress(codec, bomb, 1 << 20)
    assert caught.value.code == ErrorCode.MESSAGE_TOO_LARGE
    assert len(decompress(codec, bomb, 32 << 20)) == 32 << 20


def test_raw_snappy_is_read_too() -> None:
    import cramjam

    raw = bytes(cramjam.snappy.compress_raw(b"abc" * 1000))
    assert bytes(decompress(Codec.SNAPPY, raw, 10_000)) == b"abc" * 1000


@pytest.mark.parametrize("codec", CODECS)
def test_damage_anywhere_ends_in_one_error(codec: Codec) -> None:
    whole = encode_batch(VALUES, keys=KEYS, headers=HEADERS, timestamps=TIMES, codec=codec)
    rng = random.Random(codec)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(b.HEADER_SIZE, len(data))] = rng.randrange(256)
        try:
            decode_batch(data, max_bytes=1 << 20, check=False)
            count_records(data, 0, b.read_header(data), max_bytes=1 << 20)
        except CorruptBatchError:
            pass


@given(st.binary(max_size=300))
def test_arbitrary_bytes_end_in_one_error(data: bytes) -> None:
    for check in (True, False):
        with pytest.raises(CorruptBatchError):
            decode_batch(data + b"\x01", check=check)


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_variable_length_integers_round_trip(value: int) -> None:
    data = encode(value)
    assert decode(data, 0) == (value, len(data))
    assert size(value) == len(data)
