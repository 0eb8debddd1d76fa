"""Who may lead holds all that was acknowledged: the controller and three real partition cores.

Metadata and answers come late, together or overtaking each other, brokers die and return, followers
lag, and min.insync.replicas goes up and down; only clean elections are made.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.isr import may_be_in_sync
from pegel_broker.replication.partition import Follower, Leader, Partition
from pegel_controller.config import topic_value
from pegel_controller.metadata.image import MetadataImage
from pegel_controller.rpc import messages as m
from tests.controller.control.harness import Harness

LAG = 5.0
# What happens next, and how often; leaders are killed sooner than others.
WEIGHTS = {"append": 14, "fetch": 30, "ask": 18, "answer": 10, "learn": 6, "configure": 8,
           "kill": 3, "start": 8}  # fmt: skip
Log = list[tuple[int, int]]  # (leader epoch, a number of its own)


@dataclass
class Node:
    """A broker: what survives its death, and what it has heard."""

    node_id: int
    core: Partition
    log: Log = field(default_factory=list)
    high_watermark: int = 0
    heard: int = 0
    alive: bool = True
    # Not yet delivered: (leader epoch, partition epoch, ISR).
    answers: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)


class World:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now = 0.0
        self.harness = Harness(seed)
        self.harness.start(1, 2, 3)
        self.harness.configure("min.insync.replicas", self.random.choice("123"))
        self.harness.create("t")
        self.images: list[MetadataImage] = [self.harness.image]
        self.acknowledged: Log = []
        self.elections = self.written = 0
        self.nodes = {n: Node(n, self.core(n)) for n in (1, 2, 3)}
        for node in self.nodes.values():
            self.hear(node)

    def core(self, node_id: int) -> Partition:
        def eligible(broker: int, epoch: int) -> bool:
            image = self.images[self.nodes[node_id].heard]
            key = (image.topics_by_name["t"].topic_id, 0)
            return may_be_in_sync(image, key, broker, epoch)

        return Partition("t", 0, node_id, eligible)

    def hear(self, node: Node, upto: int = -1) -> None:
        """Metadata up to one image, all of it in one go."""
        node.heard = len(self.images) - 1 if upto < 0 else upto
        state = self.images[node.heard].topics_by_name["t"].partitions[0]
        node.core.update(self.now, state, len(node.log), node.high_watermark)
        self.advance(node)

    def advance(self, node: Node) -> None:
        minimum = topic_value(self.images[node.heard], "t", "min.insync.replicas", {})
        assert isinstance(minimum, int)
        if node.core.advance(len(node.log), minimum):
            node.high_watermark = node.core.high_watermark
            held = node.log[: node.high_watermark]
            short = min(len(held), len(self.acknowledged))
            assert held[:short] == self.acknowledged[:short], "two histories were acknowledged"
            self.acknowledged = max(held, self.acknowledged, key=len)

    def committed(self) -> None:
        """The controller may have decided: who leads by that?"""
        before, now = self.images[-1], self.harness.image
        if now is before:
            return
        self.images.append(now)
        old, new = (i.topics_by_name["t"].partitions[0] for i in (before, now))
        if new.leader_epoch > old.leader_epoch and new.leader != -1:
            self.elections += 1
            log = self.nodes[new.leader].log
            assert not new.leader_recovery_state
            assert log[: len(self.acknowledged)] == self.acknowledged, (
                f"{new.leader} has {len(log)} of {len(self.acknowledged)} acknowledged: {new}"
            )

    def step(self) -> None:
        self.now += self.random.random()
        (what,) = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))
        alive = [node for node in self.nodes.values() if node.alive]
        if what == "start":
            alive = [node for node in self.nodes.values() if not node.alive]
        elif what in {"append", "ask", "kill"}:
            alive = [n for n in alive if isinstance(n.core.state, Leader)] or alive
        if alive:
            getattr(self, what)(self.random.choice(alive))
        self.committed()
        for other in self.nodes.values():
            if other.alive:
                self.advance(other)

    def kill(self, node: Node) -> None:
        self.harness.kill(node.node_id)
        node.alive = False
        node.answers.clear()

    def start(self, node: Node) -> None:
        self.harness.start(node.node_id)
        self.committed()
        node.core, node.alive = self.core(node.node_id), True
        self.hear(node)

    def configure(self, _: Node) -> None:
        self.harness.configure("min.insync.replicas", self.random.choice("123"))

    def learn(self, node: Node) -> None:
        if node.heard < len(self.images) - 1:
            self.hear(node, self.random.randint(node.heard + 1, len(self.images) - 1))

    def answer(self, node: Node) -> None:
        if node.answers:
            answer = node.answers.pop(self.random.randrange(len(node.answers)))
            node.core.on_isr_accepted(self.now, *answer)

    def append(self, node: Node) -> None:
        if isinstance(node.core.state, Leader):
            node.core.on_append(self.now, len(node.log))
            self.written += 1
            node.log.append((node.core.state.epoch, self.written))

    def ask(self, node: Node) -> None:
        wanted = node.core.wanted_isr(self.now, len(node.log), LAG)
        if wanted is None:
            return
        state = node.core.state
        assert isinstance(state, Leader)
        members = tuple(m.IsrMember(*member) for member in node.core.propose(wanted))
        error = self.harness.alter(
            wanted, sender=node.node_id, new_isr=members,
            leader_epoch=state.epoch, partition_epoch=state.partition_epoch,
        )  # fmt: skip
        if error:
            definite = error == ErrorCode.INELIGIBLE_REPLICA
            node.core.on_isr_refused(state.epoch, definite=definite)
        else:
            now = self.harness.partition()
            node.answers.append((now.leader_epoch, now.partition_epoch, now.isr))

    def fetch(self, node: Node) -> None:
        state = node.core.state
        if not isinstance(state, Follower):
            return
        leader = self.nodes[state.leader_id]
        led = leader.core.state
        if not leader.alive or not isinstance(led, Leader) or led.epoch != state.epoch:
            return
        same = 0
        while same < min(len(node.log), len(leader.log)) and node.log[same] == leader.log[same]:
            same += 1
        del node.log[same:]
        epoch = self.harness.epochs[node.node_id]
        leader.core.on_fetch(self.now, node.node_id, epoch, same, 0, len(leader.log))
        node.log += leader.log[same : same + self.random.randint(0, 4)]
        node.high_watermark = min(leader.core.high_watermark, len(node.log))


@pytest.mark.parametrize("seed", range(100))
def test_no_election_loses_what_was_acknowledged(seed: int) -> None:
    world = World(seed)
    for _ in range(600):
        world.step()
    assert world.elections
    assert world.acknowledged
