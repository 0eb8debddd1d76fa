"""A topic of many partitions: when its creation is answered, every broker serves its share."""

from __future__ import annotations

import asyncio

import pegel
from pegel.testing import LocalCluster
from pegel_bench.load.asking import Asker

PARTITIONS = 600


def test_who_was_told_of_a_topic_may_use_it() -> None:
    async def create(bootstrap: str) -> None:
        async with pegel.AsyncClient(bootstrap) as client:
            await client.create_topic("many", partitions=PARTITIONS, replication=3)

    with LocalCluster(brokers=3) as cluster:
        asker = Asker(cluster.bootstrap)
        asker.addresses()  # connected: the first question comes at once
        asyncio.run(create(cluster.bootstrap))
        asker.leaders("many", PARTITIONS, wait=0.0)
        for partition in reversed(range(PARTITIONS)):  # the last ones are hosted last
            assert asker.end_offset("many", partition) == 0  # raises what the leader answers
        asker.close()
