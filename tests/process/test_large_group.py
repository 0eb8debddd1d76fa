"""Two hundred consumers in one group over two hundred partitions, frame by frame.

What is assigned is the members' affair: the coordinator does not look for the topic.
"""

from __future__ import annotations

import asyncio
import struct

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from pegel.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from pegel.protocol.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from pegel.protocol.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)
from pegel.testing import LocalCluster
from tests.support.node import RawClient

pytestmark = [pytest.mark.process, pytest.mark.timeout(120)]

MEMBERS = PARTITIONS = 200
GROUP = "many"
PATIENCE = 60.0
HEARTBEAT_S = 0.5


class Member:
    """What a consumer does in its group: joins, assigns where it leads, sends heartbeats."""

    def __init__(self, client: RawClient) -> None:
        self.share: list[int] = []
        self.generation = -1
        self._client = client
        self._id = ""

    async def run(self) -> None:
        while True:
            await self._take_part()
            error = ErrorCode.NONE
            while not error:
                await asyncio.sleep(HEARTBEAT_S)
                request = HeartbeatRequest(
                    group_id=GROUP, generation_id=self.generation, member_id=self._id
                )
                answer = await self._client.ask(request, 4, HeartbeatResponse)
                error = ErrorCode(answer.error_code)
            assert error in {ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.ILLEGAL_GENERATION}

    async def _take_part(self) -> None:
        self.generation, self.share = -1, []
        request = JoinGroupRequest(
            group_id=GROUP, session_timeout_ms=10_000, rebalance_timeout_ms=30_000,
            member_id=self._id, protocol_type="consumer",
            protocols=[JoinGroupRequestProtocol(name="range", metadata=b"")],
        )  # fmt: skip
        joined = await self._client.ask(request, 9, JoinGroupResponse)
        self._id = joined.member_id
        if joined.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            return await self._take_part()
        assert joined.error_code == 0, ErrorCode(joined.error_code)
        ids = sorted(m.member_id for m in joined.members)
        shares = [
            SyncGroupRequestAssignment(
                member_id=member, assignment=_encode(range(n, PARTITIONS, len(ids)))
            )
            for n, member in enumerate(ids)
        ]
        sync = SyncGroupRequest(
            group_id=GROUP, generation_id=joined.generation_id, member_id=self._id,
            assignments=shares,
        )  # fmt: skip
        synced = await self._client.ask(sync, 5, SyncGroupResponse)
        if synced.error_code == ErrorCode.REBALANCE_IN_PROGRESS:
            return await self._take_part()
        assert synced.error_code == 0, ErrorCode(synced.error_code)
        self.share, self.generation = _decode(synced.assignment), joined.generation_id
        return None


def _encode(partitions: range) -> bytes:
    return struct.pack(f">{len(partitions)}i", *partitions)


def _decode(data: bytes) -> list[int]:
    return [p for (p,) in struct.iter_unpack(">i", data)]


async def until_settled(members: list[Member]) -> int:
    """Wait until everybody is in one generation and has its share; that generation."""
    async with asyncio.timeout(PATIENCE):
        while True:
            held = sorted(p for m in members for p in m.share)
            generations = {m.generation for m in members}
            if len(generations) == 1 and held == list(range(PARTITIONS)):
                return generations.pop()
            await asyncio.sleep(0.02)


async def coordinator(bootstrap: str) -> tuple[str, int]:
    host, port = bootstrap.split(",", maxsplit=1)[0].split(":")
    client = RawClient(*await asyncio.open_connection(host, int(port)))
    request = FindCoordinatorRequest(coordinator_keys=[GROUP])
    (found,) = (await client.ask(request, 4, FindCoordinatorResponse)).coordinators
    client.close()
    return found.host, found.port


async def _scenario(bootstrap: str) -> None:
    address = await coordinator(bootstrap)
    clients = [RawClient(*await asyncio.open_connection(*address)) for _ in range(MEMBERS)]
    members = [Member(client) for client in clients]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(member.run()) for member in members]
        # They come together: the first generation waits for them, or the second has them all.
        assert await until_settled(members) <= 3
        for task, client in zip(tasks[:20], clients, strict=False):
            task.cancel()
            client.close()
        # Twenty crashed: found out by their sessions, in one rebalance or a few.
        first = members[20].generation
        assert await until_settled(members[20:]) <= first + 5
        for task in tasks:
            task.cancel()
    for client in clients:
        client.close()


def test_two_hundred_consumers_settle() -> None:
    settings = {"group.min.session.timeout.ms": "1000"}
    with LocalCluster(brokers=3, settings=settings) as cluster:
        asyncio.run(_scenario(cluster.bootstrap))
