"""Moving replicas between brokers (KIP-455), and forgetting a broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pegel.admin.base import AdminBase, brokers_share_ms
from pegel.admin.types import Reassignment, ReassignmentResult
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


class ReassignmentAdmin(AdminBase):
    """The part of ``Admin`` that moves replicas between brokers."""

    async def alter_reassignments(
        self,
        targets: Mapping[TopicPartition, Sequence[int] | None],
        *,
        allow_replication_change: bool = True,
        timeout: float | None = None,
    ) -> list[ReassignmentResult]:
        """Move partitions to other replicas, preferred leader first; ``None`` cancels a move.

        Each partition succeeds or fails by itself; a move goes on after the answer.

        Raises:
            BrokerError: the request as a whole was refused.
        """
        wait = self._timeout(timeout)
        topics: dict[str, list[ReassignablePartition]] = {}
        for (topic, partition), replicas in targets.items():
            topics.setdefault(topic, []).append(
                ReassignablePartition(
                    partition_index=partition,
                    replicas=None if replicas is None else list(replicas),
                )
            )
        request = AlterPartitionReassignmentsRequest(
            timeout_ms=brokers_share_ms(wait),
            allow_replication_factor_change=allow_replication_change,
            topics=[ReassignableTopic(name=t, partitions=p) for t, p in sorted(topics.items())],
        )
        response = await self._cluster.ask_any(
            request, AlterPartitionReassignmentsResponse, timeout=wait
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

    async def list_reassignments(self, *, timeout: float | None = None) -> list[Reassignment]:
        """Every move of replicas that is under way, by topic and partition."""
        wait = self._timeout(timeout)
        request = ListPartitionReassignmentsRequest(topics=None, timeout_ms=brokers_share_ms(wait))
        response = await self._cluster.ask_any(
            request, ListPartitionReassignmentsResponse, timeout=wait, patience=wait / 3
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

    async def unregister_broker(self, node_id: int, *, timeout: float | None = None) -> None:
        """Forget a broker: no replica is placed on it until it registers again.

        Raises:
            BrokerError: it is not registered, for example.
        """
        response = await self._cluster.ask_any(
            UnregisterBrokerRequest(broker_id=node_id), UnregisterBrokerResponse,
            timeout=self._timeout(timeout),
        )  # fmt: skip
        if response.error_code:
            raise broker_error(response.error_code, f"broker {node_id}", response.error_message)
