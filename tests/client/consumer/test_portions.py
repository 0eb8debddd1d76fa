"""A client of very many partitions asks in several requests; a broker refuses what is too large."""

from __future__ import annotations

import asyncio

import pytest

from pegel import AsyncClient, TopicPartition, portions
from pegel.consumer import session
from pegel.portions import AT_ONCE, in_portions
from pegel.producer import sender
from pegel.protocol import codec
from tests.support.node import NodeUnderTest, run

PARTITIONS = 10


def test_a_portion_of_topics_with_a_partition_each_is_taken_by_every_api() -> None:
    assert 2 * AT_ONCE < codec.MAX_REQUEST_ELEMENTS
    assert 2 * (AT_ONCE + session._FORGOTTEN_AT_ONCE) < codec.MAX_REQUEST_ELEMENTS
    assert list(in_portions(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(in_portions([])) == []


def test_a_client_of_more_partitions_than_one_request_may_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It was refused by closing the connection, and asked again for ever."""
    for module in (portions, session, sender):
        monkeypatch.setattr(module, "AT_ONCE", 3)
    monkeypatch.setattr(session, "_FORGOTTEN_AT_ONCE", 1)
    for key in codec.MORE_REQUEST_ELEMENTS:
        monkeypatch.setitem(codec.MORE_REQUEST_ELEMENTS, key, 8)

    async def main(node: NodeUnderTest) -> None:
        host, port = node.node.addresses.client or ("", 0)
        async with AsyncClient(f"{host}:{port}") as client:
            topics = [f"t{n}" for n in range(PARTITIONS)]
            for topic in topics:
                await client.create_topic(topic)
            async with client.producer() as producer:
                await asyncio.gather(*(producer.send(topic, b"one") for topic in topics))
            read = set()
            async with client.consumer(*topics, group="g", offset_reset="earliest") as consumer:
                while len(read) < PARTITIONS:
                    batch = await consumer.next_batch(timeout=20)
                    assert batch is not None
                    read.add(batch.topic)
                await consumer.next_batch(timeout=0.01)  # came back: the last batch is finished
            offsets = await client.admin.group_offsets("g", [TopicPartition(t, 0) for t in topics])
            assert {tp: at.offset for tp, at in offsets.items()} == {
                TopicPartition(topic, 0): 1 for topic in topics
            }

    run(main)
