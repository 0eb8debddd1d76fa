"""The pure Raft core: inputs are method calls that carry ``now``, outputs are ``Ready`` batches."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from pegel_controller.raft import election, replication
from pegel_controller.raft.errors import NotLeaderError, RaftError
from pegel_controller.raft.log_view import Entry, EntryKind, LogView
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
from pegel_controller.raft.options import RaftOptions
from pegel_controller.raft.progress import Progress
from pegel_controller.raft.ready import Envelope, HardState, Membership, ReadResult, Ready, Snapshot
from pegel_controller.raft.states import (
    Follower,
    Leader,
    PendingRead,
    State,
)


class RaftNode:
    """One server's consensus state (Ongaro, 2014). Times are seconds of a monotonic clock.

    ``voters`` is the membership of a new cluster; a snapshot or a logged one overrides it.
    ``hard_state``, ``snapshot`` and ``entries`` are what the disk holds: all of it is durable.
    """

    def __init__(
        self,
        node_id: int,
        voters: Sequence[int],
        random: Random,
        options: RaftOptions,
        now: float,
        *,
        hard_state: HardState | None = None,
        snapshot: Snapshot | None = None,
        entries: Sequence[Entry] = (),
    ) -> None:
        hard = hard_state or HardState()
        self.node_id, self.random, self.options = node_id, random, options
        self.term, self.vote = hard.term, hard.vote
        self.snapshot = snapshot
        self._payload: bytes | None = None
        base = snapshot.index if snapshot else 0
        self.log = LogView(base, snapshot.term if snapshot else 0)
        first = snapshot.membership if snapshot else Membership(tuple(sorted(voters)))
        self._memberships: list[tuple[int, Membership]] = [(base, first)]
        self.log.append(entries)
        self._note_memberships(entries)
        self.log.commit_to(max(base, min(hard.commit_index, self.log.last_index)))
        self.persisted_index = self.log.last_index
        self.applied_index = base
        self._handed_entry = self.log.last_index  # last index given out for persisting
        self._handed_apply = base
        self._handed_hard = HardState(self.term, self.vote, self.log.commit_index)
        self._truncate_from: int | None = None
        self._install: Snapshot | None = None
        self._now_out: list[Envelope] = []
        self._sync_out: list[Envelope] = []
        self.reads: list[ReadResult] = []
        self.incoming_key: tuple[int, int, int] | None = None
        self.incoming = bytearray()
        self.hurry_until = float("-inf")  # until then elections are retried quickly
        # A restarted voter may have acknowledged a leader whose lease still runs.
        self._quiet_until = now + options.election_timeout_min if self.term else now
        self._now = now
        self.state: State = Follower(election.election_deadline(self, now))
        if self.membership.voters == (node_id,):
            election.campaign(self, now, pre_vote=False)

    @property
    def membership(self) -> Membership:
        """The newest one in the log: it is in force from the append on (section 4.1)."""
        return self._memberships[-1][1]

    @property
    def leader_id(self) -> int | None:
        if isinstance(self.state, Leader):
            return self.node_id
        return self.state.leader_id if isinstance(self.state, Follower) else None

    @property
    def role(self) -> str:
        return type(self.state).__name__.lower()

    @property
    def is_leader(self) -> bool:
        """Leads, and has applied an entry of its own term: it knows all that is committed."""
        return isinstance(self.state, Leader) and self.applied_index >= self.state.first_index

    def lease_valid(self, now: float) -> bool:
        """No other leader can exist yet: a quorum answered a round sent within the minimum."""
        leader = self.state
        if not isinstance(leader, Leader) or leader.transfer_to is not None:
            return False
        return now < replication.lease_start(self, leader) + self.options.election_timeout_min

    def hears_leader(self, now: float) -> bool:
        if isinstance(self.state, Leader) or now < self._quiet_until:
            return True
        heard = self.state.heard_at if isinstance(self.state, Follower) else float("-inf")
        return now < heard + self.options.election_timeout_min

    def next_deadline(self) -> float:
        """When ``tick`` must be called at the latest."""
        state = self.state
        if isinstance(state, Leader):
            return min(state.heartbeat_at, state.transfer_deadline)
        return state.deadline

    def tick(self, now: float) -> None:
        self._now = now
        state = self.state
        if isinstance(state, Leader):
            election.on_leader_tick(self, state, now)
        elif now >= state.deadline:
            election.campaign(self, now, pre_vote=True)

    def step(self, sender: int, message: Message, now: float) -> None:
        """Take a peer's message. Raises RaftError where it breaks the protocol."""
        self._now = now
        match message:
            case AppendRequest():
                replication.on_append_request(self, sender, message, now)
            case AppendResponse():
                replication.on_append_response(self, sender, message, now)
            case VoteRequest():
                election.on_vote_request(self, sender, message, now)
            case VoteResponse():
                election.on_vote_response(self, sender, message, now)
            case SnapshotChunk():
                replication.on_snapshot_chunk(self, sender, message, now)
            case SnapshotResponse():
                replication.on_snapshot_response(self, sender, message, now)
            case TimeoutNow():
                election.on_timeout_now(self, sender, message, now)

    def _leader(self) -> Leader:
        if not isinstance(self.state, Leader):
            raise NotLeaderError(self.leader_id)
        return self.state

    def propose(self, data: bytes, now: float) -> int:
        """Append a command; its index. Raises NotLeaderError (also during a transfer)."""
        self._now = now
        if self._leader().transfer_to is not None:
            raise NotLeaderError(self._leader().transfer_to)
        return self.append_own(EntryKind.COMMAND, data)

    def propose_membership(self, voters: Sequence[int], learners: Sequence[int], now: float) -> int:
        """Change at most one voter. Raises NotLeaderError, or RaftError if it is not allowed."""
        self._now = now
        leader = self._leader()
        new = Membership(tuple(sorted(voters)), tuple(sorted(learners)))
        if leader.transfer_to is not None:
            raise NotLeaderError(leader.transfer_to)
        if self._memberships[-1][0] > self.log.commit_index:
            raise RaftError("a membership change is still in progress")
        # Without this two leaders' changes may miss each other (Ongaro, raft-dev, 2015).
        if self.log.commit_index < leader.first_index:
            raise RaftError("the leader has committed nothing in its own term yet")
        if not new.voters or len(set(new.voters) ^ set(self.membership.voters)) > 1:
            raise RaftError("a membership change may add or remove one voter")
        if set(new.voters) & set(new.learners):
            raise RaftError("a node is a voter or a learner")
        for peer in sorted(set(new.voters) - set(self.membership.voters)):
            # Until it has caught up its vote would only make quorums larger (section 4.2.1).
            known = leader.progress.get(peer)
            if known is None or known.match_index < self.log.commit_index:
                raise RaftError(f"node {peer} is no learner that has caught up")
        return self.append_own(EntryKind.MEMBERSHIP, new.encode())

    def read_index(self, now: float) -> int:
        """A token that comes back in ``Ready.reads``. Raises NotLeaderError."""
        self._now = now
        leader = self._leader()
        token = leader.sequence + 1  # only a round begun after the request proves anything
        leader.reads.append(PendingRead(token, self.log.commit_index))
        leader.round_pending = True
        return token

    def transfer_leadership(self, to: int | None, now: float) -> int:
        """Hand over to ``to``, or to the voter furthest along; the target. Gives up by itself."""
        self._now = now
        leader = self._leader()
        others = [peer for peer in self.membership.voters if peer != self.node_id]
        if not others or (to is not None and to not in others):
            raise RaftError(f"node {to} is no other voter")
        target = (
            to
            if to is not None
            else max(others, key=lambda peer: (leader.progress[peer].match_index, -peer))
        )
        leader.transfer_to, leader.transfer_sent = target, False
        leader.transfer_deadline = now + self.options.election_timeout_min
        replication.advance_transfer(self, leader)
        return target

    def step_down(self, now: float) -> None:
        """This node cannot lead as it should: let somebody else (or itself, in a new term)."""
        if isinstance(self.state, Leader):
            election.become_follower(self, self.term, None, now)

    def on_peer_lost(self, peer: int, now: float) -> None:
        """The process of ``peer`` is known to be gone: no lease of its leadership remains."""
        self._now = now
        state = self.state
        if isinstance(state, Leader) and peer in state.progress:
            state.progress[peer].back_off(state.progress[peer].match_index + 1)
        elif isinstance(state, Follower) and state.leader_id == peer:
            options = self.options
            # Staggered by rank: two candidates at once would split the votes.
            others = [
                voter for voter in self.membership.voters if voter not in {peer, self.node_id}
            ]
            rank = sum(voter < self.node_id for voter in others)
            delay = self.random.uniform(options.peer_lost_delay_min, options.peer_lost_delay_max)
            self.hurry_until = now + options.election_timeout_min
            self.state = Follower(now + delay + rank * options.peer_lost_stagger)

    def on_persisted(self, index: int, term: int) -> None:
        """Entries up to ``index`` are durable; ignored where ``index`` was truncated since."""
        if self.log.term_at(index) == term and index > self.persisted_index:
            self.persisted_index = index
            replication.advance_commit(self)

    def on_applied(self, index: int) -> None:
        """The state machine reached ``index``; below a snapshot taken meanwhile it is old news."""
        assert index <= self.log.commit_index
        self.applied_index = max(self.applied_index, index)

    def compact(self, snapshot: Snapshot) -> None:
        """A snapshot of the applied state is durable: forget the log up to it."""
        assert self.log.snapshot_index <= snapshot.index <= self.applied_index
        self.log.compact(snapshot.index)
        self._take_snapshot(snapshot)

    def membership_at(self, index: int) -> Membership:
        """The one in force at ``index``, for a snapshot taken there."""
        return next(m for at, m in reversed(self._memberships) if at <= index)

    def ready(self) -> Ready | None:
        """The effects since the last call; None if there are none."""
        self._retire_removed_leader()
        if isinstance(self.state, Leader):
            replication.flush(self, self.state, self._now)
        log, handed = self.log, self._handed_hard
        entries = self._between(self._handed_entry, log.last_index)
        committed = self._between(self._handed_apply, log.commit_index)
        voted = self.term != handed.term or self.vote != handed.vote
        changed = voted or log.commit_index != handed.commit_index
        out = bool(self._now_out or self._sync_out or self.reads)
        work = entries or committed or self._install or self._truncate_from is not None
        if not (changed or out or work):
            return None
        hard = HardState(self.term, self.vote, log.commit_index) if changed else handed
        result = Ready(
            hard if changed else None,
            self._install,
            self._truncate_from,
            entries,
            tuple(self._now_out),
            tuple(self._sync_out),
            committed,
            tuple(self.reads),
            bool(voted or entries or self._install or self._truncate_from is not None),
        )
        self._handed_hard, self._install, self._truncate_from = hard, None, None
        self._handed_entry, self._handed_apply = log.last_index, log.commit_index
        self._now_out, self._sync_out, self.reads = [], [], []
        return result

    def _between(self, after: int, last: int) -> tuple[Entry, ...]:
        return tuple(self.log.slice(after + 1, last, 1 << 62)) if last > after else ()

    def _retire_removed_leader(self) -> None:
        if not isinstance(self.state, Leader) or self.node_id in self.membership.voters:
            return
        if self._memberships[-1][0] <= self.log.commit_index:
            replication.flush(self, self.state, self._now)  # tells the others of the commit
            election.become_follower(self, self.term, None, self._now)

    # Used by election.py and replication.py.

    def peers(self) -> list[int]:
        everybody = self.membership.voters + self.membership.learners
        return sorted(peer for peer in everybody if peer != self.node_id)

    def send_now(self, to: int, message: Message) -> None:
        self._now_out.append(Envelope(to, message))

    def send_after_sync(self, to: int, message: Message) -> None:
        self._sync_out.append(Envelope(to, message))

    def append_own(self, kind: EntryKind, data: bytes) -> int:
        entry = Entry(self.log.last_index + 1, self.term, kind, data)
        self.log.append([entry])
        self.on_appended([entry])
        return entry.index

    def on_appended(self, entries: Sequence[Entry]) -> None:
        if self._note_memberships(entries):
            self._update_progress()

    def on_truncated(self, index: int) -> None:
        self.persisted_index = min(self.persisted_index, index - 1)
        while len(self._memberships) > 1 and self._memberships[-1][0] >= index:
            self._memberships.pop()
        if index <= self._handed_entry:
            known = self._truncate_from
            self._truncate_from = index if known is None else min(known, index)
            self._handed_entry = index - 1

    def _note_memberships(self, entries: Sequence[Entry]) -> bool:
        found = [e for e in entries if e.kind is EntryKind.MEMBERSHIP]
        self._memberships += [(e.index, Membership.decode(e.data)) for e in found]
        return bool(found)

    def _update_progress(self) -> None:
        if isinstance(self.state, Leader):
            known, next_index = self.state.progress, self.log.last_index + 1
            self.state.progress = {
                peer: known.get(peer) or Progress(next_index, heard_at=self._now)
                for peer in self.peers()
            }
            if self.state.transfer_to not in self.state.progress:
                self.state.transfer_to, self.state.transfer_deadline = None, float("inf")

    def fail_reads(self, leader: Leader) -> None:
        self.reads += [ReadResult(read.token, None) for read in leader.reads]

    def snapshot_payload(self) -> bytes:
        assert self.snapshot is not None
        if self._payload is None:
            self._payload = self.snapshot.encode()
        return self._payload

    def _take_snapshot(self, snapshot: Snapshot) -> None:
        self.snapshot, self._payload = snapshot, None
        later = [item for item in self._memberships if item[0] > snapshot.index]
        self._memberships = [(snapshot.index, snapshot.membership), *later]

    def install(self, snapshot: Snapshot) -> None:
        """Replace the log up to a leader's snapshot; a suffix that matches it is kept.

        Dropping it could lose entries that this node has acknowledged.
        """
        if self.log.term_at(snapshot.index) == snapshot.term:
            self.log.commit_to(snapshot.index)
            self.log.compact(snapshot.index)
        else:
            self.on_truncated(self.log.commit_index + 1)
            self._truncate_from = snapshot.index + 1
            self.log.reset(snapshot.index, snapshot.term)
        self._install = snapshot
        self._handed_entry = max(self._handed_entry, snapshot.index)
        self._handed_apply = snapshot.index
        self.persisted_index = max(self.persisted_index, snapshot.index)
        self.applied_index = snapshot.index
        self._take_snapshot(snapshot)
