"""What must hold at every moment, whatever breaks; looked at from outside of the code under test.

``Observer`` sees each append and each committed metadata entry as it happens; ``Checker.look`` is
called at short intervals of simulated time. Each rule says what it protects. A rule is applied to
a replica, and to a partition, whenever anything has changed that the rule looks at (``_standing``).
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from pegel_broker.log.partition_log import PartitionLog
from pegel_broker.node import Node
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.partition import Follower, Leader
from pegel_controller.metadata import MetadataImage
from pegel_controller.metadata.image import PartitionState
from pegel_controller.node import ControllerNode
from tests.simulation.cluster.cluster import Cluster
from tests.simulation.cluster.kernel import SimLoop

# Topics that need two replicas in sync: one lost disk costs them nothing.
DURABLE = frozenset({"main", "fast", "t"})
INTERVAL = 0.05  # simulated seconds
Key = tuple[int, int]  # a topic id as a number (it hashes quickly), and a partition
Standing = tuple[Any, ...]  # begins with the node, its replica and whether it is registered
_CRC = slice(17, 21)


class Observer:
    """Patches in while a simulation runs; sees what cannot be seen between two looks."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        # The newest epoch that wrote to a partition as its leader, and which node that was.
        self.writers: dict[Key, tuple[int, str]] = {}
        self.entries: dict[int, tuple[int, int]] = {}  # metadata: index -> term, checksum
        self.appends = 0

    @contextmanager
    def installed(self) -> Iterator[None]:
        append, apply = PartitionLog.append_as_leader, ControllerNode.apply
        observer = self

        def append_as_leader(log: PartitionLog, records: Any, epoch: int, now_ms: int) -> Any:
            result = append(log, records, epoch, now_ms)
            observer.on_append(log, epoch)
            return result

        def apply_entry(node: ControllerNode, index: int, term: int, data: bytes) -> None:
            observer.on_entry(node, index, term, data)
            apply(node, index, term, data)

        with (
            mock.patch.object(PartitionLog, "append_as_leader", append_as_leader),
            mock.patch.object(ControllerNode, "apply", apply_entry),
        ):
            yield

    def on_append(self, log: PartitionLog, epoch: int) -> None:
        """No two brokers write to a partition in one epoch, nor an older one after a newer."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        node = loop.name.partition(".")[0]
        key = (log.topic_id.int, log.partition)
        newest, writer = self.writers.get(key, (-1, ""))
        where = f"{log.topic}-{log.partition}"
        if epoch < newest:
            self.cluster.fail(
                f"two writers: {node} appends to {where} in epoch {epoch}, {writer} did in {newest}"
            )
        elif epoch == newest and node != writer:
            self.cluster.fail(f"two writers: {node} and {writer} append to {where} in {epoch}")
        self.writers[key] = (epoch, node)
        self.appends += 1

    def on_entry(self, node: ControllerNode, index: int, term: int, data: bytes) -> None:
        """Every controller applies the same entry at an index (state machine safety)."""
        entry = (term, zlib.crc32(data))
        if self.entries.setdefault(index, entry) != entry:
            self.cluster.fail(f"metadata: entry {index} is not the same at node {node.node_id}")


class Checker:
    """Keeps what was seen before, for what may only grow."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.leaders: dict[tuple[Key, int], int] = {}
        self.committed: dict[Key, int] = {}
        self.content: dict[Key, dict[int, bytes]] = {}
        self.marks: dict[HostedPartition, int] = {}
        self.terms: dict[str, int] = {}
        self.indexes: dict[str, int] = {}
        self.newest_image = 0
        # What was looked at last, and found in order or told: of a replica, and of a partition.
        self.seen: dict[HostedPartition, Standing] = {}
        self.judged: dict[Key, tuple[PartitionState, int, list[Standing]]] = {}

    def look(self) -> None:
        cluster = self.cluster
        image = cluster.image()
        # An image that is older than one seen before knows less than was decided.
        fresh = image.index >= self.newest_image
        self.newest_image = max(self.newest_image, image.index)
        spares_passing = cluster.may_lose_one_copy
        accepting: dict[Key, list[int]] = {}
        replicas: dict[Key, list[Standing]] = {}
        seen = self.seen
        for n, node in cluster.running():
            self._metadata(n, node)
            if node.replicas is None:
                continue
            machine = cluster.nodes[n]
            assert machine.loop is not None
            leads_by_lease = not machine.paused and node.replicas.holds_lease(
                machine.clock.monotonic()
            )
            registered = _is_registered(n, node, image)
            for hosted in node.replicas.unsorted():
                core = hosted.core
                if spares_passing and core.topic not in DURABLE:
                    continue
                key = (hosted.topic_id.int, core.partition)
                standing = _standing(n, hosted, registered)
                if seen.get(hosted) != standing:
                    self._replica(n, key, hosted)
                    seen[hosted] = standing
                if key in replicas:
                    replicas[key].append(standing)
                else:
                    replicas[key] = [standing]
                state = core.state
                if leads_by_lease and isinstance(state, Leader) and not state.resigned:
                    accepting.setdefault(key, []).append(n)
        for key, nodes in accepting.items():
            if len(nodes) > 1:
                cluster.fail(f"two leaders accept writes for {_name(replicas[key])}: {nodes}")
        if fresh:
            for key, standings in replicas.items():
                self._partition(key, standings, image)

    # -- one node

    def _metadata(self, n: int, node: Node) -> None:
        """Neither terms nor what is applied ever go back in one life.

        A crash may take back a term that was not yet synced: nobody has heard of it. (That what
        left a node was synced before is for the simulation of Raft to see.)
        """
        loop = self.cluster.nodes[n].loop
        assert loop is not None
        if node.controller is not None:
            term = node.controller.raft.term
            before = self.terms.get(loop.name, 0)
            if term < before:
                self.cluster.fail(f"raft: node {n} goes from term {before} to {term}")
            self.terms[loop.name] = term
        if node.session is not None:
            index = node.session.image.index
            if index < self.indexes.get(loop.name, 0):
                self.cluster.fail(f"metadata: broker {n} goes back to index {index}")
            self.indexes[loop.name] = index

    def _replica(self, n: int, key: Key, hosted: HostedPartition) -> None:
        core = hosted.core
        state, mark = core.state, core.high_watermark
        where = f"{core.topic}-{core.partition}"
        if isinstance(state, Leader):
            first = self.leaders.setdefault((key, state.epoch), n)
            if first != n:
                self.cluster.fail(f"two leaders of {where} in epoch {state.epoch}: {first}, {n}")
            if n not in state.isr:
                self.cluster.fail(f"leader {n} of {where} is not in its ISR {state.isr}")
            if mark > hosted.log.stable_offset and hosted.log.offline is None:
                self.cluster.fail(f"high watermark {mark} of {where} is not stable at its leader")
        before = self.marks.get(hosted, 0)
        # A follower whose disk did damage takes from its leader again what it cannot vouch for.
        mends = isinstance(state, Follower) and self.cluster.nodes[n].disk.may_be_damaged
        if mark < before and not mends:
            self.cluster.fail(f"high watermark of {where} at node {n} falls: {before} to {mark}")
        self.marks[hosted] = mark
        if mark > self.committed.get(key, 0):
            self._committed(key, hosted, mark)

    def _committed(self, key: Key, hosted: HostedPartition, mark: int) -> None:
        """Note what is committed: it must stay so."""
        self.committed[key] = mark

    # -- one partition

    def _partition(self, key: Key, standings: list[Standing], image: MetadataImage) -> None:
        known = image.topics_by_id.get(standings[0][1].topic_id)
        if known is None or key[1] >= len(known.partitions):
            return
        state = known.partitions[key[1]]
        committed = self.committed.get(key, 0)
        judged = self.judged.get(key)
        if (
            judged is not None
            and judged[0] is state
            and judged[1] == committed
            and judged[2] == standings
        ):
            return
        self.judged[key] = (state, committed, standings)
        trusted = {*state.isr, *state.elr}
        for n, hosted, registered, *_ in standings:
            log = hosted.log
            if log.offline is not None or log.deleted:
                continue
            if n in trusted and registered:
                self._holds_all(n, hosted, state, committed)
            core = hosted.core.state
            if (
                isinstance(core, Leader)
                and core.epoch == state.leader_epoch
                and core.partition_epoch <= state.partition_epoch
                and not set(state.isr) <= set(core.maximal_isr)
            ):
                self.cluster.fail(
                    f"{_name(standings)}: the controller's ISR {state.isr} is not within its "
                    f"leader's maximal ISR {core.maximal_isr}"
                )
        self._same_content(key, standings, trusted, committed)

    def _holds_all(
        self, n: int, hosted: HostedPartition, state: PartitionState, committed: int
    ) -> None:
        """Whoever may be elected holds everything that was promised, in its files."""
        if hosted.log.stable_offset < committed:
            self.cluster.fail(
                f"node {n} may lead {hosted.core.topic}-{hosted.core.partition} (ISR {state.isr}, "
                f"ELR {state.elr}) and holds up to {hosted.log.stable_offset} of {committed}"
            )

    def _same_content(
        self,
        key: Key,
        standings: list[Standing],
        trusted: set[int],
        committed: int,
    ) -> None:
        """Batches below the high watermark are the same at everybody who may be elected."""
        known = self.content.setdefault(key, {})
        for n, hosted, *_ in standings:
            if n not in trusted:
                continue
            tail = hosted.log._tail
            limit = min(committed, hosted.core.high_watermark)
            offsets = tail._offsets
            buffers = tail._buffers
            for index in range(len(offsets) - 1, tail._head - 1, -1):
                offset = offsets[index]
                if offset >= limit:
                    continue
                found = bytes(buffers[index][_CRC])
                before = known.get(offset)
                if before is None:
                    known[offset] = found
                elif before == found:
                    break
                else:
                    self.cluster.fail(
                        f"{_name(standings)}@{offset} at node {n} is another batch than committed"
                    )


