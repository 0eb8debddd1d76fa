"""One group of the classic protocol as a pure state machine: members, generations, rebalances.

Rules: KIP-134 (initial delay), KIP-345 (static members), KIP-394 (member ids before joining),
KIP-429 (cooperative rebalance is the clients' affair), KIP-814 (a static leader that comes back).

What a generation was assigned is a promise, so it holds only once its record is committed: the
leader's assignment becomes a ``GroupAssignment`` write, and the members get their shares in
``on_assignment_committed``. Who is waiting, and until when, is kept in memory alone.
"""

from __future__ import annotations

from random import Random

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.join_group import JoinGroupResponse, JoinGroupResponseMember
from pegel.protocol.messages.sync_group import SyncGroupResponse
from pegel_broker.coordinator.effects import Effects, Moment
from pegel_broker.coordinator.timers import Timers
from pegel_broker.group.counters import GroupCounters
from pegel_broker.group.member import Member, Waiting
from pegel_broker.group.offsets import OffsetTable
from pegel_broker.group.options import GroupOptions
from pegel_broker.group.records import GroupMetadataValue, group_record
from pegel_broker.group.roster import Roster
from pegel_broker.group.states import (
    LEGAL_TRANSITIONS,
    GroupAssignment,
    State,
    TimerKey,
    TimerKind,
    join_refused,
)


