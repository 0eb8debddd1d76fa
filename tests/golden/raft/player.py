"""Plays a script against pure Raft cores and writes down what each command brought about.

A transcript is a text file: ``#`` starts a comment, ``> command`` is input, what is indented below
is output. Nothing happens but what a command says: messages wait until they are delivered, disks
store at once unless they are held, time stands still unless a node ticks. Commands:

    cluster 1 2 3 [learners 4] [append_bytes_max=1 …]   start servers; options of RaftOptions
    log N 1 1 2 [term T]      before the cluster: N's disk holds entries of these terms
    tick N                    move time to N's next deadline, and tick N
    wait SECONDS              move time alone
    elect N                   tick N until it leads, delivering everything; of that only the outcome
    beat N SECONDS            tick the leader N and deliver for so long; nothing of it is written
    deliver [A>B | A> | >B]   deliver what is under way until nothing is (newly sent included)
    one A>B                   deliver the oldest message of A to B, and nothing that follows from it
    drop [A>B | A> | >B]      lose what is under way
    copy A>B                  the oldest message of A to B is under way twice, the copy last
    cut A>B | A | …           lose what is sent from now on; a number cuts a server off
    heal                      cut nothing
    propose N WORD            members N 1 2 3 [learners 4]      transfer N [to]
    read N                    lease N                            lost N peer
    hold N / sync N           N's disk does not store / stores and answers
    crash N / start N         what was not stored is gone
    compact N                 N takes a snapshot of what it has applied
    join N [voters 1 2 3]     start an empty server that was not there before
    state                     every server: role, term, log, commit index, membership
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from pegel_controller.raft.errors import NotLeaderError, RaftError
from pegel_controller.raft.log_view import Entry, EntryKind
from pegel_controller.raft.messages import (
    AppendRequest,
    AppendResponse,
    Message,
    SnapshotChunk,
    SnapshotResponse,
    TimeoutNow,
    VoteRequest,
    VoteResponse,
)
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.ready import HardState, Membership, Ready, Snapshot
from pegel_controller.raft.states import Leader
from tests.simulation.raft.judge import Disk, Judge

DELIVERIES_MAX = 2_000


class _Evenly(random.Random):
    """The same point of every interval, later for a higher number: readable time-outs."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number

    def uniform(self, a: float, b: float) -> float:
        return a + (b - a) * self.number / 10


