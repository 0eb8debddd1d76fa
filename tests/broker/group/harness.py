"""A group coordinator's state machine with a clock and a log of its own; nothing ever waits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.heartbeat import HeartbeatRequest
from pegel.protocol.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from pegel.protocol.messages.leave_group import MemberIdentity
from pegel.protocol.messages.offset_commit import OffsetCommitRequest
from pegel.protocol.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)
from pegel_broker.coordinator.effects import Effects, Moment, Record, Write
from pegel_broker.group.counters import GroupCounters
from pegel_broker.group.member import Caller
from pegel_broker.group.options import GroupOptions
from pegel_broker.group.records import NO_EXPIRY, OffsetCommitValue
from pegel_broker.group.shard import GroupShard, OffsetToCommit

GROUP = "group"
START_MS = 1_700_000_000_000
NO_DELAY = GroupOptions(initial_rebalance_delay=0.0)


class Call:
    """A request; ``answer`` is None while it waits."""

    def __init__(self) -> None:
        self.answer: Any = None


def subscription(*topics: str) -> bytes:
    """A consumer's metadata, version 1: topics, no user data, nothing owned."""
    names = [topic.encode() for topic in topics]
    joined = b"".join(len(name).to_bytes(2, "big") + name for name in names)
    head = b"\x00\x01" + len(names).to_bytes(4, "big")
    return head + joined + b"\xff\xff\xff\xff" + b"\x00\x00\x00\x00"


