"""Moving replicas between brokers (KIP-455), and forgetting a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pegel.cluster import Cluster
from pegel.errors import broker_error, to_error_code
from pegel.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignableTopic,
)
from pegel.protocol.messages.list_partition_reassignments import (
    ListPartitionReassignmentsRequest,
    ListPartitionReassignmentsResponse,
)
from pegel.protocol.messages.unregister_broker import (
    UnregisterBrokerRequest,
    UnregisterBrokerResponse,
)
from pegel.types import TopicPartition


@dataclass(frozen=True, slots=True)
class Reassignment:
    """A move under way. ``replicas`` are those of its target, then those in ``removing``."""

    partition: TopicPartition
    replicas: tuple[int, ...]
    adding: tuple[int, ...]
    removing: tuple[int, ...]

    @property
    def target(self) -> tuple[int, ...]:
        return tuple(r for r in self.replicas if r not in self.removing)


@dataclass(frozen=True, slots=True)
class ReassignmentResult:
    """``error`` is the broker's reason where a move was refused, else ``None``."""

    partition: TopicPartition
    error: str | None


async def alter_reassignments(
    cluster: Cluster,
    targets: Mapping[TopicPartition, Sequence[int] | None],
    *,
    allow_replication_change: bool,
    timeout: float,
) -> list[ReassignmentResult]:
    """Begin moves to the replicas given, preferred leader first; ``None`` cancels one.

    Raises:
        BrokerError: the request as a whole was refused.
    """
    topics: dict[str, list[ReassignablePartition]] = {}
    for (topic, partition), replicas in targets.items():
        topics.setdefault(topic, []).append(
            ReassignablePartition(
                partition_index=partition, replicas=None if replicas is None else list(replicas)
            )
        )
    request = AlterPartitionReassignmentsRequest(
        timeout_ms=int(timeout * 1000),
        allow_replication_factor_change=allow_replication_change,
        topics=[ReassignableTopic(name=t, partitions=p) for t, p in sorted(topics.items())],
    )
    response = await cluster.ask_any(
        request, AlterPartitionReassignmentsResponse, timeout=timeout + 1.0
    )
    if response.error_code:
        raise broker_error(response.error_code, "reassignment", response.error_message)
    return [
        ReassignmentResult(
            TopicPartition(topic.name, p.partition_index),
            (p.error_message or to_error_code(p.error_code).message) if p.error_code else None,
        )
        for topic in response.responses
        for p in topic.partitions
    ]


async def list_reassignments(cluster: Cluster, *, timeout: float) -> list[Reassignment]:
    """Every move under way, by topic and partition. Raises BrokerError."""
    request = ListPartitionReassignmentsRequest(topics=None, timeout_ms=int(timeout * 1000))
    response = await cluster.ask_any(
        request, ListPartitionReassignmentsResponse, timeout=timeout, patience=timeout / 3
    )
    if response.error_code:
        raise broker_error(response.error_code, "reassignments", response.error_message)
    found = [
        Reassignment(
            TopicPartition(topic.name, p.partition_index),
            tuple(p.replicas),
            tuple(p.adding_replicas),
            tuple(p.removing_replicas),
        )
        for topic in response.topics
        for p in topic.partitions
    ]
    return sorted(found, key=lambda r: r.partition)


async def unregister_broker(cluster: Cluster, node_id: int, *, timeout: float) -> None:
    """Forget a broker: no replica may be placed on it until it registers again.

    Raises:
        BrokerError: it is not registered, for example.
    """
    response = await cluster.ask_any(
        UnregisterBrokerRequest(broker_id=node_id), UnregisterBrokerResponse, timeout=timeout
    )
    if response.error_code:
        raise broker_error(response.error_code, f"broker {node_id}", response.error_message)
