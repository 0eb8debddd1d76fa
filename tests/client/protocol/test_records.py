"""Record bytes pass through the codec as they are: not copied, not joined, writable."""

from __future__ import annotations

import uuid

import pytest

from pegel.protocol.codec import (
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    read_request_header,
)
from pegel.protocol.compiler import struct_codec
from pegel.protocol.fast import decode_produce
from pegel.protocol.messages.fetch import FetchableTopicResponse, FetchResponse, PartitionData
from pegel.protocol.messages.produce import (
    PartitionProduceData,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
)
from pegel.protocol.schema import Buffer, Records
from pegel.protocol.wire import Budget

TOPIC_ID = uuid.UUID(int=7)


def produce(records: Records, version: int) -> ProduceRequest:
    named = TopicProduceData(name="t") if version < 13 else TopicProduceData(topic_id=TOPIC_ID)
    named.partition_data = [PartitionProduceData(index=3, records=records)]
    return ProduceRequest(acks=-1, timeout_ms=30_000, topic_data=[named])


def fetched(records: Records, version: int) -> FetchResponse:
    topic = (
        FetchableTopicResponse(topic="t")
        if version < 13
        else FetchableTopicResponse(topic_id=TOPIC_ID)
    )
    topic.partitions = [
        PartitionData(
            partition_index=index, high_watermark=9, aborted_transactions=None, records=records
        )
        for index in range(2)
    ]
    return FetchResponse(responses=[topic])


@pytest.mark.parametrize("version", range(3, 14))
def test_produced_records_are_a_writable_view_of_the_frame(version: int) -> None:
    frame = bytearray(b"".join(encode_request(produce(b"batch" * 500, version), version, 1, "c")))
    view = memoryview(frame)[4:]
    request = decode_request(read_request_header(view), view)
    assert isinstance(request, ProduceRequest)
    records = request.topic_data[0].partition_data[0].records
    assert isinstance(records, memoryview)
    assert records.obj is frame
    records[:8] = b"\1" * 8
    assert b"\1" * 8 in frame


@pytest.mark.parametrize("version", range(4, 18))
def test_fetched_buffers_are_sent_as_they_are_and_read_as_one_view(version: int) -> None:
    pieces: list[Buffer] = [bytearray(2000), memoryview(b"x" * 3000), b"small"]
    buffers = encode_response(fetched(pieces, version), version, 5)
    for piece in pieces[:2]:
        assert sum(buffer is piece for buffer in buffers) == 2, "once per partition, no copy"
    frame = bytearray(b"".join(buffers))
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    response = decode_response(FetchResponse, version, memoryview(frame)[4:])
    for partition in response.responses[0].partitions:
        assert isinstance(partition.records, memoryview)
        assert partition.records.obj is frame
        assert partition.records == b"".join(pieces)


@pytest.mark.parametrize("version", range(9, 14))
def test_the_fast_path_reads_what_the_compiled_decoder_reads(version: int) -> None:
    """Also for every one-byte change: it answers the same or leaves the request alone."""
    message = produce(b"batch" * 60, version)
    frame = bytearray(b"".join(encode_request(message, version, 1, "c")))[4:]
    offset = read_request_header(memoryview(frame)).body_offset
    compiled = struct_codec(ProduceRequest, version).decode
    assert decode_produce(memoryview(frame), offset, version) == message
    for position in range(offset, len(frame)):
        for byte in (0, 1, 2, 0x7F, 0x80, 0xFF):
            broken = memoryview(bytearray(frame))
            broken[position] = byte
            fast = decode_produce(broken, offset, version)
            if fast is not None:
                assert compiled(broken, offset, Budget(10)) == (fast, len(broken))


@pytest.mark.parametrize("records", [None, b"", [], [b""]])
def test_null_and_empty_records(records: Records) -> None:
    for version in (3, 9, 13):
        view = memoryview(b"".join(encode_request(produce(records, version), version, 1, None)))[4:]
        request = decode_request(read_request_header(view), view)
        assert isinstance(request, ProduceRequest)
        read = request.topic_data[0].partition_data[0].records
        assert read is None if records is None else read == b""


def test_topic_ids_replace_names() -> None:
    frame = b"".join(encode_request(produce(b"", 13), 13, 1, None))
    assert TOPIC_ID.bytes in frame
    frame = b"".join(encode_response(fetched(b"", 13), 13, 1))
    assert TOPIC_ID.bytes in frame


def test_a_null_where_a_version_has_none_is_refused_by_the_sender() -> None:
    response = ProduceResponse()
    response.responses = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="cannot be null in version 9"):
        encode_response(response, 9, 1)
