"""The Java library reads only LZ4 frames of independent blocks."""

from __future__ import annotations

import lz4.frame
import pytest

from pegel.record.compression import Codec, compress, decompress


@pytest.mark.parametrize("size", [1, 1000, 300_000])
def test_blocks_are_independent(size: int) -> None:
    data = (b"level %d of the gauge " % size) * (size // 20 + 1)
    frame = bytes(compress(Codec.LZ4, data))
    assert not lz4.frame.get_frame_info(frame)["block_linked"]
    assert lz4.frame.decompress(frame) == data
    assert bytes(decompress(Codec.LZ4, frame, len(data))) == data
