"""Zig-zag variable-length integers, the number format inside a record (KIP-98)."""

from __future__ import annotations

# Most lengths and deltas in a batch are below this, so that encoding them is one look-up.
TABLE_SIZE = 16_384


def encode(value: int) -> bytes:
    """``value``, zig-zag folded, low seven bits first."""
    folded = (value << 1) ^ (value >> 63)
    out = bytearray()
    while folded > 0x7F:
        out.append((folded & 0x7F) | 0x80)
        folded >>= 7
    out.append(folded)
    return bytes(out)


def size(value: int) -> int:
    """Bytes that ``encode(value)`` takes."""
    folded = (value << 1) ^ (value >> 63)
    return max(1, (folded.bit_length() + 6) // 7)


class VarintTable(dict[int, bytes]):
    """Encodings by value; keeps those below ``TABLE_SIZE``, so it cannot grow without bound."""

    def __missing__(self, value: int) -> bytes:
        encoded = encode(value)
        if 0 <= value < TABLE_SIZE:
            self[value] = encoded
        return encoded


VARINTS = VarintTable({-1: encode(-1)})


def decode(buffer: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number at ``position`` and the position behind it.

    Raises:
        IndexError: the buffer ends inside the number.
        ValueError: longer than the ten bytes that 64 bits can take.
    """
    byte = buffer[position]
    if byte < 0x80:
        return (byte >> 1) ^ -(byte & 1), position + 1
    folded = byte & 0x7F
    byte = buffer[position + 1]
    if byte < 0x80:  # most lengths of keys and values
        folded |= byte << 7
        return (folded >> 1) ^ -(folded & 1), position + 2
    for shift in range(7, 70, 7):
        position += 1
        byte = buffer[position]
        folded |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (folded >> 1) ^ -(folded & 1), position + 1
    raise ValueError("a variable-length integer is longer than ten bytes")
