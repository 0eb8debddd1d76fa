"""What clients do while things go wrong; each writes down what it was promised and what it saw.

To add one: a coroutine ``(cluster, client, name, random)`` under ``@workload(chance)``. It runs in
a process of its own until ``cluster.work_ends`` and must end soon after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pegel
from pegel.admin.types import ConfigResourceType
from pegel.errors import PegelError
from pegel.testing.delivery import Place, Sent
from pegel.types import TopicPartition
from pegel_broker.coordinator.partitioning import partition_for
from tests.simulation.cluster.cluster import Cluster

MAIN, FAST, GROUP = "main", "fast", "readers"
PARTITIONS = 2
OFFSETS_PARTITIONS = 2
DELIVERY_TIMEOUT = 12.0

Work = Callable[[Cluster, pegel.AsyncClient, str, Random], Coroutine[Any, Any, None]]
WORKLOADS: dict[str, tuple[float, Work]] = {}


def workload(chance: float) -> Callable[[Work], Work]:
    """Register; a seed has it with this chance."""

    def register(work: Work) -> Work:
        WORKLOADS[work.__name__] = (chance, work)
        return work

    return register


async def make_topics(cluster: Cluster, client: pegel.AsyncClient) -> None:
    # Clocks jump by hours here; how far apart they may be is not what is tested.
    config: dict[str, int] = {"message.timestamp.after.max.ms": 2**62}
    if cluster.shape.flush_each:
        config["flush.messages"] = 1
    await client.create_topic(
        MAIN, partitions=PARTITIONS, replication=3, config={"min.insync.replicas": 2, **config}
    )
    # Two in sync here as well: else what acks=1 wrote is read while one disk alone has it.
    await client.create_topic(
        FAST, partitions=1, replication=3, config={"min.insync.replicas": 2, **config}
    )


async def _produce(
    cluster: Cluster,
    client: pegel.AsyncClient,
    name: str,
    r: Random,
    *,
    topic: str,
    partitions: int,
    acks: Any,
    pause: float,
) -> None:
    """Several sends at a time, of a few values each; partitions are chosen here."""
    durable = acks == "all"
    orders: dict[Place, int] = {}
    running: dict[asyncio.Task[None], None] = {}
    in_flight = r.choice((1, 2, 6))
    linger = r.choice((0.0, 0.0, 5.0))

    async def send(producer: pegel.Producer, partition: int, sent: list[Sent]) -> None:
        try:
            result = await producer.send_many(
                topic, [one.value for one in sent], partition=partition
            )
        except (PegelError, TimeoutError) as error:
            cluster.note(f"{name} gave up {sent[0].value!r}: {type(error).__name__}")
            return
        position = 0
        for part in result.ranges:
            for n in range(part.count):
                sent[position].acknowledged = acks != 0
                sent[position].offset = part.first_offset + n if part.first_offset >= 0 else None
                position += 1

    async with client.producer(
        acks=acks, linger_ms=linger, delivery_timeout=DELIVERY_TIMEOUT
    ) as producer:
        while not cluster.work_ends:
            partition = r.randrange(partitions)
            place = (topic, partition)
            made = []
            for _ in range(r.choice((1, 1, 1, 2, 5))):
                order = orders[place] = orders.get(place, -1) + 1
                value = f"{name}/{partition}/{order}/".encode() + b"." * r.choice((0, 10, 900))
                made.append(
                    cluster.history.send(
                        Sent(value, name, place, order, durable=durable, once=durable)
                    )
                )
            task = asyncio.create_task(send(producer, partition, made))
            running[task] = None
            task.add_done_callback(lambda done: running.pop(done, None))
            while len(running) >= in_flight and not cluster.work_ends:
                await asyncio.wait(list(running), timeout=0.2, return_when="FIRST_COMPLETED")
            await asyncio.sleep(pause * 2 * r.random())
        if running:
            await asyncio.wait(list(running))


@workload(1.0)
async def idempotent(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    """acks=all to a topic with min.insync.replicas=2: nothing lost, doubled or reordered."""
    pause = r.choice((0.1, 0.5, 0.5, 1.0))
    await _produce(
        cluster, client, name, r, topic=MAIN, partitions=PARTITIONS, acks="all", pause=pause
    )


@workload(0.3)
async def idempotent_too(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    await _produce(
        cluster, client, name, r, topic=MAIN, partitions=PARTITIONS, acks="all", pause=0.8
    )


@workload(0.5)
async def quick(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    """acks=1 or 0: may be lost, but never read and then gone."""
    acks = r.choice((1, 1, 0))
    await _produce(cluster, client, name, r, topic=FAST, partitions=1, acks=acks, pause=0.4)


@workload(0.5)
async def quick_too(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    """On the other host: a cut may leave each with a broker that takes itself for the leader."""
    await _produce(cluster, client, name, r, topic=FAST, partitions=1, acks=1, pause=0.4)


async def _consume(
    cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random, restart_every: float
) -> None:
    loop = asyncio.get_running_loop()
    while not cluster.work_ends:
        until = loop.time() + restart_every * (0.5 + r.random())
        places = [(MAIN, p) for p in range(PARTITIONS)] + [(FAST, 0)]
        parts: dict[Place, list[tuple[int, bytes]]] = {place: [] for place in places}
        for place, part in parts.items():
            cluster.history.reads[name, place].append(part)
        try:
            async with client.consumer(
                partitions=places, offset_reset="earliest", max_wait=1.0
            ) as consumer:
                while loop.time() < until and not cluster.work_ends:
                    batch = await consumer.next_batch(timeout=1.0)
                    if batch is not None:
                        read = zip(batch.offsets, batch.values, strict=True)
                        parts[batch.topic, batch.partition].extend(read)  # type: ignore[arg-type]
        except (PegelError, TimeoutError) as error:
            cluster.note(f"{name}: {type(error).__name__}")
            await asyncio.sleep(0.1)


@workload(1.0)
async def consumer(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    await _consume(cluster, client, name, r, 1000.0)


@workload(0.5)
async def restarting_consumer(
    cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random
) -> None:
    await _consume(cluster, client, name, r, 4.0)


async def _join(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    """A member of a group: reads what it is given and commits every now and then."""
    loop, history = asyncio.get_running_loop(), cluster.history
    while not cluster.work_ends:
        until = loop.time() + r.choice((3.0, 1000.0)) * (0.5 + r.random())
        done: dict[TopicPartition, int] = {}
        try:
            async with client.consumer(
                MAIN, group=GROUP, offset_reset="earliest", commit="manual", max_wait=1.0,
                session_timeout=6.0, heartbeat_interval=0.5,
            ) as member:  # fmt: skip
                while loop.time() < until and not cluster.work_ends:
                    batch = await member.next_batch(timeout=1.0)
                    if batch is not None:
                        place = TopicPartition(batch.topic, batch.partition)
                        history.group_reads[place].update(batch.offsets)
                        done[place] = batch.offsets[-1] + 1
                    if done and r.random() < 0.5:
                        chosen, done = done, {}
                        await member.commit(chosen, timeout=5.0)
                        for place, offset in chosen.items():
                            before = history.group_commits.get(place, 0)
                            history.group_commits[place] = max(before, offset)
        except (PegelError, TimeoutError) as error:
            cluster.note(f"{name}: {type(error).__name__}")
            await asyncio.sleep(0.2)


@workload(0.25)
async def member(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    await _join(cluster, client, name, r)


@workload(0.25)
async def member_too(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    await _join(cluster, client, name, r)


@workload(0.4)
async def administrator(cluster: Cluster, client: pegel.AsyncClient, name: str, r: Random) -> None:
    """Topics come, grow, move and go; configurations change; preferred leaders are asked for."""
    topics: dict[str, int] = {}
    made = 0
    while not cluster.work_ends:
        await asyncio.sleep(2.0 * r.random())
        what = r.choice(("create", "create", "delete", "grow", "configure", "elect", "move"))
        topic = r.choice(sorted(topics)) if topics else ""
        try:
            if what == "create" and len(topics) < 4:
                made += 1
                topics[f"passing-{made}"] = 1
                await client.create_topic(
                    f"passing-{made}", partitions=1, replication=r.choice((1, 3)), timeout=5.0
                )
            elif what == "delete" and topic:
                del topics[topic]
                await client.delete_topic(topic, timeout=5.0)
            elif what == "grow" and topic and topics[topic] < 4:
                topics[topic] += 1
                await client.admin.grow_topic(topic, topics[topic], timeout=5.0)
            elif what == "configure" and topic:
                changes = {"segment.bytes": r.choice((1_048_576, 2_097_152))}
                await client.admin.alter_config(
                    ConfigResourceType.TOPIC, topic, changes, timeout=5.0
                )
            elif what == "elect":
                await client.admin.elect_leaders(timeout=5.0)
            elif what == "move":
                replicas = r.sample(list(cluster.nodes), 3)
                target = {TopicPartition(MAIN, r.randrange(PARTITIONS)): replicas}
                await client.admin.alter_reassignments(target, timeout=5.0)
        except (PegelError, TimeoutError) as error:
            cluster.note(f"{name} {what} {topic}: {type(error).__name__}")


def coordinator_of(group: str) -> Place:
    """The partition whose leader coordinates it."""
    return "__consumer_offsets", partition_for(group, OFFSETS_PARTITIONS)


async def read_all(cluster: Cluster, client: pegel.AsyncClient, lost: set[Place]) -> None:
    """Every record of every topic in use, from the log start to the end, into the history; but for
    ``lost``."""
    places = [(MAIN, p) for p in range(PARTITIONS)] + [(FAST, 0)]
    places = [place for place in places if place not in lost]
    if not places:
        return
    for place in places:
        cluster.history.final[place] = []
    async with client.consumer(partitions=places, offset_reset="earliest") as reader:
        starts = await _until_answered(reader.beginning_offsets)
        ends = await _until_answered(reader.end_offsets)
        for place, start in starts.items():
            cluster.history.log_starts[place.topic, place.partition] = start
        while not reader.reached(ends):
            batch = await reader.next_batch(timeout=2.0)
            if batch is not None:
                final = cluster.history.final[batch.topic, batch.partition]
                final.extend(zip(batch.offsets, batch.values, strict=True))  # type: ignore[arg-type]


async def _until_answered(
    ask: Callable[[], Coroutine[Any, Any, dict[TopicPartition, int]]],
) -> dict[TopicPartition, int]:
    """Ask again for as long as whoever waits for this allows.

    One time-out of a client is shorter than what a leader whose disk hangs may hold things up
    (``DISK_STALL_MAX``): it knows no end (KIP-207) before others lead.
    """
    while True:
        try:
            return await ask()
        except PegelError:
            await asyncio.sleep(0.1)


async def read_group(cluster: Cluster, client: pegel.AsyncClient) -> None:
    """What the group has committed, if there is a group."""
    if cluster.history.group_reads:
        offsets = await client.admin.group_offsets(GROUP, timeout=20.0)
        for place, committed in offsets.items():
            cluster.history.group_final[place.topic, place.partition] = committed.offset


async def write_everywhere(
    cluster: Cluster, client: pegel.AsyncClient, name: str, lost: set[Place]
) -> None:
    """One acknowledged record in each partition, but for ``lost``: progress."""
    async with client.producer(acks="all", delivery_timeout=60.0) as producer:
        for partition in range(PARTITIONS):
            place = (MAIN, partition)
            if place in lost:
                continue
            value = f"{name}/{partition}/0/last".encode()
            sent = cluster.history.send(Sent(value, name, place, 0))
            where = await producer.send(MAIN, value, partition=partition)
            sent.acknowledged, sent.offset = True, where.offset
