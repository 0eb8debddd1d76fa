"""The history of a Pegel cluster, and who may lead a partition beside its in-sync replicas."""

from __future__ import annotations

from dataclasses import dataclass

from pegel.cluster import Cluster
from pegel.errors import UnsupportedFeatureError, UnsupportedVersionError, broker_error
from pegel.protocol.messages.describe_events import (
    DescribedEvent,
    DescribeEventsRequest,
    DescribeEventsResponse,
)
from pegel.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    TopicRequest,
)

PARTITION_CHANGED = "partition changed"
BROKER_FENCED = "broker fenced"
BROKER_REGISTERED = "broker registered"
REPLICA_FAILED = "replica failed"
TOPIC_CREATED = "topic created"


@dataclass(frozen=True, slots=True)
class ClusterEvent:
    """One change of a broker, topic or partition, as the metadata log tells it.

    ``broker`` and ``partition`` are -1, ``topic`` is "" where they do not apply. ``at_ms`` is the
    wall clock of the controller, -1 if unknown. ``leader``, ``isr``, ``replicas`` and
    ``eligible_leader_replicas`` are a partition's state after the change, ``old_leader`` and
    ``old_isr`` those before.
    """

    sequence: int
    metadata_index: int
    at_ms: int
    kind: str
    broker: int = -1
    topic: str = ""
    partition: int = -1
    reason: str = ""
    detail: str = ""
    leader: int = -1
    old_leader: int = -1
    leader_epoch: int = -1
    isr: tuple[int, ...] = ()
    old_isr: tuple[int, ...] = ()
    eligible_leader_replicas: tuple[int, ...] = ()
    replicas: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class EventPage:
    """``last`` is where to go on; events before ``first`` are forgotten."""

    events: tuple[ClusterEvent, ...]
    last: int
    first: int


async def events(
    cluster: Cluster,
    *,
    after: int,
    topic: str,
    partition: int,
    limit: int,
    max_wait: float,
    timeout: float,
) -> EventPage:
    """Events later than ``after``.

    Raises:
        UnsupportedFeatureError: the cluster is not a Pegel cluster.
        BrokerError: the active controller does not answer.
    """
    request = DescribeEventsRequest(
        after=after, topic=topic, partition=partition, limit=limit, max_wait_ms=int(max_wait * 1000)
    )
    try:
        response = await cluster.ask_any(
            request,
            DescribeEventsResponse,
            timeout=timeout + max_wait,
            patience=timeout / 3 + max_wait,
        )
    except UnsupportedVersionError:
        raise UnsupportedFeatureError(
            "this cluster keeps no history of its metadata: only Pegel's brokers do"
        ) from None
    if response.error_code:
        raise broker_error(response.error_code, "events", response.error_message)
    return EventPage(tuple(_event(e) for e in response.events), response.last, response.first)


async def eligible_leader_replicas(
    cluster: Cluster, topic: str, *, timeout: float
) -> dict[int, tuple[int, ...]]:
    """By partition: replicas outside of the ISR that hold all committed data (KIP-966)."""
    request = DescribeTopicPartitionsRequest(topics=[TopicRequest(name=topic)])
    eligible: dict[int, tuple[int, ...]] = {}
    while True:
        try:
            response = await cluster.ask_any(
                request, DescribeTopicPartitionsResponse, timeout=timeout, patience=timeout / 3
            )
        except UnsupportedVersionError:
            return {}
        for found in response.topics:
            for p in found.partitions:
                eligible[p.partition_index] = tuple(p.eligible_leader_replicas or ())
        if response.next_cursor is None:
            return eligible
        request = DescribeTopicPartitionsRequest(topics=request.topics, cursor=response.next_cursor)


def _event(e: DescribedEvent) -> ClusterEvent:
    return ClusterEvent(
        e.sequence, e.metadata_index, e.at_ms, e.kind, e.broker_id, e.topic, e.partition,
        e.reason, e.detail, e.leader, e.old_leader, e.leader_epoch, tuple(e.isr),
        tuple(e.old_isr), tuple(e.eligible_leader_replicas), tuple(e.replicas),
    )  # fmt: skip
