"""Fetch, as a client sees it on the wire: sizes, errors, sessions, long polls, topic ids."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.delete_topics import DeleteTopicsRequest, DeleteTopicsResponse
from pegel.protocol.messages.fetch import (
    FetchRequest,
    FetchResponse,
    FetchTopic,
    ForgottenTopic,
    PartitionData,
)
from pegel.record.batch import read_header
from tests.support.node import (
    NodeUnderTest,
    RawClient,
    fetch,
    fetch_request,
    produce,
    records,
    run,
    size_of,
)

BATCH = len(records(b"x" * 1_000))


async def _filled(node: NodeUnderTest, partitions: int = 1, batches: int = 5) -> RawClient:
    """Topic t with ``batches`` of one record of 1000 bytes in each partition, all committed."""
    await node.create("t", partitions)
    client = await node.connect()
    for partition in range(partitions):
        for _ in range(batches):
            answer = await produce(client, "t", records(b"x" * 1_000), partition=partition)
            assert answer.error_code == 0
    return client


def _offsets(data: PartitionData) -> list[int]:
    """Base offsets of the batches in the answer; a cut last one does not count."""
    rest, found = bytes(data.records or b""), []  # type: ignore[arg-type]
    while len(rest) >= 61 and read_header(rest).size <= len(rest):
        header = read_header(rest)
        found.append(header.base_offset)
        rest = rest[header.size :]
    return found


@pytest.mark.parametrize("version", range(4, 18))
def test_every_version_reads_what_is_committed(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        by_id = version >= 13
        request = fetch_request(
            "" if by_id else "t", 1, topic_id=node.topic_id("t") if by_id else UUID(int=0)
        )
        response = await client.ask(request, version, FetchResponse)
        topic = response.responses[0]
        assert (topic.topic, topic.topic_id) == (
            request.topics[0].topic,
            request.topics[0].topic_id,
        )
        data = topic.partitions[0]
        assert (data.error_code, data.high_watermark, data.last_stable_offset) == (0, 5, 5)
        assert _offsets(data) == [1, 2, 3, 4]

    run(main)


def test_the_first_batch_comes_whole_however_small_the_limits() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node, 3)
        request = fetch_request("t", 0, 0, 0, max_bytes=1, partition_max_bytes=1)
        found = await fetch(client, request)
        assert [_offsets(p) for p in found] == [[0], [], []]
        assert [size_of(p) for p in found] == [BATCH, 0, 0]

    run(main)


def test_the_first_partition_that_has_data_is_the_one() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node, 3)
        request = fetch_request("t", 5, 2, 2, max_bytes=1, partition_max_bytes=1)
        found = await fetch(client, request)
        assert [_offsets(p) for p in found] == [[], [2], []]

    run(main)


def test_limits_of_a_partition_and_of_all() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node, 3)
        by_partition = fetch_request("t", 0, 0, 0, partition_max_bytes=2 * BATCH)
        assert [_offsets(p) for p in await fetch(client, by_partition)] == [[0, 1]] * 3
        together = fetch_request("t", 0, 0, 0, max_bytes=7 * BATCH)
        sizes = [size_of(p) for p in await fetch(client, together)]
        assert sizes[0] == 5 * BATCH
        assert 0 < sizes[1] <= 2 * BATCH
        assert sizes[2] == 0
        # Partitions are served in the order in which they are named.
        together.topics[0].partitions.reverse()
        found = await fetch(client, together)
        assert [p.partition_index for p in found] == [2, 1, 0]
        assert size_of(found[0]) == 5 * BATCH

    run(main)


def test_an_offset_inside_a_batch_brings_that_batch() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        await produce(client, "t", records(*[b"x"] * 10))
        found = await fetch(client, fetch_request("t", 7, partition_max_bytes=1))
        assert _offsets(found[0]) == [0]

    run(main)


def test_offsets_out_of_range_and_the_end() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        for offset, error in (
            (-1, ErrorCode.OFFSET_OUT_OF_RANGE),
            (5, ErrorCode.NONE),
            (6, ErrorCode.OFFSET_OUT_OF_RANGE),
            (2**62, ErrorCode.OFFSET_OUT_OF_RANGE),
        ):
            found = await fetch(client, fetch_request("t", offset))
            assert found[0].error_code == error
            assert size_of(found[0]) == 0

    run(main)


def test_between_the_high_watermark_and_the_end_there_is_nothing_yet() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        assert node.node.replicas is not None
        hosted = node.node.replicas.hosted("t", 0)
        assert hosted is not None
        hosted.core.high_watermark = 3
        for offset, batches in ((2, [2]), (3, []), (4, []), (5, [])):
            found = await fetch(client, fetch_request("t", offset))
            assert (found[0].error_code, found[0].high_watermark) == (0, 3)
            assert _offsets(found[0]) == batches

    run(main)


def test_unknown_topics_partitions_and_ids() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        found = await fetch(client, fetch_request("nope", 0))
        assert found[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        found = await fetch(client, fetch_request("t", 0, 0))
        assert [p.error_code for p in found] == [0, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION]
        found = await fetch(client, fetch_request("", 0, topic_id=UUID(int=9)), 13)
        assert found[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID

    run(main)


@pytest.mark.parametrize("version", [9, 12])
def test_epochs(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        for epoch, error in ((0, 0), (-1, 0), (1, ErrorCode.UNKNOWN_LEADER_EPOCH)):
            found = await fetch(client, fetch_request("t", 0, current_leader_epoch=epoch), version)
            assert found[0].error_code == error

    run(main)


def test_a_long_poll_ends_with_data_with_an_error_or_with_its_time() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        other = await node.connect()
        await client.send(fetch_request("t", 5, max_wait_ms=60_000), 12)
        await produce(other, "t", records(b"new"))
        _, response = await client.receive(FetchResponse, 12)
        assert _offsets(response.responses[0].partitions[0]) == [5]
        # Enough is what min_bytes says.
        await client.send(fetch_request("t", 6, max_wait_ms=60_000, min_bytes=2 * BATCH), 12)
        for _ in range(2):
            await produce(other, "t", records(b"x" * 1_000))
        _, response = await client.receive(FetchResponse, 12)
        assert _offsets(response.responses[0].partitions[0]) == [6, 7]
        found = await fetch(client, fetch_request("t", 8, max_wait_ms=1))
        assert (found[0].error_code, size_of(found[0])) == (0, 0)
        found = await fetch(client, fetch_request("t", 99, max_wait_ms=60_000))
        assert found[0].error_code == ErrorCode.OFFSET_OUT_OF_RANGE
        await client.send(fetch_request("t", 8, max_wait_ms=60_000), 12)
        deleted = await other.ask(
            DeleteTopicsRequest(topic_names=["t"], timeout_ms=5_000), 5, DeleteTopicsResponse
        )
        assert deleted.responses[0].error_code == 0
        _, response = await client.receive(FetchResponse, 12)
        assert response.responses[0].partitions[0].error_code == (
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        )

    run(main)


def test_what_was_there_before_counts_for_min_bytes() -> None:
    """One partition has some already, another gets the rest: together they are enough."""

    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node, 2)
        other = await node.connect()
        await client.send(fetch_request("t", 4, 5, max_wait_ms=60_000, min_bytes=2 * BATCH), 12)
        await asyncio.sleep(0.01)
        await produce(other, "t", records(b"x" * 1_000), partition=1)
        _, response = await client.receive(FetchResponse, 12)
        assert [_offsets(p) for p in response.responses[0].partitions] == [[4], [5]]

    run(main)


# -- sessions (KIP-227)


async def _session(
    client: RawClient, request: FetchRequest, version: int = 12
) -> tuple[int, dict[int, PartitionData]]:
    """Session id and the partitions that the response carries."""
    response = await client.ask(request, version, FetchResponse)
    assert response.error_code == 0
    return response.session_id, {
        p.partition_index: p for topic in response.responses for p in topic.partitions
    }


@pytest.mark.parametrize("version", [7, 12, 13, 17])
def test_an_increment_tells_what_changed(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node, 3)
        by_id = version >= 13
        name = "" if by_id else "t"
        topic_id = node.topic_id("t") if by_id else UUID(int=0)
        full = fetch_request(name, 5, 5, 5, topic_id=topic_id, session=(0, 0))
        session, told = await _session(client, full, version)
        assert session > 0
        assert sorted(told) == [0, 1, 2]
        again, told = await _session(client, fetch_request(name, session=(session, 1)), version)
        assert (again, told) == (session, {})
        await produce(client, "t", records(b"new"), partition=1)
        _, told = await _session(client, fetch_request(name, session=(session, 2)), version)
        assert {p: _offsets(data) for p, data in told.items()} == {1: [5]}
        forget = fetch_request(name, session=(session, 3))
        forget.forgotten_topics_data = [
            ForgottenTopic(topic=name, topic_id=topic_id, partitions=[1])
        ]
        _, told = await _session(client, forget, version)
        assert told == {}
        await produce(client, "t", records(b"new"), partition=2)
        _, told = await _session(client, fetch_request(name, session=(session, 4)), version)
        assert list(told) == [2]

    run(main)


def test_whoever_claims_to_be_a_replica_has_no_watch_kept_for_that() -> None:
    """Only brokers have: a client may name any id, and another in each session."""

    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        for replica_id in (7, 8, 2**31 - 1):
            full = fetch_request("t", 5, session=(0, 0))
            full.replica_id = replica_id
            session, _ = await _session(client, full)
            again = fetch_request("t", session=(session, 1))
            again.replica_id = replica_id
            assert await _session(client, again) == (session, {})
        assert node.node.replicas is not None
        assert not node.node.replicas.standing._by_follower

    run(main)


def test_errors_of_sessions() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        session, _ = await _session(client, fetch_request("t", 5, session=(0, 0)))
        for asked, error in (
            ((session + 1, 1), ErrorCode.FETCH_SESSION_ID_NOT_FOUND),
            ((session, 7), ErrorCode.INVALID_FETCH_SESSION_EPOCH),
        ):
            response = await client.ask(fetch_request("t", session=asked), 12, FetchResponse)
            assert (response.error_code, response.responses) == (error, [])
        _, told = await _session(client, fetch_request("t", session=(session, 1)))
        assert told == {}
        closed, told = await _session(client, fetch_request("t", 5, session=(session, -1)))
        assert (closed, list(told)) == (0, [0])
        response = await client.ask(fetch_request("t", session=(session, 2)), 12, FetchResponse)
        assert response.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND

    run(main)


async def _again(node: NodeUnderTest) -> None:
    """Delete topic t and create it anew."""
    client = await node.connect()
    deleted = await client.ask(
        DeleteTopicsRequest(topic_names=["t"], timeout_ms=5_000), 5, DeleteTopicsResponse
    )
    assert deleted.responses[0].error_code == 0
    await node.create("t")


def test_a_session_by_id_never_reads_another_topic_of_the_same_name() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        old_id = node.topic_id("t")
        session, _ = await _session(
            client, fetch_request("", 0, topic_id=old_id, session=(0, 0)), 13
        )
        await _again(node)
        for _ in range(3):
            await produce(client, "t", records(b"of another topic"))
        _, told = await _session(client, fetch_request("", session=(session, 1)), 13)
        assert told[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
        assert size_of(told[0]) == 0
        forget = fetch_request("", 0, topic_id=node.topic_id("t"), session=(session, 2))
        forget.forgotten_topics_data = [ForgottenTopic(topic_id=old_id, partitions=[0])]
        _, told = await _session(client, forget, 13)
        assert [_offsets(p) for p in told.values()] == [[0, 1, 2]]

    run(main)


def test_an_id_that_is_learnt_later_is_served_later() -> None:
    """A follower may know a topic before its leader does."""

    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        replicas = node.node.replicas
        assert replicas is not None
        topic_id, image = node.topic_id("t"), replicas.image
        replicas.image = type(image)(cluster_id=image.cluster_id, brokers=image.brokers)
        hosted = replicas._by_id.pop((topic_id, 0))
        session, told = await _session(
            client, fetch_request("", 0, topic_id=topic_id, session=(0, 0)), 13
        )
        assert told[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
        replicas.image, replicas._by_id[topic_id, 0] = image, hosted
        _, told = await _session(client, fetch_request("", session=(session, 1)), 13)
        assert (told[0].error_code, _offsets(told[0])) == (0, [0, 1, 2, 3, 4])
        forget = fetch_request("", session=(session, 2))
        forget.forgotten_topics_data = [ForgottenTopic(topic_id=topic_id, partitions=[0])]
        _, told = await _session(client, forget, 13)
        assert told == {}

    run(main)


def test_a_session_by_name_goes_on_with_the_topic_of_that_name() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        session, _ = await _session(client, fetch_request("t", 0, session=(0, 0)))
        await _again(node)
        for _ in range(2):
            await produce(client, "t", records(b"anew"))
        _, told = await _session(client, fetch_request("t", session=(session, 1)))
        assert _offsets(told[0]) == [0, 1]
        forget = fetch_request("t", session=(session, 2))
        forget.forgotten_topics_data = [ForgottenTopic(topic="t", partitions=[0])]
        _, told = await _session(client, forget)
        assert told == {}

    run(main)


def test_a_session_is_by_names_or_by_ids() -> None:
    """KIP-516: FETCH_SESSION_TOPIC_ID_ERROR where a request of the other kind comes."""

    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        session, _ = await _session(client, fetch_request("t", 5, session=(0, 0)))
        mixed = FetchRequest(
            max_wait_ms=0, min_bytes=1, max_bytes=1 << 20, session_id=session, session_epoch=1,
            topics=[FetchTopic(topic_id=node.topic_id("t"), partitions=[])],
        )  # fmt: skip
        response = await client.ask(mixed, 13, FetchResponse)
        assert response.error_code == ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR

    run(main)
