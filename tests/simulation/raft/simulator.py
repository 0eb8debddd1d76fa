"""A cluster of Raft cores on a hostile network and on disks that take time and lose power.

A Ready waits for its sync while later inputs arrive; a crash keeps any prefix of the waiting
ones. Servers join as learners, are promoted and removed. Faults come at random, and at the moments
at which they hurt most: a leader is cut off as it is elected, whoever applies an entry first is
struck, a deposed leader reads while its successor commits. The judge looks at each step.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from pegel_controller.raft.errors import RaftError
from pegel_controller.raft.messages import Message, decode, encode
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.ready import Envelope, HardState, Ready, Snapshot
from pegel_controller.raft.states import Follower, Leader, PreCandidate, State
from tests.simulation.raft.faults import Faults
from tests.simulation.raft.judge import Disk, Judge, require

OPTIONS = RaftOptions(snapshot_chunk_bytes=40)
SERVERS = (1, 2, 3, 4, 5)
STEP_DOWN_MAX = OPTIONS.election_timeout_max + OPTIONS.election_timeout_min / 2 + 0.1
DISTURB_INTERVAL = 0.04  # seconds
PROGRESS_MAX = 20.0  # seconds from the end of the faults to a commit
STEPS_MAX = 20_000  # of a history; the mean is below 1,000


class Simulator:
    """One history; all its randomness comes from ``seed``."""

    def __init__(
        self,
        seed: int,
        *,
        without: Iterable[str] = (),
        trace: bool = False,
        story: str | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.faults = Faults(self.random, without, story)
        self.voters = self.faults.voters
        self.servers = SERVERS if self.faults.membership else self.voters
        self.options = replace(
            OPTIONS,
            append_bytes_max=int(self.faults.append_bytes_max),
            heartbeat_interval=self.random.choice((0.15, 0.3)),
        )
        self.on_the_wire = self.random.random() < 0.1  # messages go through their bytes
        self.now = 0.0
        self.queue: list[tuple[float, int, int, int, Message | bytes | int]] = []
        self.nodes: dict[int, RaftNode] = {}
        self.disk: dict[int, Disk] = {n: (HardState(), None, []) for n in SERVERS}
        self.waiting: dict[int, list[Ready]] = {n: [] for n in SERVERS}
        self.life = dict.fromkeys(SERVERS, 0)  # a completion of an earlier life is void
        self.syncing = dict.fromkeys(SERVERS, 0)
        self.applied: dict[int, bytearray] = {}
        self.judge = Judge()
        self.cut: frozenset[int] = frozenset()
        self.links: frozenset[tuple[int, int]] = frozenset()  # broken in this direction
        self.cut_at = 0.0
        self.faulty = True
        self.slow = self.random.sample(self.servers, self.random.randint(0, 2))
        self.down_until: dict[int, float] = {}
        self.campaigns: dict[int, State] = {}
        self.count = 0
        self.figures: Counter[str] = Counter()
        self.trace = hashlib.blake2b(digest_size=8) if trace else None
        for n in self.servers:
            self.start(n)

    def digest(self) -> str:
        """Of every event so far, with its time; only where ``trace`` was asked for."""
        assert self.trace is not None
        return self.trace.hexdigest()

    def start(self, n: int) -> None:
        hard, snapshot, log = self.disk[n]
        self.applied[n] = bytearray(snapshot.data if snapshot else b"")
        self.nodes[n] = RaftNode(
            n, self.voters, random.Random(self.random.random()), self.options, self.now,
            hard_state=hard, snapshot=snapshot, entries=log,
        )  # fmt: skip

    def crash(self, n: int) -> None:
        """Any prefix of what waits may have reached the disk; nobody was told."""
        if self.nodes.pop(n, None) is None:
            return
        self.figures["crashes"] += 1
        self.judge.on_crash(n)
        some = len(self.waiting[n])
        for ready in self.waiting[n][: self.random.choice((0, self.random.randint(0, some), some))]:
            self._store(n, ready)
        self.waiting[n], self.syncing[n] = [], 0
        self.life[n] += 1
        self.down_until[n] = self.now + self.random.uniform(0, self.faults.down_max)
        for peer, node in sorted(self.nodes.items()):
            if self.random.random() < self.faults.peer_lost and not {n, peer} & self.cut:
                node.on_peer_lost(n, self.now)
                self.pump(peer)

    # -- effects

    def _push(self, at: float, source: int, to: int, what: Message | bytes | int) -> None:
        self.count += 1
        heapq.heappush(self.queue, (at, self.count, source, to, what))

    def send(self, source: int, out: tuple[Envelope, ...]) -> None:
        r, faults = self.random, self.faults
        for envelope in out:
            to = envelope.to
            if source in self.cut or to in self.cut or (source, to) in self.links:
                continue
            payload = encode(envelope.message) if self.on_the_wire else envelope.message
            if not self.faulty:
                self._push(self.now + r.uniform(0.001, 0.03), source, to, payload)
                continue
            if r.random() < faults.lost:
                continue
            for _ in range(1 + (r.random() < faults.doubled)):
                slow = r.random() < faults.slow_message
                delay = r.uniform(0.001, faults.slow_message_max if slow else 0.03)
                self._push(self.now + delay, source, to, payload)

    def _store(self, n: int, ready: Ready) -> None:
        hard, snapshot, log = self.disk[n]
        if ready.snapshot:
            snapshot = ready.snapshot
            log = [entry for entry in log if entry.index > snapshot.index]
        if ready.truncate_from is not None:
            log = [entry for entry in log if entry.index < ready.truncate_from]
        new = ready.hard_state or hard
        log = [*log, *ready.entries]
        self.judge.on_store(self.disk[n], new, log, snapshot.index if snapshot else 0)
        self.disk[n] = (new, snapshot, log)

    def pump(self, n: int) -> None:
        node = self.nodes.get(n)
        if node is None:
            return
        if isinstance(node.state, Leader) and self.judge.leaders.get(node.term) != n:
            self._elected(n, node)
        elif isinstance(node.state, PreCandidate) and self.faulty:
            self._bounce_voters(n)
        while (ready := node.ready()) is not None:
            self.send(n, ready.messages)
            self.waiting[n].append(ready)
        if not self.syncing[n] and self.waiting[n]:
            self.syncing[n] = len(self.waiting[n])
            slow = self.faulty and n in self.slow
            delay = self.random.uniform(0, self.faults.slow_sync_max if slow else 0.01)
            self._push(self.now + delay, n, n, self.life[n])
        self.judge.on_step(n, node)
        if isinstance(node.state, Leader):
            alone = n in self.cut and node.membership.voters != (n,)
            late = self.now > max(self.cut_at, node.state.elected_at) + STEP_DOWN_MAX
            require(not (alone and late), "a leader that hears no quorum steps down")
            busy = self.waiting[n] and self.faulty
            if busy and self.random.random() < self.faults.leader_crash:
                self.crash(n)

    def _elected(self, n: int, node: RaftNode) -> None:
        self.figures["elections"] += 1
        self.judge.on_leader(n, node)
        self.judge.complete(n, node)
        self.judge.leases(self.nodes, self.now)
        if not self.faulty:
            return
        r, faults = self.random, self.faults
        if r.random() < faults.cut_new_leader:
            self._cut({n})
        elif r.random() < faults.part_leaders:
            deposed = [m for m, v in self.nodes.items() if m != n and isinstance(v.state, Leader)]
            self._cut(set(), [pair for m in deposed for other in self.servers
                              for pair in ((n, m), (m, other))])  # fmt: skip
        if r.random() < faults.slow_leader:
            self.slow = [n]
        if r.random() < faults.eager:
            for _ in range(r.randint(0, 3)):
                node.propose(bytes([r.randrange(256)]), self.now)
            if faults.membership:
                self._change_membership(node)

    def _bounce_voters(self, n: int) -> None:
        """Whoever is asked for its vote has just come back from a crash."""
        state = self.nodes[n].state
        again = self.campaigns.get(n) is state
        self.campaigns[n] = state
        if again or self.random.random() >= self.faults.bounce_voters:
            return
        for peer, node in sorted(self.nodes.items()):
            if peer != n and isinstance(node.state, Follower) and self.random.random() < 0.5:
                self.crash(peer)
                self.start(peer)

    def _synced(self, n: int) -> None:
        node, count = self.nodes[n], self.syncing[n]
        batch, self.waiting[n] = self.waiting[n][:count], self.waiting[n][count:]
        self.syncing[n] = 0
        fresh = False
        for ready in batch:
            self._store(n, ready)
            self.send(n, ready.messages_after_sync)
            if ready.entries:
                node.on_persisted(ready.entries[-1].index, ready.entries[-1].term)
            fresh = self._apply(n, node, ready) or fresh
        old = node.applied_index - node.log.snapshot_index > self.faults.compact_after
        if old and not self.waiting[n]:
            self._compact(n, node)
        if fresh and self.faulty:
            self._strike(n)

    def _apply(self, n: int, node: RaftNode, ready: Ready) -> bool:
        """Whether this server is the first to apply one of the entries."""
        judge, first = self.judge, 0
        if ready.snapshot:
            self.figures["snapshots"] += 1
            self.applied[n] = bytearray(ready.snapshot.data)
            judge.state(ready.snapshot.index, bytes(self.applied[n]))
        for entry in ready.committed:
            if judge.on_applied(n, node, entry):
                self.figures["commits"] += 1
                first = first or entry.index
            self.applied[n] += entry.data if entry.kind == 0 else b""
            node.on_applied(entry.index)
        if ready.committed:
            judge.state(ready.committed[-1].index, bytes(self.applied[n]))
        for read in ready.reads:
            self.figures["reads"] += read.index is not None
            judge.on_read_answer(n, read.token, read.index)
        if not first:
            return False
        for other, peer in sorted(self.nodes.items()):
            if isinstance(peer.state, Leader):
                judge.complete(other, peer, first)
                if other != n and self.faulty and self.random.random() < self.faults.race_read:
                    self._read(other, peer)
                    self.pump(other)
        return True

    def _compact(self, n: int, node: RaftNode) -> None:
        index = node.applied_index
        term = node.log.term_at(index)
        assert term is not None
        snapshot = Snapshot(index, term, node.membership_at(index), bytes(self.applied[n]))
        node.compact(snapshot)
        hard, _, log = self.disk[n]
        self.disk[n] = (hard, snapshot, [entry for entry in log if entry.index > index])

    # -- events

    def advance(self) -> None:
        at, n = self.now + 0.1, 0
        for number, node in self.nodes.items():
            deadline = node.next_deadline()
            if deadline < at or (deadline == at and number < n):
                at, n = deadline, number
        if not self.queue or self.queue[0][0] >= at:
            self.now = max(self.now, at)
            source, what = n, "tick"
            if n:
                self.nodes[n].tick(self.now)
        else:
            self.now, _, source, n, what = heapq.heappop(self.queue)
            if isinstance(what, int):
                if what == self.life[n] and n in self.nodes:
                    self._synced(n)
            elif n in self.nodes and not (n in self.cut or (source, n) in self.links):
                message = decode(what) if isinstance(what, bytes) else what
                self.nodes[n].step(source, message, self.now)
        self.figures["steps"] += 1
        require(self.figures["steps"] < STEPS_MAX, "messages do not breed messages")
        if self.trace:
            self.trace.update(f"{self.now!r} {source} {n} {what!r}\n".encode())
        self.pump(n)

    def disturb(self) -> None:
        self.judge.leases(self.nodes, self.now)
        r, faults = self.random, self.faults
        if r.random() < faults.crash:
            self.crash(r.choice(self.servers))
        if r.random() < faults.power:
            for victim in r.sample(self.servers, r.randint(2, len(self.servers))):
                self.crash(victim)
        for n in self.servers:
            if n not in self.nodes and self.now >= self.down_until[n]:
                self.start(n)
        if r.random() < faults.cut:
            self._cut_network()
        for n, node in sorted(self.nodes.items()):
            if isinstance(node.state, Leader) and self.nodes.get(n) is node:
                self._use(n, node)
                self.pump(n)

    def _strike(self, n: int) -> None:
        """The first server that applied an entry, or its leader, goes at that moment."""
        r = self.random
        if r.random() >= self.faults.strike:
            return
        leaders = [m for m, v in sorted(self.nodes.items()) if isinstance(v.state, Leader)]
        kind = r.choice(("crash it", "cut it", "crash the leaders", "crash them, cut it"))
        if r.random() < 0.5 or "cut it" in kind:
            self._cut({n} if "cut it" in kind else set())
        if "crash the" in kind:
            for leader in leaders:
                self.crash(leader)
        elif kind == "crash it":
            self.crash(n)

    def _cut(self, servers: set[int], links: Iterable[tuple[int, int]] = ()) -> None:
        self.figures["cuts"] += 1
        self.cut_at, self.cut, self.links = self.now, frozenset(servers), frozenset(links)

    def _cut_network(self) -> None:
        r = self.random
        leaders = [n for n, v in sorted(self.nodes.items()) if isinstance(v.state, Leader)]
        a, b = r.sample(self.servers, 2)
        match r.choice(self.faults.cuts):
            case "leader" if leaders:
                self._cut({r.choice(leaders)})
            case "server":
                self._cut({a})
            case "longest" if self.nodes:  # who knows most is not heard
                logs = {n: (v.log.last_term, v.log.last_index, n) for n, v in self.nodes.items()}
                self._cut({max(logs, key=lambda n: logs[n])})
            case "links":
                pairs = list(itertools.permutations(self.servers, 2))
                self._cut(set(), [pair for pair in pairs if r.random() < 0.3])
            case "link":
                self._cut(set(), [(a, b), (b, a)][: r.choice((1, 2))])
            case "leader's link" if leaders:
                self._cut(set(), [(leaders[0], b), (b, leaders[0])])
            case _:
                self._cut(set())

    def _use(self, n: int, node: RaftNode) -> None:
        r, faults = self.random, self.faults
        leads = isinstance(node.state, Leader) and node.state.transfer_to is None
        if leads and r.random() < faults.propose:
            node.propose(bytes([r.randrange(256)]), self.now)
        if r.random() < faults.read:
            self._read(n, node)
        if leads and r.random() < faults.membership:
            self._change_membership(node)
            self._change_membership(node)  # refused, as long as the first is under way
        if leads and r.random() < faults.transfer and len(node.membership.voters) > 1:
            self.figures["transfers"] += 1
            node.transfer_leadership(None, self.now)

    def _read(self, n: int, node: RaftNode) -> None:
        self.judge.on_read(n, node.read_index(self.now))

    def _change_membership(self, node: RaftNode) -> None:
        r = self.random
        gone = sorted(self.cut & set(node.membership.voters) - {node.node_id})
        # Whom nobody hears is what an operator would remove.
        peer = r.choice(gone) if gone and r.random() < 0.5 else r.choice(self.servers)
        voters, learners = set(node.membership.voters), set(node.membership.learners)
        if peer in learners:
            learners.discard(peer)
            voters.add(peer)
        elif peer in voters:
            voters.discard(peer)
        else:
            learners.add(peer)
        if r.random() < 0.1:  # one too many, which is refused
            voters ^= {r.choice(self.servers)}
        if len(voters) >= 2:
            # Refused where one is under way or the learner is behind.
            with contextlib.suppress(RaftError):
                node.propose_membership(sorted(voters), sorted(learners), self.now)
                self.figures["membership changes"] += 1

    def heal(self) -> None:
        """Faults end, but for some that a majority must bear: a proposal must come through."""
        self.faulty = False
        self._cut(set(), self._lasting_cut())
        dead: list[int] = []
        if not self.links and not self.faults.membership and self.random.random() < 0.5:
            dead = self.random.sample(self.voters, (len(self.voters) - 1) // 2)
        for n in self.servers:
            if n in dead:
                self.crash(n)
            elif n not in self.nodes:
                self.start(n)
        goal, end = self.judge.last_committed + 1, self.now + PROGRESS_MAX
        while self.judge.last_committed < goal:
            require(self.now < end, "progress once the faults have healed")
            for n, node in sorted(self.nodes.items()):
                free = isinstance(node.state, Leader) and node.state.transfer_to is None
                if free and node.log.last_index < goal + 1:
                    node.propose(b"x", self.now)
                    self.pump(n)
            self.advance()

    def _lasting_cut(self) -> list[tuple[int, int]]:
        """Nothing, one link or one direction of a link: a majority can hear each other."""
        if self.faults.membership or self.random.random() < 0.5:
            return []
        a, b = self.random.sample(self.voters, 2)
        return [(a, b), (b, a)][: self.random.choice((1, 2))]


def run(
    seed: int,
    seconds: float = 7.0,
    *,
    without: Iterable[str] = (),
    trace: bool = False,
    story: str | None = None,
) -> Simulator:
    """One history. Raises an exception where an invariant breaks."""
    simulator = Simulator(seed, without=without, trace=trace, story=story)
    step = 0
    while simulator.now < seconds:
        if simulator.now >= step * DISTURB_INTERVAL:
            simulator.disturb()
            if step % 5 == 0:
                simulator.judge.logs(simulator.nodes)
            step = int(simulator.now / DISTURB_INTERVAL) + 1
        simulator.advance()
    simulator.heal()
    simulator.judge.logs(simulator.nodes)
    return simulator
