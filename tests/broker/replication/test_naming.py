"""A replica fetcher that names its partitions in several requests, and one of them that fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast
from uuid import UUID

import pytest

from pegel.network.connection import Connection
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.fetch import (
    FetchableTopicResponse,
    FetchRequest,
    FetchResponse,
    PartitionData,
)
from pegel.seams.clock import RealClock
from pegel_broker.replication import fetcher as fetcher_module
from pegel_broker.replication import followed
from pegel_broker.replication.fetcher import ReplicaFetcher
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.manager import ReplicaManager

COUNT, NAMED_MAX = 12, 4


class Leader:
    """A connection whose requests the test answers itself."""

    def __init__(self) -> None:
        self.closed = False
        self.requests: asyncio.Queue[tuple[Callable[[FetchResponse], None], FetchRequest]] = (
            asyncio.Queue()
        )

    def send_to(self, on_answer: Callable[[FetchResponse], None], request: FetchRequest) -> None:
        self.requests.put_nowait((on_answer, request))

    def close(self) -> None:
        self.closed = True


def hosted(number: int) -> HostedPartition:
    log = SimpleNamespace(
        log_end_offset=0, log_start_offset=0, stable_offset=0, offline=None, deleted=False,
        truncation=None,
    )  # fmt: skip
    state = object.__new__(fetcher_module.Follower)
    object.__setattr__(state, "epoch", 1)
    core = SimpleNamespace(partition=0, state=state, high_watermark=0)
    return cast(
        HostedPartition,
        SimpleNamespace(topic_id=UUID(int=number), core=core, log=log, key=(f"t{number}", 0)),
    )


def following(leader: Leader) -> ReplicaFetcher:
    manager = SimpleNamespace(
        options=SimpleNamespace(
            fetch_max_bytes=1, fetch_wait_max_ms=500, fetch_response_max_bytes=1
        ),
        clock=RealClock(), arrivals=0, node_id=2, broker_epoch=lambda: 1,
    )  # fmt: skip
    fetcher = ReplicaFetcher(cast(ReplicaManager, manager), 1)

    async def connect() -> Connection:
        fetcher._connection = cast(Connection, leader)
        return fetcher._connection

    fetcher._connect = connect  # type: ignore[method-assign]
    return fetcher


def failed(number: int) -> FetchResponse:
    partition = PartitionData(partition_index=0, error_code=ErrorCode.KAFKA_STORAGE_ERROR)
    topic = FetchableTopicResponse(topic_id=UUID(int=number), partitions=[partition])
    return FetchResponse(session_id=77, responses=[topic])


def test_a_partition_that_fails_does_not_make_the_naming_of_the_others_begin_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(followed, "NAMED_MAX", NAMED_MAX)
    monkeypatch.setattr(fetcher_module, "PARTITION_BACK_OFF", 0.0)  # over while a request waits

    async def main() -> None:
        leader = Leader()
        fetcher = following(leader)
        for number in range(1, COUNT + 1):
            fetcher.add(hosted(number))
        named = []
        async with asyncio.timeout(20):
            for attempt in range(3):
                answer, request = await leader.requests.get()
                named += [topic.topic_id.int for topic in request.topics]
                for _ in range(20):  # the back-off of the partition that failed, and its interrupt
                    await asyncio.sleep(0)
                fetcher._interrupt_if_unsent()
                assert not leader.closed
                assert request.max_wait_ms == 0
                answer(failed(1) if attempt == 0 else FetchResponse(session_id=77))
            assert sorted(named) == list(range(1, COUNT + 1))
            # A request that may wait at the leader is given up for what is to be named again.
            for forgotten in ([], [1]):
                answer, request = await leader.requests.get()
                assert request.max_wait_ms == 500
                assert [t.topic_id.int for t in request.forgotten_topics_data] == forgotten
                if not forgotten:
                    answer(failed(1))
            while not leader.closed:
                await asyncio.sleep(0)
        await fetcher.close()

    asyncio.run(main())
