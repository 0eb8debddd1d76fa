"""A client connection: order, versions, limits, and who is closed for what."""

from __future__ import annotations

import asyncio
import struct

import pytest

from pegel.protocol.api_keys import APIS, ApiKey
from pegel.protocol.codec import encode_request
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.api_versions import ApiVersionsRequest, ApiVersionsResponse
from pegel.protocol.messages.fetch import FetchResponse
from pegel.protocol.messages.metadata import MetadataRequest, MetadataResponse
from pegel.protocol.messages.produce import ProduceResponse
from pegel_broker.log import directory
from pegel_broker.network import connection as connection_module
from tests.support.node import (
    NodeUnderTest,
    RawClient,
    fetch,
    fetch_request,
    produce,
    produce_request,
    records,
    run,
    running_node,
    size_of,
)


async def _still_serves(client: RawClient) -> None:
    response = await client.ask(ApiVersionsRequest(), 0, ApiVersionsResponse)
    assert response.error_code == 0


def _header(api_key: int, version: int, client_id: bytes | None = b"raw") -> bytes:
    length = -1 if client_id is None else len(client_id)
    return struct.pack(">hhih", api_key, version, 77, length) + (client_id or b"")


def _framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


def test_responses_leave_in_the_order_of_requests() -> None:
    """A fetch that waits holds back the answers behind it, and not the requests themselves."""

    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client, other = await node.connect(), await node.connect()
        waiting = await client.send(fetch_request("t", 0, max_wait_ms=10_000), 12)
        asked = [await client.send(MetadataRequest(topics=[]), 9) for _ in range(5)]
        produced = await client.send(produce_request("t", records(b"a")), 9)
        # The produce behind the fetch is handled at once, and is what ends the fetch.
        number, fetched = await client.receive(FetchResponse, 12)
        assert number == waiting
        assert size_of(fetched.responses[0].partitions[0]) > 0
        for expected in asked:
            assert (await client.receive(MetadataResponse, 9))[0] == expected
        assert (await client.receive(ProduceResponse, 9))[0] == produced
        await _still_serves(other)

    run(main)


def test_reading_stops_at_the_limit_of_requests_in_flight() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        listener = node.node.listener
        assert listener is not None
        count = connection_module.MAX_IN_FLIGHT + 100
        for _ in range(count):
            await client.send(fetch_request("t", 0, max_wait_ms=60_000), 12)
        connections = list(listener._connections)
        async with asyncio.timeout(20):
            while max(c.in_flight for c in connections) < connection_module.MAX_IN_FLIGHT:
                await asyncio.sleep(0.001)
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert max(c.in_flight for c in connections) <= connection_module.MAX_IN_FLIGHT + 100
        other = await node.connect()
        assert (await produce(other, "t", records(b"a"))).error_code == 0
        for _ in range(connection_module.MAX_IN_FLIGHT):
            await client.receive(FetchResponse, 12)
        for _ in range(count - connection_module.MAX_IN_FLIGHT):
            await client.receive(FetchResponse, 12)  # they find the record at once

    run(main)


@pytest.mark.parametrize("version", [5, 99, 32_767, -1])
def test_an_unknown_version_of_api_versions_is_told_what_is_spoken(version: int) -> None:
    """KIP-511: a version 0 body with error 35 and the range."""

    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        await client.write(_framed(_header(ApiKey.API_VERSIONS, version)))
        number, response = await client.receive(ApiVersionsResponse, 0)
        assert number == 77
        assert response.error_code == ErrorCode.UNSUPPORTED_VERSION
        ranges = {a.api_key: (a.min_version, a.max_version) for a in response.api_keys}
        assert ranges[ApiKey.API_VERSIONS] == (0, 4)
        await _still_serves(client)

    run(main)