def _is_registered(n: int, node: Node, image: MetadataImage) -> bool:
    """Before a node has registered anew, the metadata speaks of the one that was."""
    broker = image.brokers.get(n)
    return (
        node.session is not None
        and broker is not None
        and node.session.broker_epoch == broker.broker_epoch
    )


def _standing(n: int, hosted: HostedPartition, registered: bool) -> Standing:
    """Everything about a replica that a rule looks at.

    Batches enter and leave a log's tail at its ends, so it is as it was if its last batch is.
    """
    core, log = hosted.core, hosted.log
    state, tail = core.state, log._tail
    buffers = tail._buffers
    led: tuple[Any, ...] = ()
    if isinstance(state, Leader):
        led = (state.isr, state.proposed, state.partition_epoch)
    return (
        n, hosted, registered, type(state), state.epoch, led, core.high_watermark, log,
        log.stable_offset, log.offline, log.deleted, len(buffers), tail._head,
        buffers[-1] if buffers else None,
    )  # fmt: skip


def _name(standings: list[Standing]) -> str:
    core = standings[0][1].core
    return f"{core.topic}-{core.partition}"


# -- at the end


def _damaged(cluster: Cluster) -> set[tuple[int, str, int]]:
    """Replicas that are offline because their files are damaged, where a fault may have done it.

    Such a replica must neither lead nor be mended by cutting what was committed (DESIGN 4).
    """
    return {
        (n, hosted.core.topic, hosted.core.partition)
        for n, hosted in cluster.hosted()
        if hosted.log.offline is not None
        and "damaged" in hosted.log.offline
        and cluster.nodes[n].disk.may_be_damaged
    }


