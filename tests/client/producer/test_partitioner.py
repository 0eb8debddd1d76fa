"""Keys go where every Kafka client puts them."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from kafka.partitioner.default import murmur2 as kafka_murmur2

from pegel.producer.partitioner import KeyPartitioner, StickyPartitioner, murmur2

# From Apache Kafka's own UtilsTest, as signed numbers.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", VECTORS)
def test_murmur2_vectors_of_kafka(key: bytes) -> None:
    assert murmur2(key) == VECTORS[key] & 0xFFFFFFFF


def test_murmur2_as_another_client_computes_it() -> None:
    rng = random.Random(7)
    for length in range(64):
        key = rng.randbytes(length)
        assert murmur2(key) == kafka_murmur2(key) & 0xFFFFFFFF


def test_keys_are_remembered_up_to_a_bound() -> None:
    partitioner = KeyPartitioner()
    for i in range(40_000):
        key = b"%d" % i
        assert partitioner.partition(key, 7) == (murmur2(key) & 0x7FFFFFFF) % 7
    assert len(partitioner._hashes) <= 16384


def test_keyless_records_stay_until_a_batch_is_closed_and_visit_all() -> None:
    sticky = StickyPartitioner(random.Random(1))
    first = sticky.partition("t", 5)
    assert all(sticky.partition("t", 5) == first for _ in range(10))
    visits = Counter(sticky.switch("t", 5) for _ in range(50))
    assert set(visits) == set(range(5))
    assert max(visits.values()) - min(visits.values()) <= 1