class ClassicGroup:
    """Legal transitions are in ``states``; only ``_become`` makes one."""

    def __init__(
        self,
        group_id: str,
        options: GroupOptions,
        timers: Timers[TimerKey],
        random: Random,
        counters: GroupCounters,
    ) -> None:
        self.group_id = group_id
        self.options = options
        self.timers = timers
        self.random = random
        self.counters = counters
        self.state = State.EMPTY
        self.state_since_ms = -1
        self.generation = 0
        self.protocol_name: str | None = None
        self.leader_id: str | None = None
        self.roster = Roster()
        # Ids given out (KIP-394) to clients that have not joined with them yet.
        self.pending: dict[str, None] = {}
        # Members of the generation that have not asked for their assignment yet.
        self.pending_sync: set[str] = set()
        self.offsets = OffsetTable()
        # The last committed record; None where there is none, or a tombstone.
        self.persisted: GroupMetadataValue | None = None
        self._joining = 0
        # Whether the rebalance began with an empty group: then it waits for more to come.
        self._initial = False
        self._initial_left = 0.0
        self._rebalance_began = 0.0
        self._newcomer = False
        # The generation whose assignment is on its way to the log.
        self._assigning: int | None = None

    # -- what there is

    @property
    def is_vacant(self) -> bool:
        """Nobody in it and nothing kept of it: it may be forgotten."""
        return (
            not self.members and not self.pending and not len(self.offsets)
            and self.persisted is None and self.state in {State.EMPTY, State.DEAD}
        )  # fmt: skip

    @property
    def members(self) -> dict[str, Member]:
        return self.roster.members

    @property
    def protocol_type(self) -> str | None:
        return self.roster.protocol_type

    @property
    def joined(self) -> int:
        """Members that wait for the rebalance to complete."""
        return self._joining

    # -- members

    def add(self, now: Moment, member: Member, protocol_type: str) -> None:
        """A new member, which waits for the rebalance that it causes."""
        assert member.joining is not None
        self.pending.pop(member.member_id, None)
        if not self.members:
            self.roster.protocol_type = protocol_type
        if self.leader_id is None:
            self.leader_id = member.member_id
        if self.state is State.PREPARING_REBALANCE and self._initial:
            self._newcomer = True
        member.is_new = True
        self.roster.add(member)
        self._joining += 1
        self.keep_alive(now, member)

    def remove(self, member: Member, effects: Effects, error: ErrorCode) -> None:
        """Take it out; an answer that it waits for is ``error``."""
        self.answer_join(member, effects, error)
        self.answer_sync(member, effects, error)
        self.roster.remove(member)
        self.pending_sync.discard(member.member_id)
        self.timers.cancel(self.member_key(member.member_id))
        if self.leader_id == member.member_id:
            self.leader_id = next(iter(self.members), None)

    def replace(self, member: Member, member_id: str, effects: Effects) -> None:
        """Give a static member's place to a new member id; who held it before is fenced."""
        self.answer_join(member, effects, ErrorCode.FENCED_INSTANCE_ID)
        self.answer_sync(member, effects, ErrorCode.FENCED_INSTANCE_ID)
        old_id = member.member_id
        self.timers.cancel(self.member_key(old_id))
        self.roster.rename(member, member_id)
        if self.leader_id == old_id:
            self.leader_id = member_id
        if old_id in self.pending_sync:
            self.pending_sync.discard(old_id)
            self.pending_sync.add(member_id)

    def forget_pending(self, now: Moment, member_id: str, effects: Effects) -> None:
        """A client that got an id will not join with it: nobody waits for it any more."""
        del self.pending[member_id]
        self.timers.cancel(self.member_key(member_id))
        if self.state is State.PREPARING_REBALANCE:
            self._try_complete(now, effects)

    def member_key(self, member_id: str) -> TimerKey:
        return TimerKey(TimerKind.MEMBER, self.group_id, member_id)

    def keep_alive(self, now: Moment, member: Member) -> None:
        """It was heard of. While it waits for an answer of ours it need not be heard of again."""
        key = self.member_key(member.member_id)
        if member.is_new:
            self.timers.set(key, now.seconds + self.options.new_member_timeout)
        elif member.joining is None and member.syncing is None:
            self.timers.set(key, now.seconds + member.session_timeout_ms / 1000)
        else:
            self.timers.cancel(key)

    # -- answers

    def wait_join(self, now: Moment, member: Member, waiting: Waiting, effects: Effects) -> None:
        """The member waits for the rebalance; an older request of its is given up."""
        self.answer_join(member, effects, ErrorCode.REBALANCE_IN_PROGRESS)
        self.answer_sync(member, effects, ErrorCode.REBALANCE_IN_PROGRESS)
        member.joining = waiting
        self._joining += 1
        self.keep_alive(now, member)

    def answer_join(self, member: Member, effects: Effects, error: ErrorCode) -> None:
        """The answer to a waiting JoinGroup, if there is one."""
        if member.joining is None:
            return
        if error:
            response = join_refused(error, member.member_id, member.joining.version)
        else:
            response = self.join_response(member)
        self.answer_join_with(member, effects, response)

    def answer_join_with(
        self, member: Member, effects: Effects, response: JoinGroupResponse
    ) -> None:
        waiting, member.joining = member.joining, None
        assert waiting is not None
        self._joining -= 1
        effects.reply(waiting.handle, response)

    def join_response(self, member: Member) -> JoinGroupResponse:
        """The generation as it is; the leader hears of all members."""
        leads = member.member_id == self.leader_id
        return JoinGroupResponse(
            generation_id=self.generation,
            protocol_type=self.protocol_type,
            protocol_name=self.protocol_name,
            leader=self.leader_id or "",
            member_id=member.member_id,
            members=self.members_for_leader() if leads else [],
        )

    def members_for_leader(self) -> list[JoinGroupResponseMember]:
        return [
            JoinGroupResponseMember(
                member_id=m.member_id,
                group_instance_id=m.instance_id,
                metadata=m.metadata(self.protocol_name),
            )
            for m in self.members.values()
        ]

    def answer_sync(self, member: Member, effects: Effects, error: ErrorCode) -> None:
        """The answer to a waiting SyncGroup, if there is one."""
        waiting, member.syncing = member.syncing, None
        if waiting is not None:
            effects.reply(waiting.handle, self.sync_response(member, error))

    def sync_response(self, member: Member, error: ErrorCode) -> SyncGroupResponse:
        if error:
            return SyncGroupResponse(error_code=error)
        return SyncGroupResponse(
            protocol_type=self.protocol_type,
            protocol_name=self.protocol_name,
            assignment=member.assignment,
        )

    def fail_waiting(self, effects: Effects, error: ErrorCode) -> None:
        for member in list(self.members.values()):
            self.answer_join(member, effects, error)
            self.answer_sync(member, effects, error)

    # -- transitions

    def _become(self, now: Moment, state: State) -> None:
        assert state in LEGAL_TRANSITIONS[self.state], f"{self.group_id}: {self.state} to {state}"
        self.counters.move(self.state.value, state.value)
        self.state = state
        self.state_since_ms = now.wall_ms

    def die(self, now: Moment) -> None:
        """Forgotten: a reference that somebody still holds must not be used."""
        self._become(now, State.DEAD)
        for kind in (TimerKind.JOIN, TimerKind.SYNC):
            self.timers.cancel(TimerKey(kind, self.group_id))

    def rebalance_or_complete(self, now: Moment, effects: Effects) -> None:
        """The membership changed: begin a rebalance, or see whether the one under way is over."""
        if self.state is State.PREPARING_REBALANCE:
            self._try_complete(now, effects)
        elif self.state is not State.DEAD:
            self.prepare_rebalance(now, effects)

    def after_removal(self, now: Moment, effects: Effects) -> None:
        if self.state is not State.EMPTY:
            self.rebalance_or_complete(now, effects)

    def prepare_rebalance(self, now: Moment, effects: Effects) -> None:
        if self.state is State.COMPLETING_REBALANCE:
            for member in self.members.values():
                member.assignment = b""
                self.answer_sync(member, effects, ErrorCode.REBALANCE_IN_PROGRESS)
                self.keep_alive(now, member)
        self._initial = self.state is State.EMPTY
        self._newcomer = False
        self._assigning = None
        self.pending_sync.clear()
        self.timers.cancel(TimerKey(TimerKind.SYNC, self.group_id))
        if self.state is not State.COMPLETING_REBALANCE:
            self._rebalance_began = now.seconds
        self._become(now, State.PREPARING_REBALANCE)
        self.counters.rebalances += 1
        delay = self.roster.rebalance_timeout
        if self._initial:
            delay = self.options.initial_rebalance_delay
            self._initial_left = max(self.roster.rebalance_timeout - delay, 0.0)
        self.timers.set(TimerKey(TimerKind.JOIN, self.group_id), now.seconds + delay)
        if self._initial and delay <= 0:
            self.complete_join(now, effects)
        else:
            self._try_complete(now, effects)

    def _try_complete(self, now: Moment, effects: Effects) -> None:
        if not self._initial and self._joining == len(self.members) and not self.pending:
            self.complete_join(now, effects)

    def on_join_timer(self, now: Moment, effects: Effects) -> None:
        """The time to join is over, unless an empty group is still filling up (KIP-134)."""
        if self.state is not State.PREPARING_REBALANCE:
            return
        if self._initial and self._newcomer and self._initial_left > 0:
            delay = min(self.options.initial_rebalance_delay, self._initial_left)
            self._initial_left -= delay
            self._newcomer = False
            self.timers.set(TimerKey(TimerKind.JOIN, self.group_id), now.seconds + delay)
        else:
            self.complete_join(now, effects)

    def complete_join(self, now: Moment, effects: Effects) -> None:
        """End the phase of joining: the next generation, of those who came."""
        assert self.state is State.PREPARING_REBALANCE
        for member in list(self.members.values()):
            if member.joining is None and member.instance_id is None:
                self.counters.evicted += 1
                self.remove(member, effects, ErrorCode.UNKNOWN_MEMBER_ID)
        join_key = TimerKey(TimerKind.JOIN, self.group_id)
        if self.members and not self._elect_leader():
            # Only static members are left, none of which came back: their sessions decide.
            self.timers.set(join_key, now.seconds + self.roster.rebalance_timeout)
            return
        self.timers.cancel(join_key)
        self.generation += 1
        self._initial = False
        if not self.members:
            self.protocol_name = self.leader_id = None
            self._become(now, State.EMPTY)
            self._write(effects, {})
            return
        self.protocol_name = self.roster.select_protocol()
        self._become(now, State.COMPLETING_REBALANCE)
        for member in self.members.values():
            member.is_new = False
            if member.joining is not None:
                self.pending_sync.add(member.member_id)
                self.answer_join(member, effects, ErrorCode.NONE)
                self.keep_alive(now, member)
        sync_key = TimerKey(TimerKind.SYNC, self.group_id)
        self.timers.set(sync_key, now.seconds + self.roster.rebalance_timeout)

    def _elect_leader(self) -> bool:
        leader = self.members.get(self.leader_id or "")
        if leader is None or leader.joining is None:
            leader = next((m for m in self.members.values() if m.joining is not None), None)
            if leader is None:
                return False
            self.leader_id = leader.member_id
        return True

    # -- assignment

    def record(self, assignments: dict[str, bytes]) -> GroupMetadataValue:
        return GroupMetadataValue(
            protocol_type=self.protocol_type or "",
            generation=self.generation,
            protocol=self.protocol_name,
            leader=self.leader_id,
            current_state_timestamp=self.state_since_ms,
            members=[
                m.record(self.protocol_name, assignments.get(m.member_id, b""))
                for m in self.members.values()
            ],
        )

    def _write(self, effects: Effects, assignments: dict[str, bytes]) -> None:
        record = group_record(self.group_id, self.record(assignments))
        effects.write([record], GroupAssignment(self.group_id, self.generation))

    def assign(self, effects: Effects, assignments: dict[str, bytes]) -> None:
        """The leader's decision; sent again while it is being written it changes nothing."""
        if self._assigning != self.generation:
            self._assigning = self.generation
            self._write(effects, assignments)

    def on_assignment_committed(self, now: Moment, generation: int, effects: Effects) -> None:
        """Hand out what was committed, unless a new rebalance has begun meanwhile."""
        if self.state is not State.COMPLETING_REBALANCE or self.generation != generation:
            return
        persisted = self.persisted
        assert persisted is not None
        assert persisted.generation == generation
        self._assigning = None
        shares = {m.member_id: bytes(m.assignment) for m in persisted.members}
        self._become(now, State.STABLE)
        self.counters.rebalance_duration.observe(now.seconds - self._rebalance_began)
        for member in self.members.values():
            member.assignment = shares.get(member.member_id, b"")
            if member.syncing is not None:
                self.answer_sync(member, effects, ErrorCode.NONE)
                self.keep_alive(now, member)

    def on_assignment_failed(
        self, now: Moment, generation: int, error: ErrorCode, effects: Effects
    ) -> None:
        if self.state is not State.COMPLETING_REBALANCE or self.generation != generation:
            return
        for member in self.members.values():
            self.answer_sync(member, effects, error)
            self.keep_alive(now, member)
        self.prepare_rebalance(now, effects)

    def synced(self, member: Member) -> None:
        """The member has asked for its assignment."""
        self.pending_sync.discard(member.member_id)
        if not self.pending_sync:
            self.timers.cancel(TimerKey(TimerKind.SYNC, self.group_id))

    def on_sync_timer(self, now: Moment, effects: Effects) -> None:
        """Members that never asked for their assignment leave; the others begin again."""
        if self.state not in {State.COMPLETING_REBALANCE, State.STABLE} or not self.pending_sync:
            return
        for member_id in sorted(self.pending_sync):
            self.counters.evicted += 1
            self.remove(self.members[member_id], effects, ErrorCode.UNKNOWN_MEMBER_ID)
        self.prepare_rebalance(now, effects)

    def on_member_timer(self, now: Moment, member_id: str, effects: Effects) -> None:
        """A member was not heard of for its session time-out."""
        if member_id in self.pending:
            self.forget_pending(now, member_id, effects)
            return
        member = self.members.get(member_id)
        if member is not None:
            self.counters.heartbeat_expirations += 1
            self.remove(member, effects, ErrorCode.UNKNOWN_MEMBER_ID)
            self.after_removal(now, effects)

    # -- a new coordinator

    def restore(self, now: Moment, effects: Effects) -> None:
        """Become what the committed record says; members get their full session time-out."""
        persisted = self.persisted
        if persisted is None:
            return
        self.generation = persisted.generation
        self.roster.protocol_type = persisted.protocol_type or None
        self.protocol_name = persisted.protocol
        self.leader_id = persisted.leader
        for record in persisted.members:
            member = Member.from_record(record, persisted.protocol)
            self.roster.add(member)
            self.keep_alive(now, member)
        if self.members:
            self.counters.move(self.state.value, State.STABLE.value)
            self.state = State.STABLE
        self.state_since_ms = persisted.current_state_timestamp
        if len(self.members) > self.options.max_size:
            self.prepare_rebalance(now, effects)
