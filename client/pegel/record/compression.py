"""Compression of the records section of a batch, by kept libraries; output is always bounded."""

from __future__ import annotations

import zlib
from enum import IntEnum
from typing import Protocol

import cramjam

from pegel.protocol.errors import ErrorCode

Buffer = bytes | bytearray | memoryview

# Stream header of the Java snappy library: magic, version 1, readable by version 1.
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = _XERIAL_MAGIC + b"\x00\x00\x00\x01\x00\x00\x00\x01"
_XERIAL_BLOCK_BYTES = 32 * 1024
_FIRST_GUESS_BYTES = 64 * 1024
# A gzip stream may have several members (RFC 1952) and Java reads them all. Each costs a copy of
# what follows it, so that their number has a limit.
_MAX_GZIP_MEMBERS = 64


class Codec(IntEnum):
    """The low three bits of a batch's attributes."""

    NONE = 0
    GZIP = 1
    SNAPPY = 2
    LZ4 = 3
    ZSTD = 4


class CorruptBatchError(ValueError):
    """A record batch that breaks the format. ``code`` is what a broker answers."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class _Decompress(Protocol):
    def __call__(self, data: Buffer, output: bytearray, /) -> int: ...


def _corrupt(codec: Codec, reason: object) -> CorruptBatchError:
    return CorruptBatchError(ErrorCode.CORRUPT_MESSAGE, f"{codec.name.lower()} records: {reason}")


def _too_large(codec: Codec, max_bytes: int) -> CorruptBatchError:
    return CorruptBatchError(
        ErrorCode.MESSAGE_TOO_LARGE,
        f"{codec.name.lower()} records decompress to more than {max_bytes} bytes",
    )


def compress(codec: Codec, data: Buffer, level: int | None = None) -> Buffer:
    """``data`` compressed; ``level`` in the codec's own scale, ``None`` for its default."""
    if codec is Codec.GZIP:
        deflate = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, 31)
        return deflate.compress(data) + deflate.flush()
    if codec is Codec.SNAPPY:
        return _compress_snappy(data)
    if codec is Codec.LZ4:
        # Independent blocks: the Java library refuses frames whose blocks refer to earlier ones.
        # Level 1 is the fast compressor, as in Java; this library would take a slow one (4).
        frame = cramjam.lz4.Compressor(
            level=1 if level is None else level, content_checksum=False, block_linked=False
        )
        frame.compress(data)
        return memoryview(frame.finish())
    if codec is Codec.ZSTD:
        return memoryview(cramjam.zstd.compress(data, level=3 if level is None else level))
    return data


def decompress(codec: Codec, data: Buffer, max_bytes: int) -> bytes | bytearray | memoryview:
    """The records section, at most ``max_bytes`` long; memory stays within twice that.

    Raises:
        CorruptBatchError: damaged (CORRUPT_MESSAGE), or larger than allowed (MESSAGE_TOO_LARGE).
    """
    if codec is Codec.NONE:
        return data
    if codec is Codec.GZIP:
        return _decompress_gzip(data, max_bytes)
    if codec is Codec.SNAPPY:
        return _decompress_snappy(data, max_bytes)
    into = cramjam.lz4.decompress_into if codec is Codec.LZ4 else cramjam.zstd.decompress_into
    return _decompress_growing(codec, into, data, max_bytes)


def _decompress_growing(
    codec: Codec, into: _Decompress, data: Buffer, max_bytes: int
) -> memoryview:
    # These formats need not state their size, so the room doubles until the records fit.
    room = min(max_bytes, max(_FIRST_GUESS_BYTES, 6 * len(data)))
    while True:
        output = bytearray(room)
        try:
            return memoryview(output)[: into(data, output)]
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise _corrupt(codec, error) from None
        if room >= max_bytes:
            raise _too_large(codec, max_bytes)
        room = min(max_bytes, 4 * room)


def _decompress_gzip(data: Buffer, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    left, rest = max_bytes, data
    for _ in range(_MAX_GZIP_MEMBERS):
        inflate = zlib.decompressobj(31)
        try:
            pieces.append(inflate.decompress(rest, left + 1))
        except zlib.error as error:
            raise _corrupt(Codec.GZIP, error) from None
        left -= len(pieces[-1])
        if left < 0:
            raise _too_large(Codec.GZIP, max_bytes)
        if not inflate.eof:
            raise _corrupt(Codec.GZIP, "the stream ends early")
        rest = inflate.unused_data
        if not rest:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    raise _corrupt(Codec.GZIP, f"more than {_MAX_GZIP_MEMBERS} members")


def _compress_snappy(data: Buffer) -> bytes:
    view = memoryview(data)
    pieces: list[bytes] = [_XERIAL_HEADER]
    for start in range(0, len(view), _XERIAL_BLOCK_BYTES):
        block = bytes(cramjam.snappy.compress_raw(view[start : start + _XERIAL_BLOCK_BYTES]))
        pieces += (len(block).to_bytes(4, "big"), block)
    return b"".join(pieces)


def _decompress_snappy(data: Buffer, max_bytes: int) -> bytes:
    """Java's framing, or one raw block as other clients write it."""
    view = memoryview(data)
    if view[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC:
        return _snappy_block(view, max_bytes, max_bytes)
    pieces: list[bytes] = []
    left, position = max_bytes, len(_XERIAL_HEADER)
    while position < len(view):
        size = int.from_bytes(view[position : position + 4], "big")
        position += 4
        if size > len(view) - position:
            raise _corrupt(Codec.SNAPPY, "a block ends behind the batch")
        pieces.append(_snappy_block(view[position : position + size], left, max_bytes))
        left -= len(pieces[-1])
        position += size
    return b"".join(pieces)


def _snappy_block(block: memoryview, left: int, max_bytes: int) -> bytes:
    try:
        # The block states its size; a lie is found by the decompression.
        if cramjam.snappy.decompress_raw_len(block) > left:
            raise _too_large(Codec.SNAPPY, max_bytes)
        return bytes(cramjam.snappy.decompress_raw(block))
    except cramjam.DecompressionError as error:
        raise _corrupt(Codec.SNAPPY, error) from None
