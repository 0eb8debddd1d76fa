"""A script of faults, played on some cluster, and the transcript of what came of it.

A script is a coroutine of steps. It is played by ``Play``, which knows three brokers by their
parts, A, B and C, and waits for conditions, never for a time. What kind of cluster it is, is behind
``Driver``: nodes of a simulation or processes of this machine.

The transcript holds what may not depend on time: answers to writes, each change of the partition
and of the brokers in the order of the metadata log, what each node has cut off its log, and what
the logs hold in the end. It leaves out times, ports, the order within an ISR, the terms of the
controllers, and how the death of a node was noticed whose links were cut: the proxies of a cluster
of processes refuse connections for a dead node, which proves its death at once, while a cut cable
says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import pegel
from pegel.admin.events import PARTITION_CHANGED, ClusterEvent
from pegel.config import Acks
from pegel.errors import PegelError
from pegel.record.batch import iter_batches
from pegel.record.decode import decode_batch

TOPIC = "t"
PARTITION = "t-0"
# Bounds a script that cannot go on; nothing is asserted about time.
WAIT = 40.0
# How the death of a node that was cut off was noticed; see above.
NOTICED = {"killed": "killed or hung", "hung": "killed or hung"}


@dataclass(frozen=True, slots=True)
class Cut:
    """A node's log line ``truncated``: its log ended at ``before`` and ends at ``offset`` now."""

    node: int
    epoch: int
    offset: int
    before: int


class Driver(Protocol):
    """Three brokers, numbered from 1, each of them a controller too."""

    client: pegel.AsyncClient

    def active_controller(self) -> int: ...

    async def kill(self, node: int) -> None:
        """SIGKILL."""

    async def restart(self, node: int) -> None:
        """Start it again on what it left, and wait until it serves."""

    def pause(self, node: int) -> None:
        """SIGSTOP."""

    def resume(self, node: int) -> None:
        """SIGCONT."""

    def separate(self, node: int, others: Collection[int]) -> None:
        """Between brokers only: what they say to controllers, and clients to them, gets through."""

    def mend(self) -> None:
        """All links are whole again."""

    def cuts(self) -> Iterable[Cut]:
        """Of ``PARTITION``, as the nodes have logged them, in the order of each node's log."""

    def segment(self, node: int) -> bytes:
        """The only file of records of ``PARTITION`` on the node's disk."""


@dataclass(frozen=True, slots=True)
class Script:
    """``settings`` are those of the brokers, ``config`` that of the topic."""

    name: str
    steps: Callable[[Play], Awaitable[None]]
    leader_is_controller: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)


