"""Arbitrary bytes end in a message or in one ProtocolError, within memory bounded by the frame."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.codec import (
    MAX_REQUEST_ELEMENTS,
    MORE_REQUEST_ELEMENTS,
    RequestHeader,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
    max_request_elements,
    read_correlation_id,
    read_request_header,
)
from pegel.protocol.compiler import MAX_TAGGED_FIELDS
from pegel.protocol.errors import ProtocolError
from pegel.protocol.messages import REQUESTS
from pegel.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from pegel.protocol.messages.elect_leaders import ElectLeadersRequest, TopicPartitions
from pegel.protocol.messages.metadata import MetadataRequest
from pegel.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from pegel.protocol.schema import Message
from tests.client.protocol.generate import all_messages, make, versions_of


def request_frame(message: Message, version: int) -> bytearray:
    return bytearray(b"".join(encode_request(message, version, 1, "client")))[4:]


def read_request(frame: bytes | bytearray) -> Message | None:
    view = memoryview(frame)
    try:
        return decode_request(read_request_header(view), view)
    except ProtocolError:
        return None


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    read_request(data)


@settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.sampled_from(all_messages()), st.data())
def test_any_bytes_after_a_good_header(cls: type[Message], data: st.DataObject) -> None:
    version = data.draw(st.sampled_from(list(versions_of(cls))))
    body = data.draw(st.binary(max_size=200))
    try:
        if cls.is_request:
            decode_request(RequestHeader(cls.api_key, version, 1, None, 0), memoryview(body))
        else:
            decode_response(cls, version, memoryview(b"\0\0\0\1" + body))
    except ProtocolError:
        pass


@pytest.mark.parametrize("cls", all_messages(), ids=lambda cls: cls.__name__)
def test_mutated_truncated_and_extended_messages(cls: type[Message]) -> None:
    rng = random.Random(cls.__name__)
    for version in versions_of(cls):
        message = make(cls, version, rng)
        if cls.is_request:
            frame = request_frame(message, version)
        else:
            frame = bytearray(b"".join(encode_response(message, version, 1)))[4:]

        def decode(data: bytearray, version: int = version) -> Message | None:
            if cls.is_request:
                return read_request(data)
            try:
                return decode_response(cls, version, memoryview(data))
            except ProtocolError:
                return None

        assert decode(frame) == message
        extended = decode(frame + b"\0")
        assert extended == message if cls.is_request else extended is None, "bytes after the end"
        for cut in sorted(rng.sample(range(len(frame)), min(20, len(frame)))):
            decode(frame[:cut])
        assert decode(frame[:-1]) is None
        for _ in range(20):
            broken = bytearray(frame)
            for _ in range(rng.randrange(1, 4)):
                broken[rng.randrange(len(broken))] = rng.choice((0, 0x7F, 0x80, 0xFF, 1))
            decode(broken)


def test_a_declared_count_allocates_nothing() -> None:
    """Both array forms, at the largest counts that they can declare."""
    for version, count in ((4, b"\x7f\xff\xff\xff"), (12, b"\xff\xff\xff\xff\x0f")):
        head = request_frame(MetadataRequest(), version)
        offset = read_request_header(memoryview(head)).body_offset
        frame = bytes(head[:offset]) + count + b"\0" * 100
        read_request(frame)
        tracemalloc.start()
        assert read_request(frame) is None
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 20_000


def test_memory_is_bounded_by_the_frame() -> None:
    """A frame full of the smallest elements costs a bounded multiple of its size."""
    head = request_frame(ElectLeadersRequest(), 2)
    offset = read_request_header(memoryview(head)).body_offset
    count = 9_000
    frame = bytes(head[:offset]) + b"\0" + b"\xa9\x46" + b"\1\1\0" * count + b"\0\0\0\0\0"
    tracemalloc.start()
    message = read_request(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(message, ElectLeadersRequest)
    assert message.topic_partitions is not None
    assert len(message.topic_partitions) == count
    assert peak < 100 * len(frame)


def test_the_number_of_elements_of_a_request_is_bounded() -> None:
    topics = [TopicPartitions(topic="t", partitions=[0] * 1000) for _ in range(10)]
    assert sum(1 + len(topic.partitions) for topic in topics) > MAX_REQUEST_ELEMENTS
    frame = memoryview(request_frame(ElectLeadersRequest(topic_partitions=topics), 2))
    with pytest.raises(ProtocolError, match="more array elements"):
        decode_request(read_request_header(frame), frame)


def test_requests_about_all_partitions_of_a_client_may_have_more() -> None:
    """A commit of 14,000 topics of one partition each, by a client that asks in one request."""

    def commit(count: int) -> memoryview:
        topics = [
            OffsetCommitRequestTopic(name="t", partitions=[OffsetCommitRequestPartition()])
            for _ in range(count)
        ]
        return memoryview(request_frame(OffsetCommitRequest(group_id="g", topics=topics), 8))

    most = max_request_elements(ApiKey.OFFSET_COMMIT) // 2
    assert most >= 14_000
    frame = commit(most)
    assert decode_request(read_request_header(frame), frame)
    frame = commit(most + 1)
    with pytest.raises(ProtocolError, match="more array elements"):
        decode_request(read_request_header(frame), frame)
    assert all(limit > MAX_REQUEST_ELEMENTS for limit in MORE_REQUEST_ELEMENTS.values())


def with_tags(count: int) -> bytes:
    return bytes((count,)) + b"".join(bytes((100, 1, 0)) for _ in range(count))


def test_unknown_tagged_fields_are_skipped_up_to_the_limit() -> None:
    head = b"\0\x12\0\3\0\0\0\1\0\1c"
    body = b"\5name\2v"
    for count in (1, MAX_TAGGED_FIELDS):
        message = read_request(head + with_tags(count) + body + with_tags(count))
        assert message == ApiVersionsRequest(
            client_software_name="name", client_software_version="v"
        )
    assert read_request(head + with_tags(MAX_TAGGED_FIELDS + 1) + body + b"\0") is None
    assert read_request(head + b"\0" + body + with_tags(MAX_TAGGED_FIELDS + 1)) is None


def test_a_varint_has_at_most_five_bytes_and_32_bits() -> None:
    head = b"\0\3\0\x0c\0\0\0\1\xff\xff"
    for tags in (b"\x80\x80\x80\x80\x80\x00", b"\xff\xff\xff\xff\x7f"):
        assert read_request(head + tags + b"\1\0\0\0") is None
    assert read_request(head + b"\x80\x80\x80\x80\x00" + b"\1\0\0\0") is not None


def test_header_of_an_unknown_api_or_version_is_still_read() -> None:
    header = read_request_header(memoryview(b"\x03\xe7\0\5\0\0\0\x09\0\2id rest"))
    assert header[:4] == (999, 5, 9, "id")
    frame = memoryview(b"\0\x12\0\x7f\0\0\0\x09\xff\xff")
    header = read_request_header(frame)
    assert header[:4] == (18, 127, 9, None)
    for unknown in (header, header._replace(api_key=999), header._replace(api_version=-1)):
        with pytest.raises(ProtocolError):
            decode_request(unknown, frame)


def test_the_response_header_of_api_versions_is_never_flexible() -> None:
    frame = b"".join(encode_response(ApiVersionsResponse(), 3, 77))
    assert frame[4:10] == b"\0\0\0\x4d\0\0", "the error code follows the correlation id"
    assert read_correlation_id(memoryview(frame[4:])) == 77
    with pytest.raises(ProtocolError):
        read_correlation_id(memoryview(b"\0\0\0"))


def test_registry_knows_its_keys_without_importing() -> None:
    assert 3 in REQUESTS
    assert 999 not in REQUESTS
    assert REQUESTS.get(999) is None


def test_a_header_that_is_cut_short_is_said_in_words() -> None:
    with pytest.raises(ProtocolError, match="a request of 3 bytes: its header alone has 10"):
        read_request_header(memoryview(b"GET"))
