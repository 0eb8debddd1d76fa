"""A leader's lease: while it runs nobody else is elected, however late messages come."""

from __future__ import annotations

from random import Random

from pegel_controller.raft.messages import Message, VoteRequest
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.ready import HardState

OPTIONS = RaftOptions()


class _Wire:
    """Three nodes; a message lies on the wire until it is delivered."""

    def __init__(self) -> None:
        self.nodes = {
            i: RaftNode(i, (1, 2, 3), Random(i), OPTIONS, 0.0, hard_state=HardState(1, None, 0))
            for i in (1, 2, 3)
        }
        self.sent: list[tuple[int, int, Message]] = []

    def pump(self) -> None:
        for node_id, node in self.nodes.items():
            while (ready := node.ready()) is not None:
                self.sent += [
                    (node_id, e.to, e.message)
                    for e in (*ready.messages, *ready.messages_after_sync)
                ]
                if ready.entries:
                    node.on_persisted(ready.entries[-1].index, ready.entries[-1].term)
                if ready.committed:
                    node.on_applied(ready.committed[-1].index)

    def tick(self, node_id: int, now: float) -> None:
        self.nodes[node_id].tick(now)
        self.pump()

    def deliver(self, sender: int, to: int, now: float) -> None:
        """All that lies between two nodes, in order."""
        found = [m for m in self.sent if m[:2] == (sender, to)]
        assert found
        self.sent = [m for m in self.sent if m[:2] != (sender, to)]
        for _, _, message in found:
            self.nodes[to].step(sender, message, now)
            self.pump()

    def lose(self, sender: int, to: int) -> None:
        self.sent = [m for m in self.sent if m[:2] != (sender, to)]


def test_a_late_answer_does_not_make_a_voter_forget_the_leader_that_it_hears() -> None:
    """The answer to an old pre-vote names a higher term; the candidate of that term asks next."""
    wire = _Wire()
    leader, voter, rival = (wire.nodes[i] for i in (1, 2, 3))
    wire.tick(1, 10.0)
    wire.deliver(1, 2, 10.0)  # pre-vote
    wire.deliver(2, 1, 10.0)
    wire.lose(1, 3)  # the pre-vote; the vote is what comes now
    wire.deliver(1, 2, 10.0)
    wire.deliver(2, 1, 10.0)
    assert leader.role == "leader"
    for _ in range(2):
        for peer in (2, 3):
            wire.deliver(1, peer, 10.0)
            wire.deliver(peer, 1, 10.0)
    wire.sent.clear()
    assert leader.log.last_index == voter.log.last_index == rival.log.last_index == 1
    now = 10.895
    wire.tick(2, now)
    asked = [m for m in wire.sent if m[:2] == (2, 3)]  # the pre-vote that will be answered late
    wire.lose(2, 3)
    wire.tick(3, now)
    wire.deliver(3, 2, now)
    wire.deliver(2, 3, now)
    assert rival.role == "candidate"
    vote = [m for m in wire.sent if m[:2] == (3, 2)]
    assert [type(m[2]) for m in vote] == [VoteRequest]
    wire.lose(3, 2)
    wire.tick(1, now)  # a round of the leader reaches the voter, which answers
    wire.deliver(1, 2, now)
    wire.deliver(2, 1, now)
    assert leader.lease_valid(now + 0.1)
    wire.sent += asked
    wire.deliver(2, 3, now)
    wire.deliver(3, 2, now)
    wire.sent += vote
    wire.deliver(3, 2, now + 0.01)
    if any(m[:2] == (2, 3) for m in wire.sent):  # a vote
        wire.deliver(2, 3, now + 0.02)
    assert not (rival.role == "leader" and leader.lease_valid(now + 0.1))
