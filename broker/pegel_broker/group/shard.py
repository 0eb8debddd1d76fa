"""All groups of one partition of ``__consumer_offsets``: the group coordinator's state machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from uuid import UUID

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.heartbeat import HeartbeatRequest
from pegel.protocol.messages.join_group import JoinGroupRequest
from pegel.protocol.messages.leave_group import MemberIdentity
from pegel.protocol.messages.offset_commit import OffsetCommitRequest
from pegel.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from pegel_broker.coordinator.effects import Effects, Handle, Moment, Record, Write
from pegel_broker.coordinator.timers import Timers
from pegel_broker.group import requests
from pegel_broker.group.classic import ClassicGroup
from pegel_broker.group.counters import GroupCounters
from pegel_broker.group.member import Caller
from pegel_broker.group.offsets import CommittedOffset
from pegel_broker.group.options import GroupOptions
from pegel_broker.group.records import (
    GroupMetadataValue,
    OffsetCommitValue,
    OffsetRecord,
    group_record,
    is_too_long,
    offset_record,
    read_record,
)
from pegel_broker.group.states import (
    GroupAssignment,
    State,
    StaticRejoin,
    TimerKey,
    TimerKind,
    join_refused,
)

_RETENTION = TimerKey(TimerKind.RETENTION)
# Tombstones in one batch.
MAX_TOMBSTONES = 1_000


@dataclass(frozen=True, slots=True)
class OffsetToCommit:
    topic: str
    partition: int
    value: OffsetCommitValue


_TOO_LARGE = {ErrorCode.MESSAGE_TOO_LARGE, ErrorCode.RECORD_LIST_TOO_LARGE}


@dataclass(frozen=True, slots=True)
class _Answer:
    """Context of a write whose requester waits: the answer once it is committed.

    If it fails the answer is the same with ``error`` wherever it says NONE.
    """

    handle: Handle
    errors: tuple[ErrorCode, ...]


class GroupShard:
    """A ``StateMachine``. Answers of the methods that take a ``handle`` are in the effects."""

    def __init__(self, options: GroupOptions, random: Random, counters: GroupCounters) -> None:
        self.options = options
        self.groups: dict[str, ClassicGroup] = {}
        self.unknown_records = 0
        self._random = random
        self._counters = counters
        self._timers: Timers[TimerKey] = Timers()

    # -- groups

    def _make(self, group_id: str) -> ClassicGroup:
        group = self.groups.get(group_id)
        if group is None:
            group = self.groups[group_id] = ClassicGroup(
                group_id, self.options, self._timers, self._random, self._counters
            )
            self._counters.created(group.state.value)
        return group

    def _forget_if_vacant(self, now: Moment, group: ClassicGroup) -> None:
        if group.is_vacant and self.groups.get(group.group_id) is group:
            del self.groups[group.group_id]
            if group.state is not State.DEAD:
                group.die(now)
            self._counters.forgotten(group.state.value)

    @property
    def _is_full(self) -> bool:
        return len(self.groups) >= self.options.max_groups

    # -- StateMachine

    def replay(self, record: Record) -> None:
        """Raises RecordError."""
        found = read_record(record)
        if found is None:
            self.unknown_records += 1
        elif isinstance(found, OffsetRecord):
            self._replay_offset(found)
        else:
            value: GroupMetadataValue | None = found.value
            group_id = found.key.group
            if value is not None:
                self._make(group_id).persisted = value
            elif group_id in self.groups:
                self.groups[group_id].persisted = None

    def _replay_offset(self, record: OffsetRecord) -> None:
        key, value = record.key, record.value
        if value is not None:
            offset = CommittedOffset.from_value(value)
            self._make(key.group).offsets.put(key.topic, key.partition, offset)
        elif key.group in self.groups:
            self.groups[key.group].offsets.remove(key.topic, key.partition)

    def on_loaded(self, now: Moment) -> Effects:
        effects = Effects()
        for group_id in sorted(self.groups):
            group = self.groups[group_id]
            group.restore(now, effects)
            self._forget_if_vacant(now, group)
        self._schedule_retention(now)
        return effects

    def on_committed(self, now: Moment, write: Write) -> Effects:
        effects = Effects()
        context = write.context
        if isinstance(context, _Answer):
            effects.reply(context.handle, context.errors)
        elif isinstance(context, GroupAssignment | StaticRejoin):
            group = self.groups.get(context.group_id)
            if group is not None and isinstance(context, GroupAssignment):
                group.on_assignment_committed(now, context.generation, effects)
            elif group is not None and isinstance(context, StaticRejoin):
                requests.static_rejoin_committed(group, now, context, effects)
        self._forget_vacant_of(now, write)
        self._schedule_retention(now)
        return effects

    def _forget_vacant_of(self, now: Moment, write: Write) -> None:
        """Tombstones may have taken the last that is known of their groups."""
        for record in write.records:
            if record.value is None:
                found = read_record(record)
                group = self.groups.get(found.key.group) if found is not None else None
                if group is not None:
                    self._forget_if_vacant(now, group)

    def on_failed(self, now: Moment, write: Write, error: ErrorCode) -> Effects:
        effects = Effects()
        context = write.context
        if error in _TOO_LARGE:
            commits = isinstance(context, _Answer)
            error = (
                ErrorCode.INVALID_COMMIT_OFFSET_SIZE if commits else ErrorCode.UNKNOWN_SERVER_ERROR
            )
        if isinstance(context, _Answer):
            effects.reply(context.handle, tuple(e or error for e in context.errors))
        elif isinstance(context, GroupAssignment | StaticRejoin):
            group = self.groups.get(context.group_id)
            if group is not None and isinstance(context, GroupAssignment):
                group.on_assignment_failed(now, context.generation, error, effects)
            elif group is not None and isinstance(context, StaticRejoin):
                requests.static_rejoin_failed(group, now, context, error, effects)
        return effects

    def next_deadline(self) -> float | None:
        return self._timers.next_deadline()

    def on_time(self, now: Moment) -> Effects:
        effects = Effects()
        for kind, group_id, member_id in self._timers.due(now.seconds):
            if kind is TimerKind.RETENTION:
                self._expire_offsets(now, effects)
                self._schedule_retention(now)
                continue
            group = self.groups.get(group_id)
            if group is None:
                continue
            if kind is TimerKind.MEMBER:
                group.on_member_timer(now, member_id, effects)
            elif kind is TimerKind.JOIN:
                group.on_join_timer(now, effects)
            else:
                group.on_sync_timer(now, effects)
            self._forget_if_vacant(now, group)
        return effects

    def on_unload(self) -> Effects:
        effects = Effects()
        for group in self.groups.values():
            group.fail_waiting(effects, ErrorCode.NOT_COORDINATOR)
            self._counters.forgotten(group.state.value)
        self.groups = {}
        return effects

    # -- members

    def join(
        self, now: Moment, request: JoinGroupRequest, caller: Caller, handle: Handle
    ) -> Effects:
        """Answered by a JoinGroupResponse."""
        effects = Effects()
        timeout, options = request.session_timeout_ms, self.options
        group = self.groups.get(request.group_id)
        error = ErrorCode.NONE
        if not request.group_id or is_too_long(request.group_id):
            error = ErrorCode.INVALID_GROUP_ID
        elif any(map(is_too_long, requests.kept_texts(request))):
            error = ErrorCode.INVALID_REQUEST
        elif not options.session_timeout_min_ms <= timeout <= options.session_timeout_max_ms:
            error = ErrorCode.INVALID_SESSION_TIMEOUT
        elif group is None and request.member_id:
            error = ErrorCode.UNKNOWN_MEMBER_ID
        elif group is None and self._is_full:
            error = ErrorCode.GROUP_MAX_SIZE_REACHED
        if error:
            effects.reply(handle, join_refused(error, request.member_id, caller.version))
            return effects
        group = self._make(request.group_id)
        requests.join(group, now, request, caller, handle, effects)
        self._forget_if_vacant(now, group)
        return effects

    def sync(
        self, now: Moment, request: SyncGroupRequest, caller: Caller, handle: Handle
    ) -> Effects:
        """Answered by a SyncGroupResponse."""
        effects = Effects()
        group = self.groups.get(request.group_id)
        if group is None:
            error = ErrorCode.UNKNOWN_MEMBER_ID if request.group_id else ErrorCode.INVALID_GROUP_ID
            effects.reply(handle, SyncGroupResponse(error_code=error))
        else:
            requests.sync(group, now, request, caller, handle, effects)
        return effects

    def heartbeat(self, now: Moment, request: HeartbeatRequest, handle: Handle) -> Effects:
        """Answered by an ErrorCode."""
        effects = Effects()
        group = self.groups.get(request.group_id)
        if group is not None:
            error = requests.heartbeat(group, now, request)
        else:
            error = ErrorCode.UNKNOWN_MEMBER_ID if request.group_id else ErrorCode.INVALID_GROUP_ID
        effects.reply(handle, error)
        return effects

    def leave(
        self, now: Moment, group_id: str, leaving: list[MemberIdentity], handle: Handle
    ) -> Effects:
        """Answered by a list with an ErrorCode for each who leaves."""
        effects = Effects()
        group = self.groups.get(group_id)
        if group is None:
            effects.reply(handle, [ErrorCode.UNKNOWN_MEMBER_ID] * len(leaving))
            return effects
        effects.reply(handle, requests.leave(group, now, leaving, effects))
        self._forget_if_vacant(now, group)
        return effects

    # -- offsets

    def commit_offsets(
        self,
        now: Moment,
        request: OffsetCommitRequest,
        offsets: Sequence[OffsetToCommit],
        version: int,
        handle: Handle,
    ) -> Effects:
        """Answered by a tuple with an ErrorCode for each of ``offsets``."""
        effects = Effects()
        group = self.groups.get(request.group_id)
        if not request.group_id or is_too_long(request.group_id):
            error = ErrorCode.INVALID_GROUP_ID
        elif group is not None:
            error = requests.may_commit(group, now, request)
        elif request.generation_id_or_member_epoch >= 0:
            error = ErrorCode.GROUP_ID_NOT_FOUND if version >= 9 else ErrorCode.ILLEGAL_GENERATION
        elif self._is_full:
            error = ErrorCode.INVALID_COMMIT_OFFSET_SIZE
        else:
            error = ErrorCode.NONE
        if error:
            effects.reply(handle, (error,) * len(offsets))
            return effects
        limit = self.options.offset_metadata_max_bytes
        errors: list[ErrorCode] = []
        records: list[Record] = []
        for wanted in offsets:
            if len(wanted.value.metadata) > limit:
                errors.append(ErrorCode.OFFSET_METADATA_TOO_LARGE)
                continue
            errors.append(ErrorCode.NONE)
            records.append(
                offset_record(request.group_id, wanted.topic, wanted.partition, wanted.value)
            )
        if records:
            self._counters.offset_commits += len(records)
            effects.write(records, _Answer(handle, tuple(errors)))
        else:
            effects.reply(handle, tuple(errors))
        return effects

    def offset(self, group_id: str, topic: str, partition: int) -> CommittedOffset | None:
        group = self.groups.get(group_id)
        return None if group is None else group.offsets.get(topic, partition)

    def all_offsets(self, group_id: str) -> list[tuple[str, int, CommittedOffset]]:
        """By topic and partition."""
        group = self.groups.get(group_id)
        return [] if group is None else list(group.offsets)

    def delete_offsets(
        self, group_id: str, wanted: Sequence[tuple[str, int]], handle: Handle
    ) -> Effects:
        """Answered by a tuple with an ErrorCode for each, or by one ErrorCode for the group."""
        effects = Effects()
        group = self.groups.get(group_id)
        if group is None or group.state is State.DEAD:
            effects.reply(handle, ErrorCode.GROUP_ID_NOT_FOUND)
            return effects
        subscribed: set[str] = set()
        if group.state is not State.EMPTY:
            found = group.roster.subscription(group.protocol_name)
            if found is None:
                effects.reply(handle, ErrorCode.NON_EMPTY_GROUP)
                return effects
            subscribed = found
        busy = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
        errors = tuple(busy if topic in subscribed else ErrorCode.NONE for topic, _ in wanted)
        records = [
            offset_record(group_id, topic, partition, None)
            for topic, partition in wanted
            if topic not in subscribed and group.offsets.get(topic, partition) is not None
        ]
        if records:
            self._counters.offset_deletions += len(records)
            effects.write(records, _Answer(handle, errors))
        else:
            effects.reply(handle, errors)
        return effects

    # -- ends

    def delete_group(self, group_id: str, handle: Handle) -> Effects:
        """Answered by a tuple of one ErrorCode."""
        effects = Effects()
        group = self.groups.get(group_id)
        error = ErrorCode.NONE
        if not group_id:
            error = ErrorCode.INVALID_GROUP_ID
        elif group is None or group.state is State.DEAD:
            error = ErrorCode.GROUP_ID_NOT_FOUND
        elif group.state is not State.EMPTY:
            error = ErrorCode.NON_EMPTY_GROUP
        if error:
            effects.reply(handle, (error,))
            return effects
        assert group is not None
        records = [offset_record(group_id, topic, part, None) for topic, part, _ in group.offsets]
        self._counters.offset_deletions += len(records)
        records.append(group_record(group_id, None))
        while len(records) > MAX_TOMBSTONES:
            effects.write(records[:MAX_TOMBSTONES])
            del records[:MAX_TOMBSTONES]
        effects.write(records, _Answer(handle, (ErrorCode.NONE,)))
        return effects

    def forget_offsets(self, live: Callable[[str], UUID | None]) -> Effects:
        """Offsets in topics that are deleted go, also where a topic of that name was made anew.

        ``live``: the id of a topic by its name, None where there is no such topic.
        """
        records: list[Record] = []
        for group_id in sorted(self.groups):
            offsets = self.groups[group_id].offsets
            for topic in offsets.topics():
                topic_id = live(topic)
                records += [
                    offset_record(group_id, topic, partition, None)
                    for partition in offsets.partitions(topic)
                    if not _is_of(offsets.get(topic, partition), topic_id)
                ]
        self._counters.offset_deletions += len(records)
        effects = Effects()
        self._write_tombstones(records, effects)
        return effects

    def _write_tombstones(self, records: list[Record], effects: Effects) -> None:
        for at in range(0, len(records), MAX_TOMBSTONES):
            effects.write(records[at : at + MAX_TOMBSTONES])

    def _schedule_retention(self, now: Moment) -> None:
        """Only while there is something that may expire."""
        if self.groups and _RETENTION not in self._timers:
            interval = self.options.offsets_retention_check_interval
            self._timers.set(_RETENTION, now.seconds + interval)

    def _expire_offsets(self, now: Moment, effects: Effects) -> None:
        """Tombstones for offsets past their time, and for groups that have nothing left."""
        records: list[Record] = []
        for group_id in sorted(self.groups):
            group = self.groups[group_id]
            expired = self._expired(now, group)
            self._counters.expired_offsets += len(expired)
            records += [offset_record(group_id, topic, part, None) for topic, part in expired]
            if (
                group.state is State.EMPTY and not group.pending
                and len(expired) == len(group.offsets)
            ):  # fmt: skip
                records.append(group_record(group_id, None))
        self._write_tombstones(records, effects)

    def _expired(self, now: Moment, group: ClassicGroup) -> list[tuple[str, int]]:
        idle_since, subscribed = None, set()
        if group.state is State.EMPTY:
            idle_since = group.state_since_ms if group.protocol_type is not None else None
        else:
            found = group.roster.subscription(group.protocol_name)
            if group.state is not State.STABLE or found is None:
                return []  # its members' progress; what they subscribe to is not known now
            subscribed = found
        return group.offsets.expired(
            now.wall_ms, self.options.offsets_retention_ms,
            idle_since_ms=idle_since, subscribed=subscribed,
        )  # fmt: skip


def _is_of(offset: CommittedOffset | None, topic_id: UUID | None) -> bool:
    """Records of before Kafka 4.1 do not say which topic of that name they mean."""
    if offset is None or topic_id is None:
        return False
    return offset.topic_id == topic_id or not offset.topic_id.int
