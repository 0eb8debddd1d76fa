"""Carrying a plan out over the Kafka protocol: a few moves at a time, with progress in bytes.

Works against any cluster that speaks KIP-455. Whoever stops it stops nothing that was begun: moves
under way are the cluster's, and go on.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pegel.admin.admin import Admin
from pegel.balance.model import BrokerLoad, Move, PartitionLoad
from pegel.seams.clock import Clock
from pegel.types import TopicPartition

# Partitions that move at a time, unless told otherwise.
CONCURRENT_MOVES = 10
POLL_INTERVAL = 0.5
# The time left is told from what was copied in the last of these seconds.
RATE_WINDOW = 15.0

Sizes = dict[tuple[str, int, int], int]


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a plan is made from; ``moving`` are partitions that move already."""

    brokers: tuple[BrokerLoad, ...]
    partitions: tuple[PartitionLoad, ...]
    moving: frozenset[TopicPartition]


@dataclass(frozen=True, slots=True)
class Progress:
    """``seconds_left`` is None until it can be told."""

    moves_done: int
    moves_total: int
    bytes_done: int
    bytes_total: int
    seconds_left: float | None = None


@dataclass(slots=True)
class Outcome:
    """Reasons by partition for what was refused or did not become what was asked for."""

    failed: dict[TopicPartition, str] = field(default_factory=dict)


async def look(admin: Admin, timeout: float) -> Cluster:
    """The cluster as it will be when the moves under way are done. Raises PegelError."""
    described, topics, moves, sizes = await asyncio.gather(
        admin.describe_cluster(timeout=timeout),
        admin.list_topics(internal=True, timeout=timeout),
        admin.list_reassignments(timeout=timeout),
        replica_sizes(admin, timeout),
    )
    targets = {move.partition: move.target for move in moves}
    brokers = tuple(BrokerLoad(b.node_id, b.rack, not b.fenced) for b in described.brokers)
    partitions = []
    for topic in topics:
        for p in topic.partitions:
            key = TopicPartition(topic.name, p.partition)
            size = max((sizes.get((*key, broker), 0) for broker in p.replicas), default=0)
            partitions.append(PartitionLoad(key, targets.get(key, p.replicas), size))
    return Cluster(brokers, tuple(partitions), frozenset(targets))


async def replica_sizes(admin: Admin, timeout: float) -> Sizes:
    """Bytes of every replica on a live broker, by topic, partition and broker."""
    return {
        (replica.topic, replica.partition, directory.node_id): replica.size_bytes
        for directory in await admin.describe_log_dirs(timeout=timeout)
        for replica in directory.replicas
    }


async def carry_out(
    admin: Admin,
    clock: Clock,
    moves: Sequence[Move],
    timeout: float,
    on_progress: Callable[[Progress], None],
    *,
    concurrent: int = CONCURRENT_MOVES,
) -> Outcome:
    """Begin the moves, wait for them, then give leadership to whom it is meant for.

    Raises:
        PegelError: the cluster did not answer within ``timeout`` seconds.
    """
    outcome = Outcome()
    # What copies nothing takes effect at once and makes the way free.
    waiting = deque(sorted(moves, key=lambda move: bool(move.added)))
    running: dict[TopicPartition, Move] = {}
    meter = _Meter(clock, moves)
    while waiting or running:
        begun: dict[TopicPartition, Move] = {}
        while waiting and len(running) + len(begun) < concurrent:
            move = waiting.popleft()
            begun[move.partition] = move
        if begun:
            results = await admin.alter_reassignments(
                {move.partition: move.after for move in begun.values()}, timeout=timeout
            )
            for result in results:
                if result.error is not None:
                    outcome.failed[result.partition] = result.error
                    meter.drop(begun.pop(result.partition))
            running |= begun
        under_way = {m.partition for m in await admin.list_reassignments(timeout=timeout)}
        for partition in [p for p in running if p not in under_way]:
            meter.finish(running.pop(partition))
        sizes = await replica_sizes(admin, timeout) if _copies(running) else {}
        on_progress(meter.read(list(running.values()), sizes))
        if running:
            await asyncio.sleep(POLL_INTERVAL)
    await _check(admin, moves, timeout, outcome)
    done = [move.partition for move in moves if move.partition not in outcome.failed]
    if done:
        await admin.elect_leaders(done, timeout=timeout)
    return outcome


def _copies(running: dict[TopicPartition, Move]) -> bool:
    return any(move.added for move in running.values())


async def _check(admin: Admin, moves: Sequence[Move], timeout: float, outcome: Outcome) -> None:
    """A move that somebody else cancelled or changed meanwhile has ended as well."""
    topics = {t.name: t for t in await admin.list_topics(internal=True, timeout=timeout)}
    for move in moves:
        topic = topics.get(move.partition.topic)
        if topic is None or move.partition in outcome.failed:
            continue  # deleted meanwhile: nothing is left to move
        replicas = topic.partitions[move.partition.partition].replicas
        if set(replicas) != set(move.after):
            outcome.failed[move.partition] = f"it has ended with the replicas {list(replicas)}"


class _Meter:
    """Bytes copied so far, and how fast."""

    def __init__(self, clock: Clock, moves: Sequence[Move]) -> None:
        self._clock = clock
        self._moves_total = len(moves)
        self._bytes_total = sum(move.bytes_to_copy for move in moves)
        self._moves_done = 0
        self._bytes_done = 0
        self._samples: deque[tuple[float, int]] = deque([(clock.monotonic(), 0)])

    def finish(self, move: Move) -> None:
        self._moves_done += 1
        self._bytes_done += move.bytes_to_copy

    def drop(self, move: Move) -> None:
        self._moves_total -= 1
        self._bytes_total -= move.bytes_to_copy

    def read(self, running: Sequence[Move], sizes: Sizes) -> Progress:
        copied = self._bytes_done + sum(
            min(sizes.get((*move.partition, broker), 0), move.size_bytes)
            for move in running
            for broker in move.added
        )
        now = self._clock.monotonic()
        self._samples.append((now, copied))
        while now - self._samples[0][0] > RATE_WINDOW and len(self._samples) > 2:
            self._samples.popleft()
        began, before = self._samples[0]
        rate = (copied - before) / (now - began) if now > began else 0.0
        left = self._bytes_total - copied
        seconds = left / rate if rate > 0 else (0.0 if not left else None)
        return Progress(self._moves_done, self._moves_total, copied, self._bytes_total, seconds)