class Player:
    """Runs the commands of one script; ``play`` gives the whole transcript."""

    def __init__(self) -> None:
        self.now = 0.0
        self.options = RaftOptions(snapshot_chunk_bytes=64)
        self.voters: list[int] = []
        self.nodes: dict[int, RaftNode] = {}
        self.disk: dict[int, Disk] = {}
        self.applied: dict[int, list[str]] = {}
        self.waiting: dict[int, list[Ready]] = {}
        self.held: set[int] = set()
        self.wire: list[tuple[int, int, Message]] = []
        self.cuts: set[tuple[int, int]] = set()  # 0 stands for everybody
        self.judge = Judge()
        self.out: list[str] = []
        self.roles: dict[int, str] = {}

    def play(self, script: str) -> str:
        lines: list[str] = []
        for line in script.splitlines():
            if line.startswith("> "):
                self.out = []
                name, *words = line[2:].split()
                getattr(self, f"do_{name}")(words)
                for n, node in sorted(self.nodes.items()):
                    if isinstance(node.state, Leader):
                        self.judge.on_leader(n, node)
                        self.judge.complete(n, node)
                self.judge.leases(self.nodes, self.now)
                self.judge.logs(self.nodes)
                lines += [line, *(f"    {text}" for text in self.out)]
            elif not line.startswith("    "):
                lines.append(line)
        return "\n".join(lines) + "\n"

    # -- commands

    def do_cluster(self, words: list[str]) -> None:
        settings = dict(word.split("=") for word in words if "=" in word)
        if settings:
            values = {
                name: float(v) if "." in v else int(v) for name, v in sorted(settings.items())
            }
            self.options = RaftOptions(**({"snapshot_chunk_bytes": 64} | values))  # type: ignore[arg-type]
        self.voters, _ = _members([word for word in words if "=" not in word])
        for n in self.voters:
            self._start(n, self.voters)

    def do_log(self, words: list[str]) -> None:
        n, *terms = [int(word) for word in words if word != "term"]
        term = terms.pop() if "term" in words else max(terms, default=0)
        entries = [
            Entry(index, t, EntryKind.COMMAND, b"%d" % index) for index, t in enumerate(terms, 1)
        ]
        self.disk[n] = (HardState(term), None, entries)

    def do_join(self, words: list[str]) -> None:
        self._start(int(words[0]), [int(w) for w in words[2:]] or self.voters)

    def do_tick(self, words: list[str]) -> None:
        n = int(words[0])
        self.now = max(self.now, self.nodes[n].next_deadline())
        self.nodes[n].tick(self.now)
        self._say(f"({self.now:.3f} s)")
        self._pump(n)

    def do_wait(self, words: list[str]) -> None:
        self.now += float(words[0])

    def do_elect(self, words: list[str]) -> None:
        n = int(words[0])
        for _ in range(4):
            if isinstance(self.nodes[n].state, Leader):
                break
            self.do_tick(words)
            self.do_deliver([])
        else:
            raise AssertionError(f"{n} is not elected")
        self.do_tick(words)  # a heartbeat tells everybody what is committed
        self.do_deliver([])
        self.out = [f"{n} leads in term {self.nodes[n].term}"]

    def do_beat(self, words: list[str]) -> None:
        end = self.now + float(words[1])
        while self.nodes[int(words[0])].next_deadline() <= end:
            self.do_tick(words)
            self.do_deliver([])
        self.now, self.out = end, []

    def do_copy(self, words: list[str]) -> None:
        self.wire.append(self.wire[next(self._under_way(words))])

    def do_deliver(self, words: list[str]) -> None:
        for _ in range(DELIVERIES_MAX):
            at = next(self._under_way(words), None)
            if at is None:
                return
            self._deliver(at)
        raise AssertionError("messages breed messages")

    def do_one(self, words: list[str]) -> None:
        self._deliver(next(self._under_way(words)))

    def do_drop(self, words: list[str]) -> None:
        for at in reversed(list(self._under_way(words))):
            source, to, message = self.wire.pop(at)
            self._say(f"{source}>{to} lost: {_describe(message)}")
        self.out.sort()

    def do_cut(self, words: list[str]) -> None:
        for word in words:
            a, arrow, b = word.partition(">")
            self.cuts |= {(int(a), int(b))} if arrow else {(int(a), 0), (0, int(a))}

    def do_heal(self, words: list[str]) -> None:
        self.cuts = set()

    def do_propose(self, words: list[str]) -> None:
        node = self.nodes[int(words[0])]
        try:
            node.propose(words[1].encode(), self.now)
        except NotLeaderError as error:
            self._say(f"refused: {error}")
        self._pump(node.node_id)

    def do_members(self, words: list[str]) -> None:
        node = self.nodes[int(words[0])]
        try:
            node.propose_membership(*_members(words[1:]), self.now)
        except RaftError as error:
            self._say(f"refused: {error}")
        self._pump(node.node_id)

    def do_transfer(self, words: list[str]) -> None:
        node = self.nodes[int(words[0])]
        try:
            node.transfer_leadership(int(words[1]) if words[1:] else None, self.now)
        except RaftError as error:
            self._say(f"refused: {error}")
        self._pump(node.node_id)

    def do_read(self, words: list[str]) -> None:
        n = int(words[0])
        try:
            token = self.nodes[n].read_index(self.now)
        except RaftError as error:
            self._say(f"refused: {error}")
            return
        self.judge.on_read(n, token)
        self._say(f"{n} reads once round {token} is answered")
        self._pump(n)

    def do_lease(self, words: list[str]) -> None:
        runs = self.nodes[int(words[0])].lease_valid(self.now)
        self._say(f"{words[0]}'s lease {'runs' if runs else 'does not run'}")

    def do_lost(self, words: list[str]) -> None:
        self.nodes[int(words[0])].on_peer_lost(int(words[1]), self.now)
        self._pump(int(words[0]))

    def do_hold(self, words: list[str]) -> None:
        self.held.add(int(words[0]))

    def do_sync(self, words: list[str]) -> None:
        n = int(words[0])
        self.held.discard(n)
        self._store(n)
        self._pump(n)

    def do_crash(self, words: list[str]) -> None:
        for n in map(int, words):
            lost = sum(len(ready.entries) for ready in self.waiting[n])
            if self.waiting[n]:
                self._say(f"{n} loses what was not stored ({lost} entries)")
            del self.nodes[n], self.roles[n]
            self.waiting[n] = []
            self.held.discard(n)
            self.judge.on_crash(n)

    def do_start(self, words: list[str]) -> None:
        for n in map(int, words):
            self._start(n, self.voters)

    def do_compact(self, words: list[str]) -> None:
        n = int(words[0])
        node = self.nodes[n]
        index = node.applied_index
        data = " ".join(self.applied[n]).encode()
        term = node.log.term_at(index)
        assert term is not None
        snapshot = Snapshot(index, term, node.membership_at(index), data)
        node.compact(snapshot)
        hard, _, log = self.disk[n]
        self.disk[n] = (hard, snapshot, [entry for entry in log if entry.index > index])
        self._say(f"{n} holds a snapshot of {index}")

    def do_state(self, words: list[str]) -> None:
        for n, node in sorted(self.nodes.items()):
            log = node.log
            entries = log.slice(log.first_index, log.last_index, 1 << 62)
            start = f"snapshot {log.snapshot_index}/{log.snapshot_term} " * bool(log.snapshot_index)
            text = " ".join(map(_entry, entries))
            members = _membership(node.membership)
            self._say(
                f"{n} {node.role} term={node.term} commit={log.commit_index} "
                f"voters={members} log: {start}{text}".rstrip()
            )

    # -- effects

    def _start(self, n: int, voters: list[int]) -> None:
        hard, snapshot, log = self.disk.setdefault(n, (HardState(), None, []))
        self.waiting[n] = []
        self.applied[n] = snapshot.data.decode().split() if snapshot else []
        self.nodes[n] = RaftNode(
            n, voters, _Evenly(n), self.options, self.now,
            hard_state=hard, snapshot=snapshot, entries=log,
        )  # fmt: skip
        self.roles[n] = "follower"
        self._pump(n)

    def _under_way(self, words: list[str]) -> Iterator[int]:
        source, _, to = (words[0] if words else ">").partition(">")
        for at, (a, b, _message) in enumerate(self.wire):
            if source in {"", str(a)} and to in {"", str(b)}:
                yield at

    def _deliver(self, at: int) -> None:
        source, to, message = self.wire.pop(at)
        if to not in self.nodes:
            return
        self._say(f"{source}>{to} {_describe(message)}")
        try:
            self.nodes[to].step(source, message, self.now)
        except RaftError as error:
            self._say(f"{to} refuses the message: {error}")
        self._pump(to)

    def _send(self, source: int, to: int, message: Message) -> None:
        if not {(source, to), (source, 0), (0, to)} & self.cuts:
            self.wire.append((source, to, message))

    def _pump(self, n: int) -> None:
        node = self.nodes[n]
        while (ready := node.ready()) is not None:
            self._say_role(n)
            for envelope in ready.messages:
                self._send(n, envelope.to, envelope.message)
            self.waiting[n].append(ready)
            if n not in self.held:
                self._store(n)
        self._say_role(n)
        self.judge.on_step(n, node)

    def _say_role(self, n: int) -> None:
        node = self.nodes[n]
        role = f"{node.role} in term {node.term}"
        if node.role != self.roles[n].split()[0]:
            self._say(f"{n} is {role}")
        self.roles[n] = role

    def _store(self, n: int) -> None:
        node = self.nodes[n]
        ready_now, self.waiting[n] = self.waiting[n], []
        for ready in ready_now:
            hard, snapshot, log = self.disk[n]
            if ready.snapshot:
                snapshot = ready.snapshot
                log = [entry for entry in log if entry.index > snapshot.index]
                self._say(f"{n} installs the snapshot of {snapshot.index}")
                self.applied[n] = snapshot.data.decode().split()
            if ready.truncate_from is not None:
                gone = [entry for entry in log if entry.index >= ready.truncate_from]
                log = log[: len(log) - len(gone)]
                if gone:
                    self._say(f"{n} truncates {' '.join(map(_entry, gone))}")
            log = [*log, *ready.entries]
            if ready.entries:
                self._say(f"{n} stores {' '.join(map(_entry, ready.entries))}")
            new = ready.hard_state or hard
            self.judge.on_store(self.disk[n], new, log, snapshot.index if snapshot else 0)
            self.disk[n] = (new, snapshot, log)
            for envelope in ready.messages_after_sync:
                self._send(n, envelope.to, envelope.message)
            if ready.entries:
                node.on_persisted(ready.entries[-1].index, ready.entries[-1].term)
            for entry in ready.committed:
                self.judge.on_applied(n, node, entry)
                self.applied[n] += [entry.data.decode()] if entry.kind is EntryKind.COMMAND else []
                node.on_applied(entry.index)
            if ready.committed:
                self._say(f"{n} applies {' '.join(map(_entry, ready.committed))}")
            for read in ready.reads:
                self.judge.on_read_answer(n, read.token, read.index)
                at = f"at {read.index}" if read.index is not None else "fails: leadership lost"
                self._say(f"{n}'s read of round {read.token} {at}")

    def _say(self, text: str) -> None:
        self.out.append(text)


