"""Runs of alike records are read as the plain decoder reads them, and so is what is none."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegel.record import CorruptBatchError, decode_batch, encode_batch
from pegel.record import decode as decoding
from pegel.record.decode import RecordColumns


def _plainly(data: bytes, monkeypatch: pytest.MonkeyPatch) -> RecordColumns:
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "read_run", lambda *_: None)
        return decode_batch(data)


stretches = st.lists(
    st.tuples(
        st.integers(1, 90),  # records alike
        st.one_of(st.none(), st.integers(0, 200)),  # size of the key
        st.one_of(st.none(), st.integers(0, 200)),  # size of the value
        st.integers(-(2**40), 2**40),  # first time
        st.sampled_from([0, 1, 7, -3, 5000]),  # time step
        st.booleans(),  # headers
    ),
    min_size=1,
    max_size=5,
)


@given(stretches)
@settings(max_examples=150)
def test_the_same_columns_as_record_by_record(plan: list[tuple[int, ...]]) -> None:
    values: list[bytes | None] = []
    keys: list[bytes | None] = []
    times: list[int] = []
    headers: list[tuple[tuple[str, bytes | None], ...]] = []
    for count, key, value, time, step, with_headers in plan:
        for i in range(count):
            keys.append(None if key is None else bytes([i % 256]) * key)
            values.append(None if value is None else bytes([(i * 7) % 256]) * value)
            times.append(time + i * step)
            headers.append((("h", b"1"),) if with_headers else ())
    data = bytes(encode_batch(values, keys=keys, timestamps=times, headers=headers))
    with pytest.MonkeyPatch.context() as monkeypatch:
        expected = _plainly(data, monkeypatch)
    assert decode_batch(data) == expected
    assert expected.values == values
    assert expected.timestamps == times


@pytest.mark.parametrize("count", [63, 64, 65, 8191, 8192, 8193, 70_000])
def test_where_the_offset_delta_grows_by_a_byte(count: int) -> None:
    values: list[bytes | None] = [b"%08d" % i for i in range(count)]
    columns = decode_batch(bytes(encode_batch(values, timestamps=5)))
    assert columns.values == values
    assert columns.offsets == list(range(count))
    assert columns.timestamps == [5] * count


def test_one_byte_changed_anywhere_is_read_as_by_the_plain_decoder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(1)
    data = bytearray(encode_batch([b"%04d" % i for i in range(80)], timestamps=1000))
    for _ in range(600):
        changed = bytearray(data)
        changed[rng.randrange(61, len(data))] ^= 1 << rng.randrange(8)
        outcomes: list[object] = []
        for plainly in (True, False):
            with monkeypatch.context() as patch:
                if plainly:
                    patch.setattr(decoding, "read_run", lambda *_: None)
                try:
                    outcomes.append(decode_batch(bytes(changed), check=False))
                except CorruptBatchError:
                    outcomes.append("corrupt")
        assert outcomes[0] == outcomes[1]
