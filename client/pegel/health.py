"""Whether a cluster is well: problems in one line each, with the command that helps. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from pegel.admin.types import (
    ClusterDescription,
    LogDir,
    PartitionDescription,
    Reassignment,
    TopicDescription,
)
from pegel.types import TopicPartition

# Partitions named in one line; the rest is counted.
_NAMED_MAX = 5


class Health(IntEnum):
    """Also the exit code of ``pegel cluster health``."""

    HEALTHY = 0
    DEGRADED = 1
    UNAVAILABLE = 2


@dataclass(frozen=True, slots=True)
class Problem:
    """``text`` says what is wrong and whom it concerns, ``command`` what to type next."""

    health: Health
    text: str
    command: str


def find_problems(
    cluster: ClusterDescription,
    topics: Sequence[TopicDescription],
    min_insync_replicas: Mapping[str, int],
    log_dirs: Sequence[LogDir] = (),
    failed: Mapping[tuple[str, int], Mapping[int, str]] | None = None,
) -> list[Problem]:
    """Every problem, the worst first.

    Args:
        failed: by partition and broker, what is wrong with a replica whose files are damaged.
        min_insync_replicas: by topic, at least for those with replicas out of sync.
    """
    live = {b.node_id for b in cluster.brokers if not b.fenced}
    problems = [
        Problem(
            Health.DEGRADED,
            f"broker {b.node_id} ({b.host}:{b.port}) is fenced: it is down, hung or cut off",
            "pegel cluster events --last 20",
        )
        for b in cluster.brokers
        if b.fenced
    ]
    problems += [
        Problem(
            Health.DEGRADED,
            f"log directory {d.path} of broker {d.node_id} is offline ({d.error})",
            "pegel cluster describe",
        )
        for d in log_dirs
        if d.error
    ]
    damaged = _damaged(topics, failed or {})
    problems += damaged[:_NAMED_MAX]
    if len(damaged) > _NAMED_MAX:
        text = f"{len(damaged) - _NAMED_MAX} more replicas are damaged"
        problems.append(Problem(Health.DEGRADED, text, "pegel cluster events --last 1000"))
    for topic in topics:
        problems += _topic_problems(topic, live, min_insync_replicas.get(topic.name, 1))
    return sorted(problems, key=lambda problem: -problem.health)


def without_moves(
    topics: Sequence[TopicDescription], moves: Sequence[Reassignment]
) -> list[TopicDescription]:
    """The topics with the replicas that they have by right.

    A replica that a move adds is no replica that is missing while it is copied, and no more of
    them are asked to be in sync than before (KIP-455).
    """
    adding = {tuple(move.partition): set(move.adding) for move in moves}
    moving = {topic for topic, _ in adding}
    return [
        topic
        if topic.name not in moving
        else replace(
            topic,
            partitions=tuple(
                replace(
                    p,
                    replicas=tuple(
                        r for r in p.replicas if r not in adding.get((topic.name, p.partition), ())
                    ),
                )
                for p in topic.partitions
            ),
        )
        for topic in topics
    ]


def under_replicated(
    topics: Sequence[TopicDescription], moves: Sequence[Reassignment]
) -> frozenset[TopicPartition]:
    """Partitions with fewer replicas in sync than they have by right (KIP-455)."""
    return frozenset(
        TopicPartition(topic.name, p.partition)
        for topic in without_moves(topics, moves)
        for p in topic.partitions
        if len(p.isr) < len(p.replicas)
    )


def worst(problems: Sequence[Problem]) -> Health:
    """The health of the whole: that of its worst problem."""
    return max((p.health for p in problems), default=Health.HEALTHY)


def _topic_problems(
    topic: TopicDescription, live: Collection[int], min_insync_replicas: int
) -> list[Problem]:
    offline: list[PartitionDescription] = []
    refusing: list[PartitionDescription] = []
    at_limit: list[PartitionDescription] = []
    short: list[PartitionDescription] = []
    for p in topic.partitions:
        needed = min(min_insync_replicas, len(p.replicas))
        in_sync = sum(r in live for r in p.isr)
        if p.leader < 0 or p.leader not in live:
            offline.append(p)
        elif in_sync < needed:
            refusing.append(p)
        elif in_sync < len(p.replicas):
            # A topic that always runs at its minimum is short only where a replica is missing.
            (at_limit if in_sync == needed else short).append(p)
    refused = (
        "has fewer in-sync replicas than min.insync.replicas: writes with acks=all are refused"
    )
    found = [
        (Health.UNAVAILABLE, offline, "has no leader: nothing can be written or read"),
        (Health.UNAVAILABLE, refusing, refused),
        (Health.DEGRADED, at_limit, "is under-replicated, and one more failure stops writes"),
        (Health.DEGRADED, short, "is under-replicated"),
    ]
    return [
        Problem(
            health,
            f"{_named(topic.name, partitions)} {text}",
            f"pegel explain {topic.name} {partitions[0].partition}",
        )
        for health, partitions, text in found
        if partitions
    ]


def damaged_replicas(
    topic: TopicDescription, failed: Mapping[tuple[str, int], Mapping[int, str]]
) -> list[tuple[PartitionDescription, int, str]]:
    """Partition, broker and what is wrong, for each replica that is offline by its own damage."""
    return [
        (p, broker, why)
        for p in topic.partitions
        for broker, why in failed.get((topic.name, p.partition), {}).items()
        if broker in p.offline_replicas
    ]


def _damaged(
    topics: Sequence[TopicDescription], failed: Mapping[tuple[str, int], Mapping[int, str]]
) -> list[Problem]:
    return [
        Problem(
            Health.DEGRADED if p.leader >= 0 else Health.UNAVAILABLE,
            f"the replica of {topic.name}-{p.partition} on broker {broker} is damaged: {why}",
            f"pegel explain {topic.name} {p.partition}",
        )
        for topic in topics
        for p, broker, why in damaged_replicas(topic, failed)
    ]


def _named(topic: str, partitions: Sequence[PartitionDescription]) -> str:
    """The grammar stays that of one: ``each of orders-0, orders-3 has …``."""
    names = [f"{topic}-{p.partition}" for p in partitions[:_NAMED_MAX]]
    if len(partitions) == 1:
        return names[0]
    more = len(partitions) - len(names)
    rest = f" and {more} more" if more else ""
    return f"each of {', '.join(names)}{rest}"