@dataclass
class Coordinator:
    """``held`` writes wait for ``commit()``; otherwise each is committed at once."""

    options: GroupOptions = NO_DELAY
    seed: int = 1
    now: float = 0.0
    hold: bool = False
    log: list[Record] = field(default_factory=list)
    held: list[Write] = field(default_factory=list)
    counters: GroupCounters = field(default_factory=GroupCounters)

    def __post_init__(self) -> None:
        self.shard = GroupShard(self.options, Random(self.seed), self.counters)

    @property
    def moment(self) -> Moment:
        return Moment(self.now, START_MS + round(self.now * 1000))

    def perform(self, effects: Effects) -> None:
        todo = [effects]
        while todo:
            current = todo.pop(0)
            for handle, answer in current.replies:
                assert isinstance(handle, Call)
                assert handle.answer is None, "answered twice"
                handle.answer = answer
            for write in current.writes:
                if self.hold:
                    self.held.append(write)
                else:
                    todo.append(self._commit(write))

    def _commit(self, write: Write) -> Effects:
        for record in write.records:
            self.log.append(record)
            self.shard.replay(record)
        return self.shard.on_committed(self.moment, write)

    def commit(self) -> None:
        held, self.held = self.held, []
        for write in held:
            self.perform(self._commit(write))

    def refuse(self, error: ErrorCode = ErrorCode.COORDINATOR_NOT_AVAILABLE) -> None:
        held, self.held = self.held, []
        for write in held:
            self.perform(self.shard.on_failed(self.moment, write, error))

    def advance(self, seconds: float) -> None:
        """Let time pass; timers run when they are due."""
        end = self.now + seconds
        while (deadline := self.shard.next_deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.perform(self.shard.on_time(self.moment))
        self.now = end

    def fail_over(self) -> Coordinator:
        """A new coordinator, which has nothing but the log."""
        self.perform(self.shard.on_unload())
        new = replace(self, counters=GroupCounters(), seed=self.seed + 1, held=[])
        for record in self.log:
            new.shard.replay(record)
        new.perform(new.shard.on_loaded(new.moment))
        return new

    @property
    def group(self) -> Any:
        return self.shard.groups[GROUP]

    @property
    def state(self) -> str:
        return self.group.state.value if GROUP in self.shard.groups else "-"

    # -- requests

    def ask_join(
        self,
        member_id: str = "",
        *,
        group: str = GROUP,
        version: int = 9,
        instance: str | None = None,
        protocols: dict[str, bytes] | None = None,
        session_ms: int = 10_000,
        rebalance_ms: int = 30_000,
        protocol_type: str = "consumer",
    ) -> Call:
        call = Call()
        given = {"range": subscription("topic")} if protocols is None else protocols
        request = JoinGroupRequest(
            group_id=group, session_timeout_ms=session_ms, rebalance_timeout_ms=rebalance_ms,
            member_id=member_id, group_instance_id=instance, protocol_type=protocol_type,
            protocols=[JoinGroupRequestProtocol(name=n, metadata=m) for n, m in given.items()],
        )  # fmt: skip
        caller = Caller("client", "/127.0.0.1", version)
        self.perform(self.shard.join(self.moment, request, caller, call))
        return call

    def join(self, member_id: str = "", **more: Any) -> Call:
        """As clients do: with the id that they are told to take (KIP-394)."""
        call = self.ask_join(member_id, **more)
        if call.answer is not None and call.answer.error_code == ErrorCode.MEMBER_ID_REQUIRED:
            return self.ask_join(call.answer.member_id, **more)
        return call

    def sync(
        self,
        joined: JoinGroupResponse,
        shares: dict[str, bytes] | None = None,
        *,
        instance: str | None = None,
        generation: int | None = None,
    ) -> Call:
        call = Call()
        request = SyncGroupRequest(
            group_id=GROUP, member_id=joined.member_id, group_instance_id=instance,
            generation_id=joined.generation_id if generation is None else generation,
            protocol_type=joined.protocol_type, protocol_name=joined.protocol_name,
            assignments=[
                SyncGroupRequestAssignment(member_id=m, assignment=a)
                for m, a in (shares or {}).items()
            ],
        )  # fmt: skip
        caller = Caller("client", "/127.0.0.1", 5)
        self.perform(self.shard.sync(self.moment, request, caller, call))
        return call

    def heartbeat(self, member_id: str, generation: int, instance: str | None = None) -> ErrorCode:
        call = Call()
        request = HeartbeatRequest(
            group_id=GROUP, member_id=member_id, generation_id=generation,
            group_instance_id=instance,
        )  # fmt: skip
        self.perform(self.shard.heartbeat(self.moment, request, call))
        error: ErrorCode = call.answer
        return error

    def leave(self, *members: str | tuple[str, str]) -> list[ErrorCode]:
        """Member ids, or (member id, instance id)."""
        call = Call()
        leaving = [
            MemberIdentity(member_id=m)
            if isinstance(m, str)
            else MemberIdentity(member_id=m[0], group_instance_id=m[1])
            for m in members
        ]
        self.perform(self.shard.leave(self.moment, GROUP, leaving, call))
        errors: list[ErrorCode] = call.answer
        return errors

    def commit_offset(
        self,
        offset: int,
        *,
        group: str = GROUP,
        topic: str = "topic",
        partition: int = 0,
        member_id: str = "",
        generation: int = -1,
        instance: str | None = None,
        metadata: str = "",
        expires_in_ms: int | None = None,
        version: int = 9,
    ) -> Call:
        call = Call()
        now_ms = self.moment.wall_ms
        expires = NO_EXPIRY if expires_in_ms is None else now_ms + expires_in_ms
        value = OffsetCommitValue(
            offset=offset, metadata=metadata, commit_timestamp=now_ms, expire_timestamp=expires
        )
        request = OffsetCommitRequest(
            group_id=group, member_id=member_id, generation_id_or_member_epoch=generation,
            group_instance_id=instance,
        )  # fmt: skip
        self.perform(
            self.shard.commit_offsets(
                self.moment, request, [OffsetToCommit(topic, partition, value)], version, call
            )
        )
        return call

    def committed(self, partition: int = 0, topic: str = "topic", group: str = GROUP) -> int:
        found = self.shard.offset(group, topic, partition)
        return -1 if found is None else found.offset

    # -- whole scenarios

    def settle(self, calls: list[Call]) -> list[JoinGroupResponse]:
        """The joined members sync, the leader with a share for each; their generation is stable."""
        joined: list[JoinGroupResponse] = [call.answer for call in calls]
        assert all(j is not None and not j.error_code for j in joined), joined
        leader = next(j for j in joined if j.leader == j.member_id)
        shares = {m.member_id: f"share of {m.member_id}".encode() for m in leader.members}
        syncs = [(j, self.sync(j, shares if j is leader else None)) for j in joined]
        for j, call in syncs:
            answer: SyncGroupResponse = call.answer
            assert answer.error_code == 0
            assert answer.assignment == shares[j.member_id]
        assert self.state == "Stable"
        return joined

    def rejoin(self, joined: list[JoinGroupResponse], **more: Any) -> list[Call]:
        """All join again, the leader first: that is what begins a rebalance."""
        leader_first = sorted(joined, key=lambda j: j.member_id != j.leader)
        return [self.join(j.member_id, **more) for j in leader_first]

    def stable(self, count: int, **more: Any) -> list[JoinGroupResponse]:
        """A stable group of ``count`` dynamic members."""
        calls = [self.join(**more)]
        for _ in range(count - 1):
            joined = [call.answer for call in calls]
            calls = [self.join(**more)]  # waits for the others, who hear of it and join again
            calls += [self.join(j.member_id, **more) for j in joined]
        return self.settle(calls)
