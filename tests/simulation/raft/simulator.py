"""A cluster of Raft cores on a hostile network and on disks that take time and lose power.

Unlike ``test_core`` a Ready waits for its sync while later inputs arrive; a crash keeps any prefix
of the waiting ones. Servers join as learners, are promoted and removed. Invariants at each step.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import random
from dataclasses import replace

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
DISTURB_INTERVAL = 0.04  # seconds
Disk = tuple[HardState, Snapshot | None, list]


class InvariantError(AssertionError):
    """A promise of Raft does not hold."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise InvariantError(what)


class Faults:
    """How hostile one history is. Each seed draws its own, for a mean mix hides rare faults."""

    def __init__(self, r: random.Random) -> None:
        self.lost = r.choice((0.0, 0.02, 0.1, 0.3))
        self.doubled = r.choice((0.0, 0.1))
        self.slow_message = r.choice((0.0, 0.05, 0.2))
        self.slow_sync_max = r.choice((0.01, 0.1, 0.5, 2.0))  # seconds, on some servers
        # The rest are chances in each DISTURB_INTERVAL.
        self.crash = r.choice((0.0, 0.01, 0.05))
        self.power = r.choice((0.0, 0.0, 0.01, 0.03))  # several at once
        self.down_max = r.choice((0.05, 0.5, 3.0))  # seconds
        self.cut = r.choice((0.0, 0.03, 0.1))
        self.leader_crash = r.choice((0.0, 0.02, 0.1))  # while its sync is under way
        self.peer_lost = r.choice((0.0, 0.5, 1.0))
        self.propose = r.choice((0.05, 0.2, 0.6))
        self.read = r.choice((0.0, 0.2))
        self.membership = r.choice((0.0, 0.0, 0.1, 0.4))
        self.transfer = r.choice((0.0, 0.005, 0.03))
        self.compact_after = r.choice((3, 12, 50))
        self.append_bytes_max = r.choice((1, 3, 1000))


class Simulator:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.faults = Faults(self.random)
        self.servers = SERVERS if self.faults.membership else VOTERS
        self.options = replace(
            OPTIONS,
            append_bytes_max=self.faults.append_bytes_max,
            heartbeat_interval=self.random.choice((0.15, 0.3)),
        )
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
        self.links: frozenset[tuple[int, int]] = frozenset()  # broken in this direction
        self.cut_at = 0.0
        self.faulty = True
        self.slow = self.random.sample(self.servers, self.random.randint(0, 2))
        self.down_until: dict[int, float] = {}
        for n in self.servers:
            self.start(n)

    def start(self, n: int) -> None:
        hard, snapshot, log = self.disk[n]
        self.applied[n] = list(snapshot.data) if snapshot else []
        self.nodes[n] = RaftNode(
            n, VOTERS, random.Random(self.random.random()), self.options, self.now,
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
        self.down_until[n] = self.now + self.random.uniform(0, self.faults.down_max)
        for peer, node in sorted(self.nodes.items()):
            if self.random.random() < self.faults.peer_lost and not {n, peer} & self.cut:
                node.on_peer_lost(n, self.now)
                self.pump(peer)

    # -- effects

    def _push(self, at: float, source: int, to: int, what: bytes | int) -> None:
        self.count += 1
        heapq.heappush(self.queue, (at, self.count, source, to, what))

    def send(self, source: int, out: tuple[Envelope, ...]) -> None:
        for envelope in out:
            cut = bool({source, envelope.to} & self.cut) or (source, envelope.to) in self.links
            if self.faulty and (cut or self.random.random() < self.faults.lost):
                continue
            for _ in range(1 + (self.faulty and self.random.random() < self.faults.doubled)):
                slow = self.faulty and self.random.random() < self.faults.slow_message
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
        busy = isinstance(node.state, Leader) and self.waiting[n] and self.faulty
        if busy and self.random.random() < self.faults.leader_crash:
            self.crash(n)

    def _begin_sync(self, n: int) -> None:
        if not self.syncing[n] and self.waiting[n]:
            self.syncing[n] = len(self.waiting[n])
            slow = self.faulty and n in self.slow
            delay = self.random.uniform(0, self.faults.slow_sync_max if slow else 0.01)
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
        if (
            node.applied_index - node.log.snapshot_index > self.faults.compact_after
            and not self.waiting[n]
        ):
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
            elif n in self.nodes and not (n in self.cut or (source, n) in self.links):
                self.nodes[n].step(source, decode(what), self.now)
        self.pump(n)

    def disturb(self) -> None:
        roll, n = self.random.random(), self.random.choice(self.servers)
        if roll < self.faults.crash:
            self.crash(n)
        if self.random.random() < self.faults.power:
            for victim in self.random.sample(
                self.servers, self.random.randint(2, len(self.servers))
            ):
                self.crash(victim)
        for n in self.servers:
            if n not in self.nodes and self.now >= self.down_until[n]:
                self.start(n)
        if self.random.random() < self.faults.cut:
            self._cut_network()
        for n, node in sorted(self.nodes.items()):
            if isinstance(node.state, Leader):
                self._use(n, node)
                self.pump(n)

    def _cut_network(self) -> None:
        r = self.random
        self.cut_at, self.cut, self.links = self.now, frozenset(), frozenset()
        leaders = [n for n, v in sorted(self.nodes.items()) if isinstance(v.state, Leader)]
        match r.choice(("nothing", "leader", "server", "links", "link")):
            case "leader" if leaders:
                self.cut = frozenset({r.choice(leaders)})
            case "server":
                self.cut = frozenset({r.choice(self.servers)})
            case "links":
                pairs = list(itertools.permutations(self.servers, 2))
                self.links = frozenset(pair for pair in pairs if r.random() < 0.3)
            case "link":
                a, b = r.sample(self.servers, 2)
                self.links = frozenset({(a, b), (b, a)})

    def _use(self, n: int, node: RaftNode) -> None:
        r, faults = self.random, self.faults
        leads = isinstance(node.state, Leader) and node.state.transfer_to is None
        if leads and r.random() < faults.propose:
            node.propose(bytes([self.random.randrange(256)]), self.now)
        if r.random() < faults.read:
            token = node.read_index(self.now)
            self.floor.setdefault((n, node.term, token), max(self.committed, default=0))
        if leads and r.random() < faults.membership:
            self._change_membership(node)
        if leads and r.random() < faults.transfer and len(node.membership.voters) > 1:
            node.transfer_leadership(None, self.now)

    def _change_membership(self, node: RaftNode) -> None:
        peer = self.random.choice(self.servers)
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
        self.faulty, self.cut, self.links = False, frozenset(), frozenset()
        for n in self.servers:
            if n not in self.nodes:
                self.start(n)
        goal, end = max(self.committed, default=0) + 1, self.now + 15
        while max(self.committed, default=0) < goal:
            require(self.now < end, "progress once the faults have healed")
            for n, node in sorted(self.nodes.items()):
                free = isinstance(node.state, Leader) and node.state.transfer_to is None
                if free and node.log.last_index < goal + 1:
                    node.propose(b"x", self.now)
                    self.pump(n)
            self.advance()


def run(seed: int, seconds: float = 12.0) -> None:
    """One history. Raises an exception where an invariant breaks."""
    simulator = Simulator(seed)
    disturb_at = 0.0
    while simulator.now < seconds:
        if simulator.now >= disturb_at:
            simulator.disturb()
            simulator.check_logs()
            disturb_at = simulator.now + DISTURB_INTERVAL
        simulator.advance()
    simulator.heal()
    simulator.check_logs()
