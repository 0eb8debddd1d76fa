"""Which partition of an internal topic coordinates a key: Kafka's rule, so that tools agree."""

from __future__ import annotations


def java_string_hash(text: str) -> int:
    """``String.hashCode`` of Java: over UTF-16 units, 32 bits, signed."""
    value = 0
    encoded = text.encode("utf-16-be", "surrogatepass")
    for high, low in zip(encoded[::2], encoded[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    return value - (1 << 32) if value >= 1 << 31 else value


def partition_for(key: str, partitions: int) -> int:
    """The partition of ``__consumer_offsets`` or ``__transaction_state`` for a group or an id."""
    value = java_string_hash(key)
    # Kafka's Utils.abs: the one number without a positive counterpart counts as 0.
    return (0 if value == -(1 << 31) else abs(value)) % partitions
