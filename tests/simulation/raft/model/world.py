"""A small world of Raft cores without clocks: what may happen next, and what each step leads to.

Any server may campaign at any time and every voter listens to it (time-outs, pre-votes and the
refusals of those who hear a leader only take behaviours away, so what holds here holds with them).
A message is delivered in any order, or never, or twice; a crash loses what is not stored.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from pegel_controller.raft import election, replication
from pegel_controller.raft.log_view import Entry, LogView
from pegel_controller.raft.messages import AppendResponse, Message, VoteResponse
from pegel_controller.raft.node import RaftNode
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.ready import HardState, Ready
from pegel_controller.raft.states import Candidate, Leader
from tests.simulation.raft.judge import InvariantError, require

SERVERS = (1, 2, 3)
OPTIONS = RaftOptions(append_bytes_max=1)
STEP = 10.0  # seconds between events: nobody has heard anybody of late
Action = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Bounds:
    """What makes the world finite."""

    term: int = 2
    proposals: int = 1
    crashes: int = 0
    duplicates: int = 0
    heartbeats: int = 0
    candidates: tuple[int, ...] = (1, 2)
    slow_disks: bool = False
    ordered: bool = False  # messages of one server to another overtake none, as on a connection


class _Middle(random.Random):
    """Draws nothing: time does not matter here."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2

    def __deepcopy__(self, memo: object) -> _Middle:
        return self


_RANDOM = _Middle()

# Every message of any world once, so that worlds compare and sort numbers.
Sent = tuple[int, int, Message]  # from, to
_SENT: list[Sent] = []
_PLACES: dict[Sent, int] = {}


def _place(sent: Sent) -> int:
    place = _PLACES.setdefault(sent, len(_SENT))
    if place == len(_SENT):
        _SENT.append(sent)
    return place


@dataclass(frozen=True, slots=True)
class Server:
    """A core, what is on its disk, and what waits for that. Never changed in place."""

    node: RaftNode
    hard: HardState
    log: tuple[Entry, ...] = ()
    waiting: tuple[Ready, ...] = ()
    key: int = 0


@dataclass(frozen=True, slots=True)
class World:
    servers: tuple[Server, ...]
    wire: tuple[int, ...] = ()  # sorted places in _SENT
    used: tuple[int, int, int, int] = (0, 0, 0, 0)  # proposals, crashes, duplicates, heartbeats
    leaders: frozenset[tuple[int, int]] = frozenset()  # (term, server), of all time
    committed: tuple[tuple[Entry, int], ...] = ()  # and a term not below the one it was in
    depth: int = 0
    key: int = field(default=0, compare=False)


def _start(n: int, hard: HardState, log: tuple[Entry, ...], now: float) -> RaftNode:
    return RaftNode(n, SERVERS, _RANDOM, OPTIONS, now, hard_state=hard, entries=log)


def first_world() -> World:
    servers = tuple(Server(_start(n, HardState(), (), 0.0), HardState()) for n in SERVERS)
    return _keyed(World(tuple(_with_key(server) for server in servers)))


def actions(world: World, bounds: Bounds) -> Iterator[Action]:
    """All that may happen next."""
    proposals, crashes, duplicates, heartbeats = world.used
    for server in world.servers:
        node = server.node
        leads = isinstance(node.state, Leader)
        if not leads and node.term < bounds.term and node.node_id in bounds.candidates:
            yield "campaign", node.node_id
        if leads and proposals < bounds.proposals:
            yield "propose", node.node_id
        if leads and heartbeats < bounds.heartbeats:
            yield "heartbeat", node.node_id
        if crashes < bounds.crashes and (node.term or node.log.last_index):
            yield "crash", node.node_id
        if server.waiting:
            yield "sync", node.node_id
    for at, item in enumerate(world.wire):
        if at == 0 or item != world.wire[at - 1]:  # they are sorted: the same one twice is one
            yield "deliver", at
            if duplicates < bounds.duplicates:
                yield "repeat", at


def step(world: World, action: Action, bounds: Bounds) -> World:
    """The world after ``action``. Raises InvariantError where a promise is broken."""
    kind, which = action
    used = list(world.used)
    now = (world.depth + 1) * STEP
    wire = list(world.wire)
    message: Message | None = None
    source = 0
    n = which
    if kind in {"deliver", "repeat"}:
        source, n, message = _SENT[wire[which]]
        if kind == "deliver" and bounds.ordered:  # those it leaves behind are lost
            before = [at for at in range(which + 1) if _SENT[wire[at]][:2] == (source, n)]
            wire = [place for at, place in enumerate(wire) if at not in before]
        elif kind == "deliver":
            del wire[which]
        else:
            used[2] += 1
    server = world.servers[n - 1]
    if kind == "crash":
        used[1] += 1
        server = replace(server, node=_start(n, server.hard, server.log, now), waiting=())
    else:
        server = replace(server, node=_clone(server.node))
    node = server.node
    match kind:
        case "campaign":
            election.campaign(node, now, pre_vote=False)
        case "propose":
            used[0] += 1
            node.propose(b"%d" % used[0], now)
        case "heartbeat":
            used[3] += 1
            assert isinstance(node.state, Leader)
            replication.begin_round(node, node.state, now)
        case "sync":
            server = _store(server, wire, server.waiting)
        case "deliver" | "repeat":
            assert message is not None
            node.step(source, message, now)
    server = _pump(server, wire, bounds)
    servers = (*world.servers[: n - 1], _with_key(server), *world.servers[n:])
    after = World(
        servers, _alive(wire, servers, bounds), (used[0], used[1], used[2], used[3]),
        world.leaders, world.committed, world.depth + 1,
    )  # fmt: skip
    return _keyed(_check(after, server.node))


