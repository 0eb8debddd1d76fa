"""Framing of write-ahead log records: 4-byte length, 4-byte CRC-32C, payload (big-endian).

The CRC covers the length as well, so a damaged length is not followed. Pure: bytes in and out.
"""

from __future__ import annotations

import struct

from crc32c import crc32c

from pegel_controller.raft.errors import RaftError

_HEADER = struct.Struct(">II")
HEADER_SIZE = _HEADER.size
RECORD_BYTES_MAX = 64 << 20
_HELP = (
    "Restore this node's `raft` directory from a copy, or, while a majority of the controllers is "
    "up, let it leave (`pegel cluster quorum remove`) and join anew with an empty one"
)


def frame(payload: bytes) -> bytes:
    """One record. Raises RaftError where ``payload`` is empty or above RECORD_BYTES_MAX."""
    if not 0 < len(payload) <= RECORD_BYTES_MAX:
        raise RaftError(f"a log record of {len(payload)} bytes is outside 1..{RECORD_BYTES_MAX}")
    length = len(payload).to_bytes(4, "big")
    return _HEADER.pack(len(payload), crc32c(payload, crc32c(length))) + payload


def _record_end(data: bytes, offset: int) -> int | None:
    """End of the whole, undamaged record at ``offset``, else None."""
    if offset + HEADER_SIZE > len(data):
        return None
    length, crc = _HEADER.unpack_from(data, offset)
    end = offset + HEADER_SIZE + length
    if not 0 < length <= RECORD_BYTES_MAX or end > len(data):
        return None
    payload = memoryview(data)[offset + HEADER_SIZE : end]
    return end if crc32c(payload, crc32c(data[offset : offset + 4])) == crc else None


def scan(data: bytes, name: str, *, last_segment: bool) -> tuple[list[bytes], int]:
    """Payloads of a segment, and the size of its valid prefix (what is behind is a torn tail).

    A torn tail is legal only at the end of the last segment, with no whole record behind it;
    anything else could be synced, hence acknowledged, data.

    Raises:
        RaftError: damage in the middle; names the file and the offset.
    """
    payloads: list[bytes] = []
    offset = 0
    while offset < len(data):
        end = _record_end(data, offset)
        if end is None:
            break
        payloads.append(data[offset + HEADER_SIZE : end])
        offset = end
    if offset < len(data):
        later = any(_record_end(data, at) is not None for at in range(offset + 1, len(data)))
        if later or not last_segment:
            raise RaftError(
                f"the metadata log's {name} is damaged at offset {offset}, in bytes: refusing to "
                f"cut what follows. {_HELP}"
            )
    return payloads, offset