def _out_of_reach(state: PartitionState, but_for: int | None) -> bool:
    """Whether no other than the broken node may lead: no other member of ISR ∪ ELR is left, nor,
    where both are empty, is the first of those that held what was acknowledged another."""
    may_lead = state.isr + state.elr or state.last_known_elr[:1]
    return but_for is not None and {*may_lead} <= {but_for}


def out_of_reach(cluster: Cluster, but_for: int | None) -> set[tuple[str, int]]:
    """Partitions of which nothing is promised while the node ``but_for`` is broken for ever."""
    return {
        (name, number)
        for name, topic in cluster.image().topics_by_name.items()
        for number, state in enumerate(topic.partitions)
        if _out_of_reach(state, but_for)
    }


def unhealthy(cluster: Cluster, but_for: int | None = None, *, quiet: bool = True) -> str | None:
    """Why the cluster is not as it should be with all faults gone; None where it is.

    ``quiet``: nobody writes, so replicas must be equal.
    """
    active = cluster.active_controller()
    if active is None:
        return "no active controller"
    without_vote = set(cluster.controllers) - set(cluster.voters()) - {but_for}
    if without_vote:
        return f"controllers {sorted(without_vote)} do not vote"
    image = cluster.image()
    for n, machine in cluster.nodes.items():
        if n == but_for:
            continue
        node = machine.node
        if node is None or not node.ready.is_set() or node.session is None:
            return f"node {n} is not ready"
        if node.session.fenced:
            return f"broker {n} is fenced"
        if node.session.image.index < image.index:
            return f"broker {n} lags behind in the metadata"
    damaged = _damaged(cluster)
    for name, topic in sorted(image.topics_by_name.items()):
        for number, state in enumerate(topic.partitions):
            wanted = {
                r for r in state.replicas if r != but_for and (r, name, number) not in damaged
            }
            if not wanted:
                continue
            if _out_of_reach(state, but_for):
                continue
            if (state.adding or state.removing) and but_for not in state.replicas:
                return f"{name}-{number} is still moved ({state.adding}, {state.removing})"
            if state.leader < 0:
                return f"{name}-{number} has no leader (ISR {state.isr}, ELR {state.elr})"
            if not wanted <= set(state.isr):
                return f"{name}-{number} has the ISR {state.isr} of {state.replicas}"
    return _unequal(cluster) if but_for is None and quiet else None