class Play:
    """One script on one cluster; steps return when what they ask for is done."""

    def __init__(self, driver: Driver, script: Script) -> None:
        self._driver = driver
        self._script = script
        active = driver.active_controller()
        others = [node for node in (1, 2, 3) if node != active]
        parts = [active, *others] if script.leader_is_controller else [*others, active]
        self._node = dict(zip("ABC", parts, strict=True))
        self._part = {node: part for part, node in self._node.items()}
        self._said: list[str] = []
        self._history: list[str] = []
        self._seen = 0  # events of the history
        self._written = 0
        self._leader, self._in_sync = "A", "ABC"
        self._is_cut = False
        self._silent = False  # somebody died behind a cut

    # -- steps

    async def begin(self) -> None:
        """Make the topic: one partition, led by A, on all three."""
        admin = self._driver.client.admin
        await admin.create_topic(
            TOPIC, assignment={0: list(self._node.values())}, config=self._script.config
        )
        self._seen = (await admin.events(topic=TOPIC)).last

    async def write(self, count: int, acks: Acks) -> None:
        """Write so many values, the next numbers, and wait for their acknowledgement."""
        values = [b"%d" % number for number in range(self._written, self._written + count)]
        self._written += count
        async with self._driver.client.producer(acks=acks, delivery_timeout=WAIT) as producer:
            result = await producer.send_many(TOPIC, values, partition=0)
        told = ", ".join(f"{r.count} from offset {r.first_offset}" for r in result.ranges)
        self._say(f"write {b' '.join(values).decode()} with acks={acks}: {told}")

    def cut(self, part: str, others: str) -> None:
        self._say(f"cut {part} from {others}")
        self._is_cut = True
        self._driver.separate(self._node[part], [self._node[other] for other in others])

    def mend(self) -> None:
        self._say("mend")
        self._is_cut = self._silent = False
        self._driver.mend()

    async def kill(self, part: str) -> None:
        self._say(f"kill {part}")
        self._silent = self._is_cut
        await self._driver.kill(self._node[part])

    async def restart(self, part: str) -> None:
        self._say(f"restart {part}")
        await self._driver.restart(self._node[part])

    def pause(self, part: str) -> None:
        self._say(f"pause {part}")
        self._driver.pause(self._node[part])

    def resume(self, part: str) -> None:
        self._say(f"resume {part}")
        self._driver.resume(self._node[part])

    async def elect_preferred(self) -> None:
        (result,) = await self._driver.client.admin.elect_leaders([pegel.TopicPartition(TOPIC, 0)])
        self._say(f"elect the preferred leader: {result.error or 'done'}")

    async def until(self, leader: str, in_sync: str) -> None:
        """Wait until the metadata log says so (an empty leader: nobody).

        Raises:
            TimeoutError: it never does.
        """
        wanted = f"{leader or 'nobody'} leads, {in_sync or 'nobody'} in sync"
        end = asyncio.get_running_loop().time() + WAIT
        while (self._leader, self._in_sync) != (leader, in_sync):
            if asyncio.get_running_loop().time() > end:
                raise TimeoutError(f"never: {wanted}")
            try:
                # A broker that hangs is not waited for long.
                page = await self._driver.client.admin.events(
                    after=self._seen, topic=TOPIC, max_wait=0.2, timeout=2.0
                )
            except PegelError:  # no controller is active, for a time
                await asyncio.sleep(0.02)
                continue
            self._take(page.events)
            self._seen = page.last
        self._say(f"until {wanted}")

    # -- what is written down

    def _say(self, line: str) -> None:
        self._said.append(line)

    def _parts(self, nodes: Iterable[int]) -> str:
        return "".join(sorted(self._part[node] for node in nodes))

    def _take(self, events: Iterable[ClusterEvent]) -> None:
        for event in events:
            reason = NOTICED.get(event.reason, event.reason) if self._silent else event.reason
            if event.kind == PARTITION_CHANGED:
                self._leader = self._part.get(event.leader, "")
                self._in_sync = self._parts(event.isr)
                self._history.append(
                    f"{PARTITION} {reason}: {self._leader or 'nobody'} leads in epoch "
                    f"{event.leader_epoch}, {self._in_sync or 'nobody'} in sync, "
                    f"{self._parts(event.eligible_leader_replicas) or 'nobody'} eligible"
                )
            elif event.broker >= 0:
                why = f": {reason}" if reason else ""
                self._history.append(f"{event.kind} {self._part[event.broker]}{why}")

    def _records(self, node: int) -> str:
        """What the node's log holds: value@epoch of the leader that wrote it, by offset."""
        data, found = self._driver.segment(node), []
        for position, header in iter_batches(data):
            columns = decode_batch(data, position)
            for offset, value in zip(columns.offsets, columns.values, strict=True):
                assert offset == len(found), f"offset {offset} where {len(found)} is due"
                found.append(f"{(value or b'').decode()}@{header.partition_leader_epoch}")
        return " ".join(found)

    def fails(self, error: Exception) -> None:
        self._say(f"{type(error).__name__}: {error}")

    def transcript(self) -> list[str]:
        cuts = sorted(self._driver.cuts(), key=lambda cut: self._part[cut.node])
        return [
            f"# {self._script.name}",
            *self._said,
            "",
            "# metadata log",
            *self._history,
            "",
            "# truncations",
            *(
                f"{self._part[c.node]} from {c.before} to {c.offset} in epoch {c.epoch}"
                for c in cuts
            ),
            "",
            "# logs",
            *(f"{part}: {self._records(node)}" for part, node in self._node.items()),
        ]


async def play(driver: Driver, script: Script) -> list[str]:
    """The transcript; a script that cannot go on says so in it."""
    played = Play(driver, script)
    await played.begin()
    try:
        await script.steps(played)
    except (PegelError, TimeoutError) as error:
        played.fails(error)
    return played.transcript()
