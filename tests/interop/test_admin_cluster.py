"""kafka-python's and confluent-kafka's admin calls for moves, elections and the quorum."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import ElectionType
from confluent_kafka import TopicPartition as ConfluentPartition
from confluent_kafka.admin import AdminClient
from kafka import KafkaAdminClient, TopicPartition
from kafka.errors import NoReassignmentInProgressError

import pegel
from pegel.testing import LocalCluster

pytestmark = [pytest.mark.interop, pytest.mark.process, pytest.mark.timeout(120)]

PATIENCE = 40.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(brokers=4) as cluster:
        yield cluster


def create(cluster: LocalCluster, topic: str, *replicas: int) -> None:
    async def main() -> None:
        async with pegel.AsyncClient(cluster.bootstrap) as client:
            await client.admin.create_topic(topic, assignment={0: list(replicas)})

    asyncio.run(main())


def replicas_of(cluster: LocalCluster, topic: str) -> tuple[tuple[int, ...], int]:
    with pegel.Client(cluster.bootstrap) as client:
        (found,) = client.admin.describe_topic(topic).partitions
        return found.replicas, found.leader


def test_kafka_python_moves_lists_and_is_told_that_nothing_is_to_be_cancelled(
    cluster: LocalCluster,
) -> None:
    create(cluster, "kp", 1, 2, 3)
    partition = TopicPartition("kp", 0)
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    try:
        assert admin.alter_partition_reassignments({partition: [4, 3, 2]}) == {partition: None}
        deadline = time.monotonic() + PATIENCE
        while moving := admin.list_partition_reassignments():
            assert moving[partition]["adding_replicas"] == [4]
            assert moving[partition]["removing_replicas"] == [1]
            assert time.monotonic() < deadline
        assert replicas_of(cluster, "kp") == ((4, 3, 2), 4)
        refused = admin.alter_partition_reassignments({partition: None})
        assert refused[partition] is NoReassignmentInProgressError
    finally:
        admin.close()


def test_kafka_python_describes_the_quorum(cluster: LocalCluster) -> None:
    admin = KafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    try:
        found = admin.describe_metadata_quorum()
        partition = found["topics"][0]["partitions"][0]
        voters = partition["current_voters"]
        assert sorted(v["replica_id"] for v in voters) == [1, 2, 3, 4]
        assert partition["leader_id"] in (1, 2, 3, 4)
        assert sorted(node["node_id"] for node in found["nodes"]) == [1, 2, 3, 4]
    finally:
        admin.close()


def test_confluent_kafka_elects_the_preferred_leader(cluster: LocalCluster) -> None:
    create(cluster, "ck", 2, 3)
    with pegel.Client(cluster.bootstrap) as client:
        client.admin.alter_reassignments({pegel.TopicPartition("ck", 0): [3, 2]})
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    partition = ConfluentPartition("ck", 0)
    found = admin.elect_leaders(ElectionType.PREFERRED, [partition]).result(timeout=PATIENCE)
    error = found[partition]
    # The cluster may have done it by itself already.
    assert error is None or error.name() == "ELECTION_NOT_NEEDED"
    deadline = time.monotonic() + PATIENCE
    while replicas_of(cluster, "ck") != ((3, 2), 3):
        assert time.monotonic() < deadline
