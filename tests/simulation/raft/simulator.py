"""A cluster of Raft cores on a hostile network and on disks that take time and lose power.

Unlike ``test_core`` a Ready waits for its sync while later inputs arrive; a crash keeps any prefix
of the waiting ones. Servers join as learners, are promoted and removed. Invariants at each step.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.messages import decode, encode
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.ready import Envelope, HardState, Ready, Snapshot
from pegel_controller.raft.states import Leader

OPTIONS = RaftOptions(snapshot_chunk_bytes=40)
VOTERS = (1, 2, 3)
SERVERS = (1, 2, 3, 4, 5)
STEP_DOWN_MAX = OPTIONS.election_timeout_max + OPTIONS.election_timeout_min / 2 + 0.1
Disk = tuple[HardState, Snapshot | None, list]


class InvariantError(AssertionError):
    """A promise of Raft does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise InvariantError(what)


class Simulator:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.count = 0
        self.queue: list[tuple[float, int, int, int, bytes | int]] = []
        self.nodes: dict[int, RaftNode] = {}
        self.disk: dict[int, Disk] = {n: (HardState(), None, []) for n in SERVERS}
        self.waiting: dict[int, list[Ready]] = {n: [] for n in SERVERS}
        self.life = dict.fromkeys(SERVERS, 0)  # a completion of an earlier life is void
        self.syncing = dict.fromkeys(SERVERS, 0)
        self.applied: dict[int, list[int]] = {}
        self.leaders: dict[int, int] = {}
        self.committed: dict[int, object] = {}
        self.commit_terms: dict[int, int] = {}
        self.floor: dict[tuple[int, int, int], int] = {}
        self.cut: frozenset[int] = frozenset()
        self.cut_at = 0.0
        self.faulty = True
        for n in SERVERS:
            self.start(n)

    def start(self, n: int) -> None:
        hard, snapshot, log = self.disk[n]
        self.applied[n] = list(snapshot.data) if snapshot else []
        self.nodes[n] = RaftNode(
            n, VOTERS, random.Random(self.random.random()), OPTIONS, self.now,
            hard_state=hard, snapshot=snapshot, entries=log,
        )  # fmt: skip

    def crash(self, n: int) -> None:
        """Any prefix of what waits may have reached the disk; nobody was told."""
        if self.nodes.pop(n, None) is None:
            return
        for ready in self.waiting[n][: self.random.randint(0, len(self.waiting[n]))]:
            self._store(n, ready)
        self.waiting[n], self.syncing[n] = [], 0
        self.life[n] += 1
        for peer, node in sorted(self.nodes.items()):
            if self.random.random() < 0.5 and not {n, peer} & self.cut:
                node.on_peer_lost(n, self.now)
                self.pump(peer)

    # -- effects

    def _push(self, at: float, source: int, to: int, what: bytes | int) -> None:
        self.count += 1
        heapq.heappush(self.queue, (at, self.count, source, to, what))

    def send(self, source: int, out: tuple[Envelope, ...]) -> None:
        for envelope in out:
            cut = bool({source, envelope.to} & self.cut)
            if self.faulty and (cut or self.random.random() < 0.05):
                continue
            for _ in range(1 + (self.faulty and self.random.random() < 0.08)):
                slow = self.faulty and self.random.random() < 0.05
                delay = self.random.uniform(0.001, 0.6 if slow else 0.03)
                self._push(self.now + delay, source, envelope.to, encode(envelope.message))

    def _store(self, n: int, ready: Ready) -> None:
        hard, snapshot, log = self.disk[n]
        if ready.snapshot:
            snapshot = ready.snapshot
            log = [entry for entry in log if entry.index > snapshot.index]
        if ready.truncate_from is not None:
            log = [entry for entry in log if entry.index < ready.truncate_from]
        new = ready.hard_state or hard
        require(new.term >= hard.term, "the term never falls")
        require(new.commit_index >= hard.commit_index, "the commit index never falls")
        same = new.term > hard.term or hard.vote in (None, new.vote)
        require(same, "one vote a term")
        log = [*log, *ready.entries]
        base = snapshot.index if snapshot else 0
        contiguous = [entry.index for entry in log] == list(range(base + 1, base + 1 + len(log)))
        require(contiguous, "the log has no gaps")
        self.disk[n] = (new, snapshot, log)

    def pump(self, n: int) -> None:
        node = self.nodes.get(n)
        if node is None:
            return
        while (ready := node.ready()) is not None:
            self.send(n, ready.messages)
            self.waiting[n].append(ready)
        self._begin_sync(n)
        self.check(n, node)

    def _begin_sync(self, n: int) -> None:
        if not self.syncing[n] and self.waiting[n]:
            self.syncing[n] = len(self.waiting[n])
            slow = self.faulty and self.random.random() < 0.1
            delay = self.random.uniform(0, 0.3 if slow else 0.01)
            self._push(self.now + delay, n, n, self.life[n])

    def _synced(self, n: int) -> None:
        node, count = self.nodes[n], self.syncing[n]
        batch, self.waiting[n] = self.waiting[n][:count], self.waiting[n][count:]
        self.syncing[n] = 0
        for ready in batch:
            self._store(n, ready)
            self.send(n, ready.messages_after_sync)
            if ready.entries:
                node.on_persisted(ready.entries[-1].index, ready.entries[-1].term)
            self._apply(n, node, ready)
        if node.applied_index - node.log.snapshot_index > 12 and not self.waiting[n]:
            self._compact(n, node)

    def _apply(self, n: int, node: RaftNode, ready: Ready) -> None:
        if ready.snapshot:
            self.applied[n] = list(ready.snapshot.data)
        for entry in ready.committed:
            known = self.committed.setdefault(entry.index, entry)
            require(known == entry, f"state machine safety at {entry.index}")
            self.commit_terms.setdefault(entry.index, node.term)
            self.applied[n] += entry.data if entry.kind == 0 else b""
            node.on_applied(entry.index)
        for read in ready.reads:
            floor = self.floor.get((n, node.term, read.token))
            stale = read.index is not None and floor is not None and read.index < floor
            require(not stale, "a read sees all that was committed before it")

    def _compact(self, n: int, node: RaftNode) -> None:
        index = node.applied_index
        term = node.log.term_at(index)
        assert term is not None
        data = bytes(self.applied[n])
        snapshot = Snapshot(index, term, node.membership_at(index), data)
        node.compact(snapshot)
        hard, _, log = self.disk[n]
        self.disk[n] = (hard, snapshot, [entry for entry in log if entry.index > index])

    # -- invariants

    def check(self, n: int, node: RaftNode) -> None:
        if not isinstance(node.state, Leader):
            return
        require(self.leaders.setdefault(node.term, n) == n, f"two leaders in term {node.term}")
        for index in range(max(1, node.log.snapshot_index), max(self.committed, default=0) + 1):
            entry = self.committed.get(index)
            held = entry is None or node.log.term_at(index) == entry.term
            require(held or self.commit_terms[index] >= node.term, "leader completeness")
        for other_id, other in sorted(self.nodes.items()):
            leads = other_id != n and isinstance(other.state, Leader)
            newer = max((n, node), (other_id, other), key=lambda pair: pair[1].term)[0]
            older = other if newer == n else node
            require(not (leads and older.lease_valid(self.now)), "a lease excludes newer leaders")
        alone = n in self.cut and node.membership.voters != (n,)
        late = self.now > max(self.cut_at, node.state.elected_at) + STEP_DOWN_MAX
        require(not (alone and late), "a leader that hears no quorum steps down")

    def check_logs(self) -> None:
        """Log matching, pair by pair."""
        nodes = [node for _, node in sorted(self.nodes.items())]
        for a, b in itertools.pairwise(nodes):
            same = False
            low = max(a.log.first_index, b.log.first_index)
            for index in range(min(a.log.last_index, b.log.last_index), low - 1, -1):
                left, right = a.log.slice(index, index, 1), b.log.slice(index, index, 1)
                same = same or left[0].term == right[0].term
                require(not same or left == right, f"log matching at {index}")

    # -- events

    def advance(self) -> None:
        timers = [(max(self.now, v.next_deadline()), n) for n, v in sorted(self.nodes.items())]
        at, n = min(timers, default=(self.now + 0.1, 0))
        if not self.queue or self.queue[0][0] >= at:
            self.now = at
            if n:
                self.nodes[n].tick(at)
        else:
            self.now, _, source, n, what = heapq.heappop(self.queue)
            if isinstance(what, int):
                if what == self.life[n] and n in self.nodes:
                    self._synced(n)
            elif n in self.nodes and (not self.faulty or n not in self.cut):
                self.nodes[n].step(source, decode(what), self.now)
        self.pump(n)

    def disturb(self) -> None:
        roll, n = self.random.random(), self.random.choice(SERVERS)
        if roll < 0.012:
            self.crash(n)
        elif roll < 0.10 and n not in self.nodes:
            self.start(n)
        elif roll < 0.115:
            self.cut_at = self.now
            count = self.random.choice((0, 1, 1, 2))
            self.cut = frozenset(self.random.sample(SERVERS, count))
        for n, node in sorted(self.nodes.items()):
            if isinstance(node.state, Leader) and node.state.transfer_to is None:
                self._use(n, node)
                self.pump(n)

    def _use(self, n: int, node: RaftNode) -> None:
        roll = self.random.random()
        if roll < 0.15:
            node.propose(bytes([self.random.randrange(256)]), self.now)
        elif roll < 0.20:
            token = node.read_index(self.now)
            self.floor.setdefault((n, node.term, token), max(self.committed, default=0))
        elif roll < 0.28:
            self._change_membership(node)
        elif roll < 0.285 and len(node.membership.voters) > 1:
            node.transfer_leadership(None, self.now)

    def _change_membership(self, node: RaftNode) -> None:
        peer = self.random.choice(SERVERS)
        voters, learners = set(node.membership.voters), set(node.membership.learners)
        if peer in learners:
            learners.discard(peer)
            voters.add(peer)
        elif peer in voters:
            voters.discard(peer)
        else:
            learners.add(peer)
        if len(voters) >= 2:
            # Refused where one is under way or the learner is behind.
            with contextlib.suppress(RaftError):
                node.propose_membership(sorted(voters), sorted(learners), self.now)

    def heal(self) -> None:
        """All servers run and hear each other: a proposal must come through."""
        self.faulty, self.cut = False, frozenset()
        for n in SERVERS:
            if n not in self.nodes:
                self.start(n)
        goal, end = max(self.committed, default=0) + 1, self.now + 30
        while max(self.committed, default=0) < goal:
            require(self.now < end, "progress once the faults have healed")
            for n, node in sorted(self.nodes.items()):
                free = isinstance(node.state, Leader) and node.state.transfer_to is None
                if free and node.log.last_index < goal + 1:
                    node.propose(b"x", self.now)
                    self.pump(n)
            self.advance()


def run(seed: int, steps: int = 400) -> None:
    """One history. Raises an exception where an invariant breaks."""
    simulator = Simulator(seed)
    for step in range(steps):
        simulator.disturb()
        simulator.advance()
        if step % 25 == 0:
            simulator.check_logs()
    simulator.heal()
    simulator.check_logs()