def _members(words: list[str]) -> tuple[list[int], list[int]]:
    at = words.index("learners") if "learners" in words else len(words)
    return [int(w) for w in words[:at]], [int(w) for w in words[at + 1 :]]


def _membership(members: Membership) -> str:
    text = ",".join(map(str, members.voters))
    return text + ("+" + ",".join(map(str, members.learners)) if members.learners else "")


def _entry(entry: Entry) -> str:
    """Index, term and what it is: ``3/1:x``."""
    match entry.kind:
        case EntryKind.NO_OP:
            what = "no-op"
        case EntryKind.MEMBERSHIP:
            what = "voters=" + _membership(Membership.decode(entry.data))
        case _:
            what = entry.data.decode()
    return f"{entry.index}/{entry.term}:{what}"


def _describe(message: Message) -> str:
    match message:
        case VoteRequest():
            kind = ("pre-vote?" if message.pre_vote else "vote?") + " by hand-over" * (
                message.transfer
            )
            return f"{kind} term={message.term} last={message.last_index}/{message.last_term}"
        case VoteResponse():
            kind = "pre-vote" if message.pre_vote else "vote"
            return f"{kind} {'granted' if message.granted else 'refused'} term={message.term}"
        case AppendRequest():
            entries = " ".join(map(_entry, message.entries)) or "nothing"
            return (
                f"append {entries} after {message.previous_index}/{message.previous_term} "
                f"term={message.term} commit={message.commit_index} round={message.read_sequence}"
            )
        case AppendResponse(success=True):
            return f"holds {message.index} term={message.term} round={message.read_sequence}"
        case AppendResponse():
            hint = f"{message.index}/{message.conflict_term}"
            return f"conflict, hint {hint} term={message.term} round={message.read_sequence}"
        case SnapshotChunk():
            end = " end" if message.done else ""
            size = f"{message.offset}+{len(message.data)}{end}"
            return f"snapshot {message.index}/{message.index_term} bytes {size} term={message.term}"
        case SnapshotResponse():
            done = "installed" if message.installed else f"{message.offset} bytes"
            return f"snapshot {message.index} {done} term={message.term}"
        case TimeoutNow():
            return f"campaign now! term={message.term}"
