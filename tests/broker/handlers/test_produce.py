"""Produce, as a client sees it on the wire."""

from __future__ import annotations

import struct
from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from pegel.protocol.messages.produce import ProduceRequest, ProduceResponse
from pegel.record.compression import Codec
from pegel.record.encode import encode_batch
from tests.support.node import (
    NodeUnderTest,
    RawClient,
    fetch,
    fetch_request,
    produce,
    produce_request,
    records,
    run,
    size_of,
)

VERSIONS = range(3, 14)


async def _end_offset(client: RawClient, topic: str) -> int:
    found = await fetch(client, fetch_request(topic, 0))
    assert found[0].error_code == 0
    return found[0].high_watermark


@pytest.mark.parametrize("acks", [1, -1])
def test_offsets_in_every_version(acks: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        for number, version in enumerate(VERSIONS):
            by_id = version >= 13
            request = produce_request(
                "" if by_id else "t", records(b"a", b"b"), acks=acks,
                topic_id=node.topic_id("t") if by_id else UUID(int=0),
            )  # fmt: skip
            response = await client.ask(request, version, ProduceResponse)
            answer = response.responses[0].partition_responses[0]
            assert (answer.error_code, answer.base_offset) == (0, 2 * number), version
            assert answer.log_append_time_ms == -1
            if version >= 5:
                assert answer.log_start_offset == 0

    run(main)


def test_each_partition_has_its_own_answer_in_the_order_asked() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", 3)
        client = await node.connect()
        parts = [(2, records(b"a")), (9, records(b"b")), (0, records(b"c")[:-1]), (1, None)]
        request = ProduceRequest(acks=-1, timeout_ms=5_000, topic_data=[])
        for partition, data in parts:
            one = produce_request("t", data, partition=partition).topic_data[0]
            if request.topic_data:
                request.topic_data[0].partition_data += one.partition_data
            else:
                request.topic_data.append(one)
        response = await client.ask(request, 9, ProduceResponse)
        answers = response.responses[0].partition_responses
        assert [(a.index, a.error_code) for a in answers] == [
            (2, ErrorCode.NONE),
            (9, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            (0, ErrorCode.CORRUPT_MESSAGE),
            (1, ErrorCode.INVALID_RECORD),
        ]
        assert all(a.base_offset == -1 for a in answers if a.error_code)

    run(main)


def test_unknown_topics_by_name_and_by_id() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        assert (await produce(client, "nope", records(b"a"))).error_code == (
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        )
        request = produce_request("", records(b"a"), topic_id=UUID(int=42))
        response = await client.ask(request, 13, ProduceResponse)
        answer = response.responses[0].partition_responses[0]
        assert answer.error_code == ErrorCode.UNKNOWN_TOPIC_ID
        assert response.responses[0].topic_id == UUID(int=42)

    run(main, auto_create_topics_enable=False)


def _changed(**changes: int | bytes) -> bytearray:
    """A good batch with header fields overwritten; the CRC is made right again unless given."""
    from crc32c import crc32c

    data = records(b"a", b"b", b"c")
    places = {
        "base_offset": (0, ">q"), "length": (8, ">i"), "magic": (16, ">b"), "crc": (17, ">I"),
        "attributes": (21, ">h"), "last_offset_delta": (23, ">i"), "count": (57, ">i"),
        "producer_id": (43, ">q"), "producer_epoch": (51, ">h"), "base_sequence": (53, ">i"),
    }  # fmt: skip
    for name, value in changes.items():
        offset, form = places[name]
        struct.pack_into(form, data, offset, value)
    if "crc" not in changes:
        struct.pack_into(">I", data, 17, crc32c(bytes(data[21:])))
    return data


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (_changed(crc=1), ErrorCode.CORRUPT_MESSAGE),
        (_changed(magic=1), ErrorCode.INVALID_RECORD),
        (_changed(magic=0), ErrorCode.INVALID_RECORD),
        (_changed(magic=3), ErrorCode.INVALID_RECORD),
        (_changed(count=2), ErrorCode.INVALID_RECORD),
        (_changed(count=0), ErrorCode.INVALID_RECORD),
        (_changed(count=-1), ErrorCode.INVALID_RECORD),
        (_changed(last_offset_delta=7), ErrorCode.INVALID_RECORD),
        (_changed(attributes=0x20), ErrorCode.INVALID_RECORD),
        (_changed(length=48), ErrorCode.CORRUPT_MESSAGE),
        (_changed(length=2**31 - 1), ErrorCode.CORRUPT_MESSAGE),
        (_changed(length=-1), ErrorCode.CORRUPT_MESSAGE),
        (records(b"a") + records(b"b"), ErrorCode.INVALID_RECORD),
        (records(b"a")[:-1], ErrorCode.CORRUPT_MESSAGE),
        (records(b"a") + b"\0", ErrorCode.INVALID_RECORD),
        (b"", ErrorCode.CORRUPT_MESSAGE),
        (b"\0" * 60, ErrorCode.CORRUPT_MESSAGE),
        (b"\xff" * 200, ErrorCode.INVALID_RECORD),
        (_changed(producer_id=5, producer_epoch=0, base_sequence=-1), ErrorCode.INVALID_RECORD),
    ],
    ids=["crc", "magic 1", "magic 0", "magic 3", "count too small", "count 0", "count -1",
         "last offset delta", "control", "length too small", "length huge", "length negative",
         "two batches", "cut", "a byte more", "nothing", "zeroes", "ones", "sequence"],
)  # fmt: skip
def test_a_bad_batch_is_refused_and_nothing_is_written(data: bytes, error: ErrorCode) -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        assert (await produce(client, "t", records(b"before"))).base_offset == 0
        answer = await produce(client, "t", data)
        assert answer.error_code == error, answer.error_message
        assert answer.base_offset == -1
        assert answer.error_message
        assert (await produce(client, "t", records(b"after"))).base_offset == 1
        assert await _end_offset(client, "t") == 2

    run(main)


