"""Random runs of the Raft core: a hostile network, and crashes that lose unsynced writes."""

import heapq
import random

import pytest

from pegel_controller.raft.messages import decode, encode
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.ready import HardState, Snapshot
from pegel_controller.raft.states import Leader

OPTIONS = RaftOptions(snapshot_chunk_bytes=40)
VOTERS = (1, 2, 3)


class Cluster:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.now = 0.0
        self.queue, self.count = [], 0
        self.nodes, self.disk, self.applied = {}, {}, {}
        self.leaders, self.committed, self.floor = {}, {}, {}
        self.commit_terms = {}  # a leader of an older term may lack what was committed since
        self.faulty = True
        self.cut = set()
        for n in VOTERS:
            self.disk[n] = (HardState(), None, [])
            self.start(n)

    def start(self, n):
        hard, snap, log = self.disk[n]
        self.applied[n] = list(snap.data) if snap else []
        rng = random.Random(self.random.random())
        self.nodes[n] = RaftNode(
            n, VOTERS, rng, OPTIONS, self.now, hard_state=hard, snapshot=snap, entries=log
        )

    def send(self, source, out):
        for e in out:
            if self.faulty and ({source, e.to} & self.cut or self.random.random() < 0.05):
                continue
            for _ in range(1 + (self.faulty and self.random.random() < 0.05)):
                self.count += 1
                at = self.now + self.random.uniform(0.001, 0.05 if self.faulty else 0.005)
                heapq.heappush(self.queue, (at, self.count, source, e.to, encode(e.message)))

    def pump(self, n):
        node = self.nodes.get(n)
        while node and (ready := node.ready()):
            self.send(n, ready.messages)
            if self.faulty and self.random.random() < 0.004:
                del self.nodes[n]  # before the sync: all of this Ready is lost
                return
            hard, snap, log = self.disk[n]
            if ready.snapshot:
                snap, log = ready.snapshot, [e for e in log if e.index > ready.snapshot.index]
            if ready.truncate_from is not None:
                log = [e for e in log if e.index < ready.truncate_from]
            new = ready.hard_state or hard
            assert (new.term, new.commit_index) >= (hard.term, 0)
            assert new.commit_index >= hard.commit_index
            assert new.term > hard.term or hard.vote in (None, new.vote)
            self.disk[n] = (new, snap, log + list(ready.entries))
            self.send(n, ready.messages_after_sync)
            if ready.entries:
                node.on_persisted(ready.entries[-1].index, ready.entries[-1].term)
            if ready.snapshot:
                self.applied[n] = list(snap.data)
            for e in ready.committed:
                assert self.committed.setdefault(e.index, e) == e, "state machine safety"
                self.commit_terms.setdefault(e.index, node.term)
                self.applied[n] += e.data
                node.on_applied(e.index)
            for read in ready.reads:
                if read.index is not None:
                    assert read.index >= self.floor[n, node.term, read.token], "stale read"
            if node.applied_index - node.log.snapshot_index > 12:
                index = node.applied_index
                snap = Snapshot(
                    index,
                    node.log.term_at(index),
                    node.membership_at(index),
                    bytes(self.applied[n]),
                )
                node.compact(snap)
                hard, _, log = self.disk[n]
                self.disk[n] = (hard, snap, [e for e in log if e.index > index])
            if isinstance(node.state, Leader):
                assert self.leaders.setdefault(node.term, n) == n, "election safety"
                for index, e in self.committed.items():
                    have = node.log.term_at(index)
                    known = have == e.term or index < node.log.snapshot_index
                    assert known or self.commit_terms[index] >= node.term, "leader completeness"

    def advance(self):
        timers = [(max(self.now, v.next_deadline()), k) for k, v in sorted(self.nodes.items())]
        at, n = min(timers, default=(float("inf"), 0))
        if self.queue and self.queue[0][0] < at:
            self.now, _, source, n, payload = heapq.heappop(self.queue)
            if n in self.nodes:
                self.nodes[n].step(source, decode(payload), self.now)
        else:
            self.now = at if n else self.now + 0.1
            if n:
                self.nodes[n].tick(self.now)
        self.pump(n)

    def disturb(self):
        r = self.random
        roll, n = r.random(), r.choice(VOTERS)
        if roll < 0.02:
            self.nodes.pop(n, None)
        elif roll < 0.10 and n not in self.nodes:
            self.start(n)
        elif roll < 0.12:
            self.cut = {n} if r.random() < 0.6 else set()
        for n, node in sorted(self.nodes.items()):
            if isinstance(node.state, Leader) and r.random() < 0.2:
                if node.state.transfer_to is None:
                    node.propose(bytes([r.randrange(256)]), self.now)
                    token = node.read_index(self.now)
                    self.floor[n, node.term, token] = max(self.committed, default=0)
                if r.random() < 0.02:
                    node.transfer_leadership(None, self.now)
        for n in VOTERS:
            self.pump(n)


def run(seed, steps=250):
    c = Cluster(seed)
    for _ in range(steps):
        c.disturb()
        c.advance()
    c.faulty, c.cut = False, set()
    for n in VOTERS:
        if n not in c.nodes:
            c.start(n)
    goal, end = max(c.committed, default=0) + 1, c.now + 20

    def settled():
        reached = all(node.applied_index >= goal for node in c.nodes.values())
        return reached and len(set(map(bytes, c.applied.values()))) == 1

    while not settled():
        assert c.now < end, "no progress after the faults healed"
        for v in c.nodes.values():
            free = isinstance(v.state, Leader) and v.state.transfer_to is None
            if free and v.log.last_index < goal + 1:
                v.propose(b"x", c.now)
        c.advance()


@pytest.mark.parametrize("chunk", range(20))
def test_random_histories_keep_every_invariant(chunk):
    for seed in range(chunk * 100, chunk * 100 + 100):
        try:
            run(seed)
        except Exception as error:
            again = f"python -c 'from tests.simulation.raft.test_core import run; run({seed})'"
            raise AssertionError(f"seed {seed} failed; repeat with: {again}") from error