@pytest.mark.parametrize(
    ("api_key", "version"),
    [(ApiKey.FETCH, 99), (ApiKey.FETCH, 3), (ApiKey.METADATA, -1), (ApiKey.PRODUCE, 2),
     (ApiKey.VOTE, 0), (1_234, 0), (-5, 0)],
)  # fmt: skip
def test_any_other_unsupported_version_closes_that_connection_alone(
    api_key: int, version: int
) -> None:
    async def main(node: NodeUnderTest) -> None:
        client, other = await node.connect(), await node.connect()
        await _still_serves(client)
        await client.write(_framed(_header(api_key, version) + b"\0" * 20))
        assert await client.is_closed()
        await _still_serves(other)

    run(main)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0",
        _header(ApiKey.METADATA, 9)[:9],
        _header(ApiKey.METADATA, 9, b"\xff\xfe") + b"\0\0\0",
        struct.pack(">hhih", ApiKey.METADATA, 1, 1, -2),
        struct.pack(">hhih", ApiKey.METADATA, 1, 1, 5_000) + b"x",
        _header(ApiKey.METADATA, 1) + struct.pack(">i", 2**31 - 1),
        _header(ApiKey.METADATA, 1) + struct.pack(">i", 3) + b"\0\x05ab",
        _header(ApiKey.METADATA, 9) + b"\xff\xff\xff\xff\x0f" + b"\0" * 10,
        _header(ApiKey.PRODUCE, 9) + b"\0" + b"\xff" * 40,
    ],
    ids=["empty", "one byte", "half a header", "client id", "negative", "too long", "huge array",
         "cut string", "many tags", "garbage"],
)  # fmt: skip
def test_a_malformed_request_closes_that_connection_alone(body: bytes) -> None:
    async def main(node: NodeUnderTest) -> None:
        client, other = await node.connect(), await node.connect()
        await client.write(_framed(body))
        assert await client.is_closed()
        await _still_serves(other)
        assert node.node.listener is not None
        assert node.node.listener.counters.protocol_errors == 1

    run(main)