def _unequal(cluster: Cluster) -> str | None:
    ends: dict[Key, set[tuple[int, int]]] = {}
    for _, hosted in cluster.hosted():
        log = hosted.log
        if log.offline is not None and _damaged(cluster):
            continue
        if log.offline is not None:
            return f"{log.topic}-{log.partition} is offline: {log.offline}"
        key = (hosted.topic_id.int, hosted.core.partition)
        ends.setdefault(key, set()).add((log.log_end_offset, hosted.core.high_watermark))
        if len(ends[key]) > 1 or log.stable_offset != log.log_end_offset:
            return f"replicas of {log.topic}-{log.partition} differ: {sorted(ends[key])}"
        if hosted.core.high_watermark != log.log_end_offset:
            return f"{log.topic}-{log.partition}: the high watermark is below the log end"
    return None


def compare_files(cluster: Cluster) -> None:
    """The replicas' segment files are the same, byte for byte, from the later start on."""
    logs: dict[tuple[str, str], dict[int, bytes]] = {}
    for n, machine in cluster.nodes.items():
        files = machine.disk.files
        if machine.disk.may_be_damaged:
            continue
        for path in sorted(files):
            if path.endswith(".log") and not path.rpartition("/")[0].endswith("-delete"):
                folder, _, name = path.rpartition("/")
                content = logs.setdefault((folder, name), {})
                content[n] = bytes(files[path].data)
    for (folder, name), by_node in sorted(logs.items()):
        if len(set(by_node.values())) > 1:
            sizes = {n: len(data) for n, data in by_node.items()}
            cluster.fail(f"replicas' files differ: {folder}/{name}, bytes by node {sizes}")