def _pump(server: Server, wire: list[int], bounds: Bounds) -> Server:
    node = server.node
    while (ready := node.ready()) is not None:
        wire += [_place((node.node_id, e.to, e.message)) for e in ready.messages]
        if bounds.slow_disks and (ready.must_sync or server.waiting):
            server = replace(server, waiting=(*server.waiting, ready))
        else:
            server = _store(server, wire, (ready,))
    return server


def _store(server: Server, wire: list[int], readies: tuple[Ready, ...]) -> Server:
    node, hard, log = server.node, server.hard, server.log
    for ready in readies:
        if ready.truncate_from is not None:
            log = log[: ready.truncate_from - 1]
        new = ready.hard_state or hard
        require(new.term >= hard.term, "the term never falls")
        require(new.commit_index >= hard.commit_index, "the commit index never falls")
        require(new.term > hard.term or hard.vote in (None, new.vote), "one vote a term")
        hard, log = new, log + ready.entries
        wire += [_place((node.node_id, e.to, e.message)) for e in ready.messages_after_sync]
        if ready.entries:
            node.on_persisted(ready.entries[-1].index, ready.entries[-1].term)
        if ready.committed:
            node.on_applied(ready.committed[-1].index)
    return replace(server, hard=hard, log=log, waiting=())


def _alive(wire: list[int], servers: tuple[Server, ...], bounds: Bounds) -> tuple[int, ...]:
    """Without what can have no effect any more: it need not be told from what is lost."""
    kept = []
    for place in wire:
        _source, to, message = _SENT[place]
        server = servers[to - 1]
        state, term = server.node.state, server.node.term
        if isinstance(message, VoteResponse | AppendResponse):
            if message.term < server.hard.term:
                continue  # an answer to an earlier term, which this server has left for good
            asks = Candidate if isinstance(message, VoteResponse) else Leader
            if message.term == term == server.hard.term and not isinstance(state, asks):
                continue  # it has won or given up, and will not ask again in this term
        kept.append(place)
    if bounds.ordered:
        return tuple(sorted(kept, key=lambda place: _SENT[place][:2]))
    return tuple(sorted(kept))


def _check(world: World, node: RaftNode) -> World:
    """The promises, as far as this server's step can have broken them."""
    committed, leaders = world.committed, world.leaders
    entries = _entries(node.log)
    for index in range(node.log.commit_index):
        if index < len(committed):
            require(committed[index][0] == entries[index], f"state machine safety at {index + 1}")
        else:
            committed += ((entries[index], node.term),)
    if isinstance(node.state, Leader):
        leaders |= {(node.term, node.node_id)}
        rivals = [n for term, n in leaders if term == node.term]
        require(len(rivals) == 1, f"election safety in term {node.term}: {sorted(rivals)}")
    for server in world.servers:
        other = server.node
        if isinstance(other.state, Leader):
            held = _entries(other.log)
            for index, (entry, term) in enumerate(committed):
                has = index < len(held) and held[index] == entry
                require(has or term >= other.term, f"leader completeness at {index + 1}")
        if other is not node:
            theirs = _entries(other.log)
            for index in range(min(len(entries), len(theirs)) - 1, -1, -1):
                if entries[index].term == theirs[index].term:
                    same = entries[: index + 1] == theirs[: index + 1]
                    require(same, f"log matching at {index + 1}")
                    break
    return replace(world, committed=committed, leaders=leaders)


def _entries(log: LogView) -> list[Entry]:
    return log._entries


def _clone(node: RaftNode) -> RaftNode:
    """A copy that shares nothing that changes."""
    twin = copy.copy(node)
    twin.log = LogView()
    twin.log._entries = list(node.log._entries)
    twin.log.snapshot_index, twin.log.snapshot_term = (
        node.log.snapshot_index,
        node.log.snapshot_term,
    )
    twin.log.commit_index = node.log.commit_index
    twin._memberships = list(node._memberships)
    twin._now_out, twin._sync_out, twin.reads = [], [], []
    state = copy.copy(node.state)
    if isinstance(state, Leader):
        state.progress = {peer: copy.copy(progress) for peer, progress in state.progress.items()}
        for progress in state.progress.values():
            progress.inflight = progress.inflight.copy()
        state.round_sent_at = dict(state.round_sent_at)
        state.reads = list(state.reads)
    elif isinstance(state, Candidate):
        state.votes = dict(state.votes)
    twin.state = state
    return twin


def _with_key(server: Server) -> Server:
    """With a digest of all but its times."""
    node, state = server.node, server.node.state
    parts: list[object] = [
        node.role, node.term, node.vote, node.leader_id, tuple(_entries(node.log)),
        node.log.commit_index, node.persisted_index, server.hard.term, server.hard.vote,
        server.hard.commit_index, server.log, server.waiting,
    ]  # fmt: skip
    if isinstance(state, Leader):
        parts += [state.first_index, state.sequence]
        parts += [
            (peer, p.next_index, p.match_index, p.state.value, p.waiting, tuple(p.inflight),
             p.commit_sent, p.acknowledged_sequence)
            for peer, p in sorted(state.progress.items())
        ]  # fmt: skip
    elif isinstance(state, Candidate):
        parts += sorted(state.votes.items())
    return replace(server, key=hash(tuple(parts)))


def _keyed(world: World) -> World:
    parts = (
        tuple(server.key for server in world.servers), world.wire, world.used, world.leaders,
        world.committed,
    )  # fmt: skip
    return replace(world, key=hash(parts))


__all__ = ["Action", "Bounds", "InvariantError", "World", "actions", "first_world", "step"]