@pytest.mark.parametrize("size", [-1, 1_025, 2**31 - 1])
def test_a_frame_beyond_the_limit_closes_before_it_is_read(size: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        client, other = await node.connect(), await node.connect()
        await client.write(struct.pack(">i", size))
        assert await client.is_closed()
        await _still_serves(other)

    run(main, socket_request_max_bytes=1_024)


def test_a_frame_of_just_the_limit_is_read() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        head = _header(ApiKey.API_VERSIONS, 0)
        await client.write(_framed(head + b"\0" * (1_024 - len(head))))
        _, response = await client.receive(ApiVersionsResponse, 0)
        assert response.error_code == 0

    run(main, socket_request_max_bytes=1_024)


def test_requests_in_single_bytes_and_many_at_once() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        frame = b"".join(encode_request(ApiVersionsRequest(), 0, 5, None))
        for position in range(len(frame)):
            await client.write(frame[position : position + 1])
            await asyncio.sleep(0)
        await client.write(frame * 50)
        for _ in range(51):
            assert (await client.receive(ApiVersionsResponse, 0))[0] == 5

    run(main)


def test_a_client_that_does_not_read_stops_being_read() -> None:
    """Its answers are bounded by the write buffer, and others are served."""

    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        big, other = await node.connect(), await node.connect()
        for _ in range(8):
            await produce(other, "t", records(b"x" * 200_000))
        for _ in range(100):
            await big.send(fetch_request("t", 0, max_bytes=2_000_000,
                                         partition_max_bytes=2_000_000), 12)  # fmt: skip
        for _ in range(100):
            await asyncio.sleep(0.001)
        await _still_serves(other)
        for _ in range(100):
            _, response = await big.receive(FetchResponse, 12)
            assert size_of(response.responses[0].partitions[0]) > 1_500_000

    run(main)


def test_a_client_that_leaves_takes_its_waiting_requests_with_it() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        replicas = node.node.replicas
        assert replicas is not None
        await client.send(fetch_request("t", 0, max_wait_ms=60_000), 12)
        async with asyncio.timeout(20):
            while len(replicas.purgatory) == 0:
                await asyncio.sleep(0.001)
            client.close()
            while len(replicas.purgatory) > 0:
                await asyncio.sleep(0.001)
        hosted = replicas.hosted("t", 0)
        assert hosted is not None
        assert not hosted.watchers

    run(main)


def test_api_versions_tells_every_api_that_has_a_handler() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        for version in range(5):
            request = ApiVersionsRequest(
                client_software_name="raw", client_software_version="1.0-rc.1"
            )
            response = await client.ask(request, version, ApiVersionsResponse)
            assert response.error_code == 0
            ranges = {a.api_key: (a.min_version, a.max_version) for a in response.api_keys}
            assert {ApiKey.PRODUCE, ApiKey.FETCH, ApiKey.DESCRIBE_TOPIC_PARTITIONS} <= set(ranges)
            for key, (low, high) in ranges.items():
                assert high == APIS[key].max_version
                # Old librdkafka stops compressing where Produce does not begin at 0.
                assert low == (0 if key == ApiKey.PRODUCE else APIS[key].min_version)

    run(main)


@pytest.mark.parametrize("name", ["", "-x", "a b", "x\n", "ü"])
def test_a_client_has_to_name_itself_properly(name: str) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        for request in (
            ApiVersionsRequest(client_software_name=name, client_software_version="1"),
            ApiVersionsRequest(client_software_name="x", client_software_version=name),
        ):
            response = await client.ask(request, 3, ApiVersionsResponse)
            assert response.error_code == ErrorCode.INVALID_REQUEST
        await _still_serves(client)

    run(main)


def test_connections_beyond_the_limit_are_closed_as_they_come() -> None:
    async def body() -> None:
        async with running_node() as node:
            assert node.node.listener is not None
            node.node.listener._max_connections = 2
            first, second = await node.connect(), await node.connect()
            await _still_serves(first)
            await _still_serves(second)
            third = await node.connect()
            assert await third.is_closed()
            assert node.node.listener.counters.refused == 1
            second.close()
            async with asyncio.timeout(20):
                while node.node.listener.connections > 1:
                    await asyncio.sleep(0.001)
            await _still_serves(await node.connect())

    asyncio.run(body())


def test_acks_0_has_no_response_and_an_error_closes() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        for _ in range(3):
            await client.send(produce_request("t", records(b"a"), acks=0), 9)
        for offset in range(3):  # the next frames are those of fetches
            found = await fetch(client, fetch_request("t", offset, max_wait_ms=10_000))
            assert size_of(found[0]) > 0
        await client.send(produce_request("no-such-topic", records(b"a"), acks=0), 9)
        assert await client.is_closed()

    run(main, auto_create_topics_enable=False)


def test_who_writes_without_acknowledgements_waits_for_the_disk(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing but the connection itself slows such a client down; none of its records is lost."""
    monkeypatch.setattr(directory, "MAX_UNWRITTEN_BYTES", 4_000)
    monkeypatch.setattr(directory, "CROWDED_BYTES", 1_000)

    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        for _ in range(500):
            await client.send(produce_request("t", records(b"x" * 200), acks=0), 9)
        await client.send(produce_request("t", records(b"the last"), acks=-1), 9)
        _, produced = await client.receive(ProduceResponse, 9)
        answer = produced.responses[0].partition_responses[0]
        assert (answer.error_code, answer.base_offset) == (0, 500)

    run(main)


def test_requests_that_are_arriving_share_one_limit_and_the_oldest_goes_on() -> None:
    """Eight clients that sent 90 of 100 MB each had a node hold 720 MB."""
    limit, size, clients = 1 << 20, 700_000, 6

    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        assert node.node.listener is not None
        receiving = node.node.listener.receiving
        frame = _framed(b"\0" * size)
        opened = [await node.connect() for _ in range(clients)]
        for client in opened:
            client._writer.write(frame[:-1])  # what the node does not read stays here
        highest = 0
        bystander = await node.connect()
        for _ in range(50):
            await _still_serves(bystander)
            highest = max(highest, receiving.bytes)
        assert limit < highest <= limit + size + clients * (128 << 10)
        assert highest < clients * size * 3 // 4, "not all of them are here"
        for client in opened:  # the first goes on, and each that ends lets another go on
            client._writer.write(frame[-1:])
        for client in opened:
            assert await client.is_closed(), "it was read to its end, and refused"
        assert receiving.bytes == 0
        await _still_serves(bystander)

    run(main, queued_max_request_bytes=limit)


def test_a_client_that_leaves_in_the_middle_of_a_request_makes_room() -> None:
    async def main(node: NodeUnderTest) -> None:
        assert node.node.listener is not None
        receiving = node.node.listener.receiving
        first, second = await node.connect(), await node.connect()
        first._writer.write(struct.pack(">i", 600_000) + b"\0" * 500_000)
        while receiving.bytes < 400_000:
            await asyncio.sleep(0)
        second._writer.write(_framed(b"\0" * 500_000))
        while receiving.bytes < 410_000:
            await asyncio.sleep(0)
        first.close()
        assert await second.is_closed(), "it was read to its end, and refused"
        while receiving.bytes:
            await asyncio.sleep(0)

    run(main, queued_max_request_bytes=300_000)