def test_a_batch_beyond_the_topics_limit() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", max_message_bytes=1_000)
        client = await node.connect()
        answer = await produce(client, "t", records(b"x" * 1_000))
        assert answer.error_code == ErrorCode.MESSAGE_TOO_LARGE
        assert (await produce(client, "t", records(b"x" * 900))).base_offset == 0

    run(main)


@pytest.mark.parametrize("version", [3, 6, 7, 9])
def test_zstd_needs_a_version_that_knows_it(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        data = encode_batch([b"x" * 1_000] * 3, timestamps=0, codec=Codec.ZSTD)
        answer = await produce(client, "t", data, version=version)
        expected = ErrorCode.NONE if version >= 7 else ErrorCode.UNSUPPORTED_COMPRESSION_TYPE
        assert answer.error_code == expected

    run(main)


@pytest.mark.parametrize("acks", [2, -2, 100])
def test_other_acks_are_refused(acks: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        answer = await produce(client, "t", records(b"a"), acks=acks)
        assert answer.error_code == ErrorCode.INVALID_REQUIRED_ACKS
        assert await _end_offset(client, "t") == 0

    run(main)


def test_a_record_without_a_key_on_a_compacted_topic() -> None:
    """With the batch index of each such record (KIP-467)."""

    async def main(node: NodeUnderTest) -> None:
        await node.create("t", cleanup_policy="compact")
        client = await node.connect()
        answer = await produce(client, "t", records(b"a", b"b", b"c", keys=[b"k", None, b"l"]))
        assert answer.error_code == ErrorCode.INVALID_RECORD
        assert [e.batch_index for e in answer.record_errors] == [1]
        assert "key" in (answer.record_errors[0].batch_index_error_message or "")
        assert await _end_offset(client, "t") == 0
        good = await produce(client, "t", records(b"a", b"b", keys=[b"k", b"l"]))
        assert good.error_code == 0

    run(main)


async def _producer_id(client: RawClient) -> int:
    response = await client.ask(
        InitProducerIdRequest(transactional_id=None, transaction_timeout_ms=60_000), 4,
        InitProducerIdResponse,
    )  # fmt: skip
    assert (response.error_code, response.producer_epoch) == (0, 0)
    return response.producer_id


def test_a_retried_batch_gets_its_first_offset() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        pid = await _producer_id(client)
        assert pid >= 0
        assert await _producer_id(client) > pid
        for sequence in (0, 2, 4, 6, 8):
            answer = await produce(client, "t", records(b"a", b"b", producer=(pid, 0, sequence)))
            assert (answer.error_code, answer.base_offset) == (0, sequence)
        for sequence in (8, 0, 4):
            again = await produce(client, "t", records(b"a", b"b", producer=(pid, 0, sequence)))
            assert (again.error_code, again.base_offset) == (0, sequence)
        assert await _end_offset(client, "t") == 10

    run(main)


def test_gaps_and_old_epochs_of_producers() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        pid = await _producer_id(client)
        for epoch, sequence, error in (
            (0, 0, ErrorCode.NONE),
            (0, 5, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
            (1, 3, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER),
            (1, 0, ErrorCode.NONE),
            (0, 1, ErrorCode.INVALID_PRODUCER_EPOCH),
            (1, 1, ErrorCode.NONE),
        ):
            answer = await produce(client, "t", records(b"a", producer=(pid, epoch, sequence)))
            assert answer.error_code == error, (epoch, sequence)
        assert await _end_offset(client, "t") == 3

    run(main)


def test_log_append_time_is_the_brokers() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t", message_timestamp_type="LogAppendTime")
        client = await node.connect()
        answer = await produce(client, "t", records(b"a"))
        assert answer.log_append_time_ms > 1_700_000_000_000
        found = await fetch(client, fetch_request("t", 0))
        assert size_of(found[0]) > 0

    run(main)


def test_a_produce_for_several_topics_waits_for_all_and_answers_once() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("a")
        await node.create("b")
        client = await node.connect()
        request = produce_request("a", records(b"1"))
        request.topic_data += produce_request("b", records(b"2", b"3")).topic_data
        response = await client.ask(request, 11, ProduceResponse)
        assert [(t.name, t.partition_responses[0].base_offset) for t in response.responses] == [
            ("a", 0), ("b", 0),
        ]  # fmt: skip
        assert (await _end_offset(client, "a"), await _end_offset(client, "b")) == (1, 2)

    run(main)
