"""How old the oldest record is that a group has not read."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from pegel.cluster import Cluster
from pegel.config import ConsumerOptions
from pegel.consumer.consumer import Consumer
from pegel.errors import PegelError
from pegel.types import TopicPartition


async def oldest_unread(
    cluster: Cluster, positions: Mapping[TopicPartition, int], timeout: float
) -> dict[TopicPartition, float]:
    """Age in seconds of the record at each position, by its timestamp and this host's clock.

    Reads one batch of each partition. A partition without a readable record there (all of it is
    control records, or it cannot be read in time) is left out.
    """
    ages: dict[TopicPartition, float] = {}
    if not positions:
        return ages
    options = ConsumerOptions(offset_reset="earliest", partition_fetch_bytes=1)
    consumer = Consumer(cluster, (), list(positions), options)
    try:
        async with asyncio.timeout(timeout):
            await consumer.start()
            for tp, offset in positions.items():
                consumer.seek(tp, offset)
            while len(ages) < len(positions):
                batch = await consumer.next_batch()
                assert batch is not None
                tp = TopicPartition(batch.topic, batch.partition)
                if tp not in ages:
                    age = cluster.clock.wall_ms() - batch.timestamps[0]
                    ages[tp] = max(0.0, age / 1000)
                    consumer.pause(tp)
    except (TimeoutError, PegelError):
        pass
    finally:
        await consumer.close()
    return ages
