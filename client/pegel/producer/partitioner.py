"""Which partition a record goes to: by key as every Kafka client does it, else sticky.

The hash is Kafka's own variant of murmur2 (``Utils.murmur2``), so that a key written by any
client of any language is in the same partition.
"""

from __future__ import annotations

import random

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF
# Keys whose hash is remembered: hashing in Python costs microseconds, and keys repeat.
_REMEMBERED_KEYS = 16384


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2, as an unsigned number."""
    length = len(data)
    h = (_SEED ^ length) & _MASK
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * _M & _MASK
        k = (k ^ (k >> 24)) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if whole != length:
        h = (h ^ int.from_bytes(data[whole:], "little")) * _M & _MASK
    h = (h ^ (h >> 13)) * _M & _MASK
    return h ^ (h >> 15)


class KeyPartitioner:
    """Hashes of keys, remembered up to a bound."""

    def __init__(self) -> None:
        self._hashes: dict[bytes, int] = {}

    def partition(self, key: bytes, partitions: int) -> int:
        """The partition of ``key`` among ``partitions``."""
        hashed = self._hashes.get(key)
        if hashed is None:
            if len(self._hashes) >= _REMEMBERED_KEYS:
                self._hashes.clear()
            hashed = murmur2(key) & 0x7FFFFFFF
            self._hashes[key] = hashed
        return hashed % partitions


class StickyPartitioner:
    """Records without a key fill one partition's batch, then go on with another (KIP-480).

    Partitions are visited in a shuffled round, so that each gets its share.
    """

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self._rounds: dict[str, list[int]] = {}
        self._current: dict[str, int] = {}

    def partition(self, topic: str, partitions: int) -> int:
        """The partition that is filled now."""
        current = self._current.get(topic)
        if current is None or current >= partitions:
            return self.switch(topic, partitions)
        return current

    def switch(self, topic: str, partitions: int) -> int:
        """Go on with another partition: the batch of the current one was closed."""
        rest = [p for p in self._rounds.get(topic, ()) if p < partitions]
        if not rest:
            rest = list(range(partitions))
            self._random.shuffle(rest)
        self._current[topic] = rest.pop()
        self._rounds[topic] = rest
        return self._current[topic]
