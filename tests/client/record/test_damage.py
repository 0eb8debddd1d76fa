"""A reader trusts no record that its checksum does not cover."""

from __future__ import annotations

import pytest

from pegel.record.batch import CorruptBatchError
from pegel.record.decode import decode_batch
from pegel.record.encode import encode_batch


def test_a_damaged_record_is_refused_by_its_reader() -> None:
    batch = encode_batch([b"value"], timestamps=1_000)
    assert decode_batch(batch).values == [b"value"]
    batch[batch.index(b"value")] ^= 1  # still a record, and another one
    with pytest.raises(CorruptBatchError):
        decode_batch(batch)
