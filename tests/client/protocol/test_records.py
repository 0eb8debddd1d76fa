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
from pegel.protocol.fast import (
    decode_produce,
    decode_produce_response,
    encode_produce,
    encode_produce_response,
)
from pegel.protocol.messages.fetch import FetchableTopicResponse, FetchResponse, PartitionData
from pegel.protocol.messages.produce import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceData,
    TopicProduceResponse,
)
from pegel.protocol.schema import Buffer, Records
from pegel.protocol.wire import Budget, Writer

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


@pytest.mark.parametrize("version", range(9, 14))
@pytest.mark.parametrize("size", [0, 1, 126, 127, 1000, 1024, 70_000])
def test_the_fast_path_writes_what_the_compiled_encoder_writes(version: int, size: int) -> None:
    message = produce(b"x" * size, version)
    writer = Writer()
    writer.buffer += bytes(4) + b"\0\0" + version.to_bytes(2, "big") + b"\0\0\0\5\0\1c\0"
    struct_codec(ProduceRequest, version).encode(message, writer)
    fast = encode_produce(message, version, 5, b"c")
    assert fast is not None
    assert b"".join(fast) == b"".join(writer.finish())


def produced(version: int, **fields: object) -> ProduceResponse:
    topic = TopicProduceResponse(name="t") if version < 13 else TopicProduceResponse()
    if version >= 13:
        topic.topic_id = TOPIC_ID
    answer = PartitionProduceResponse(index=3, error_code=7, base_offset=1 << 40)
    for name, value in fields.items():
        setattr(answer, name, value)
    topic.partition_responses = [answer]
    return ProduceResponse(responses=[topic], throttle_time_ms=9)


@pytest.mark.parametrize("version", range(9, 14))
def test_the_fast_path_of_a_produce_response_agrees_with_the_compiled_coder(version: int) -> None:
    message = produced(version)
    codec = struct_codec(ProduceResponse, version)
    writer = Writer()
    writer.buffer += bytes(4) + (5).to_bytes(4, "big") + b"\0"
    codec.encode(message, writer)
    frame = b"".join(writer.finish())
    fast = encode_produce_response(message, version, 5)
    assert fast is not None
    assert b"".join(fast) == frame
    body = bytearray(frame[4:])
    assert decode_produce_response(memoryview(body), version) == message
    for position in range(4, len(body)):
        for byte in (0, 1, 2, 0x7F, 0x80, 0xFF):
            broken = memoryview(bytearray(body))
            broken[position] = byte
            read = decode_produce_response(broken, version)
            if read is not None:
                assert codec.decode(broken, 5, Budget(10)) == (read, len(broken))
    for end in range(len(body)):
        assert decode_produce_response(memoryview(body)[:end], version) is None


def test_what_the_fast_path_does_not_know_is_left_to_the_compiled_encoder() -> None:
    for message in (
        produced(13, error_message="no"),
        produced(13, record_errors=[BatchIndexAndErrorMessage(batch_index=1)]),
        produced(13, current_leader=LeaderIdAndEpoch(leader_id=1, leader_epoch=2)),
        ProduceResponse(
            responses=produced(13).responses, node_endpoints=[NodeEndpoint(node_id=1, host="h")]
        ),
        ProduceResponse(responses=produced(13).responses * 2),
        ProduceResponse(),
    ):
        assert encode_produce_response(message, 13, 1) is None
        frame = memoryview(b"".join(encode_response(message, 13, 1)))[4:]
        assert decode_response(ProduceResponse, 13, frame) == message
    many = produce(b"x", 13)
    many.topic_data *= 2
    assert encode_produce(many, 13, 1, b"c") is None
    assert encode_produce(produce([b"x"], 13), 13, 1, b"c") is None
    long = produce(b"x", 12)
    long.topic_data[0].name = "t" * 127
    assert encode_produce(long, 12, 1, b"c") is None


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
