"""A large group settles at once, and a thousand groups are told of in a few requests."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from pegel import AsyncClient, TopicPartition
from tests.client.suite.conftest import System

pytestmark = [pytest.mark.process, pytest.mark.timeout(110)]
MEMBERS = 200
# The first round, and what may come of members that arrive after its end.
MOST_GENERATIONS = 8


def test_200_members_share_200_partitions(system: System) -> None:
    async def main() -> None:
        topic = f"many-{uuid.uuid4().hex[:10]}"
        async with AsyncClient(system.bootstrap) as client:
            await client.create_topic(topic, partitions=MEMBERS, replication=1)
            members = [client.consumer(topic, group=topic) for _ in range(MEMBERS)]
            try:
                await asyncio.gather(*(m.start() for m in members))
                everything = [TopicPartition(topic, i) for i in range(MEMBERS)]
                while sorted(tp for m in members for tp in m.assignment) != everything or any(
                    len(m.assignment) != 1 for m in members
                ):
                    await asyncio.gather(*(m.wait_for_assignment(60) for m in members))
                    await asyncio.sleep(0.02)
                described = await client.admin.describe_group(topic)
                assert len(described.members) == MEMBERS
                assert described.state == "Stable"
                generations = [m.rebalances for m in members]
                assert max(generations) <= MOST_GENERATIONS, generations
            finally:
                await asyncio.gather(*(m.close() for m in members))

    asyncio.run(main())


def test_1000_groups_are_listed_and_described(system: System) -> None:
    async def main() -> None:
        name = f"groups-{uuid.uuid4().hex[:10]}"
        async with AsyncClient(system.bootstrap) as client:
            admin = client.admin
            await client.create_topic(name)
            names = [f"{name}-{i:03}" for i in range(1000)]
            for i in range(0, 1000, 100):
                await asyncio.gather(
                    *(admin.alter_group_offsets(g, {(name, 0): 0}) for g in names[i : i + 100])
                )
            assert set(names) <= {g.group for g in await admin.list_groups()}
            described = await admin.describe_groups(names)
            assert {g.state for g in described.values()} == {"Empty"}
            assert sorted(described) == names

    asyncio.run(main())
