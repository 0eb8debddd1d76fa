"""ListOffsets and OffsetForLeaderEpoch on the wire."""

from __future__ import annotations

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.list_offsets import (
    ListOffsetsPartition,
    ListOffsetsRequest,
    ListOffsetsResponse,
    ListOffsetsTopic,
)
from pegel.protocol.messages.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)
from pegel.record.encode import encode_batch
from tests.support.node import NodeUnderTest, RawClient, produce, run

LATEST, EARLIEST, MAX_TIMESTAMP = -1, -2, -3


async def _list(
    client: RawClient, timestamp: int, *, topic: str = "t", partition: int = 0, epoch: int = -1,
    version: int = 7, isolation_level: int = 0,
) -> tuple[int, int, int]:  # fmt: skip
    """Error, offset, timestamp."""
    request = ListOffsetsRequest(
        replica_id=-1, isolation_level=isolation_level,
        topics=[
            ListOffsetsTopic(
                name=topic,
                partitions=[
                    ListOffsetsPartition(
                        partition_index=partition, current_leader_epoch=epoch, timestamp=timestamp
                    )
                ],
            )
        ],
    )  # fmt: skip
    response = await client.ask(request, version, ListOffsetsResponse)
    found = response.topics[0].partitions[0]
    return found.error_code, found.offset, found.timestamp


async def _filled(node: NodeUnderTest) -> RawClient:
    await node.create("t")
    client = await node.connect()
    for times in ([100, 300, 200], [150, 400], [350]):
        await produce(client, "t", encode_batch([b"x"] * len(times), timestamps=times))
    return client


@pytest.mark.parametrize("version", range(1, 11))
def test_ends_and_times(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        for timestamp, offset, found_at in (
            (LATEST, 6, -1),
            (EARLIEST, 0, -1),
            (0, 0, 100),
            (101, 1, 300),
            (300, 1, 300),
            (301, 4, 400),
            (400, 4, 400),
            (401, -1, -1),
        ):
            told = await _list(client, timestamp, version=version)
            assert told == (0, offset, found_at), timestamp
        if version >= 7:
            assert await _list(client, MAX_TIMESTAMP, version=version) == (0, 4, 400)

    run(main)


def test_read_committed_ends_at_the_last_stable_offset() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        assert await _list(client, LATEST, isolation_level=1) == (0, 6, -1)

    run(main)


def test_unknown_partitions_and_epochs() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)
        unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert (await _list(client, LATEST, topic="nope"))[0] == unknown
        assert (await _list(client, LATEST, partition=5))[0] == unknown
        assert (await _list(client, LATEST, epoch=0)) == (0, 6, -1)
        assert (await _list(client, LATEST, epoch=3))[0] == ErrorCode.UNKNOWN_LEADER_EPOCH
        assert (await _list(client, -99))[0] == ErrorCode.UNSUPPORTED_VERSION

    run(main)


def test_an_empty_partition_has_no_record_for_any_time() -> None:
    async def main(node: NodeUnderTest) -> None:
        await node.create("t")
        client = await node.connect()
        assert await _list(client, 0) == (0, -1, -1)
        assert await _list(client, MAX_TIMESTAMP) == (0, -1, -1)
        assert await _list(client, LATEST) == (0, 0, -1)

    run(main)


@pytest.mark.parametrize("version", range(2, 5))
def test_ends_of_epochs(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await _filled(node)

        async def end(epoch: int, *, current: int = -1, partition: int = 0) -> tuple[int, int, int]:
            request = OffsetForLeaderEpochRequest(
                replica_id=-1,
                topics=[
                    OffsetForLeaderTopic(
                        topic="t",
                        partitions=[
                            OffsetForLeaderPartition(
                                partition=partition, current_leader_epoch=current,
                                leader_epoch=epoch,
                            )
                        ],
                    )
                ],
            )  # fmt: skip
            response = await client.ask(request, version, OffsetForLeaderEpochResponse)
            found = response.topics[0].partitions[0]
            return found.error_code, found.leader_epoch, found.end_offset

        assert await end(0) == (0, 0, 6)
        assert await end(7) == (0, -1, -1)
        assert await end(0, current=0) == (0, 0, 6)
        assert (await end(0, current=1))[0] == ErrorCode.UNKNOWN_LEADER_EPOCH
        assert (await end(0, partition=3))[0] == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(main)
