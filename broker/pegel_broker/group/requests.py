"""What members ask of a group: join, sync, heartbeat, leave, and whether they may commit.

Each function decides one request against a ``ClassicGroup``. Answers go into ``effects``; where a
request has to wait, its handle is kept with the member.
"""

from __future__ import annotations

import uuid
from random import Random

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.heartbeat import HeartbeatRequest
from pegel.protocol.messages.join_group import JoinGroupRequest
from pegel.protocol.messages.leave_group import MemberIdentity
from pegel.protocol.messages.offset_commit import OffsetCommitRequest
from pegel.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from pegel_broker.coordinator.effects import Effects, Handle, Moment
from pegel_broker.group.classic import ClassicGroup
from pegel_broker.group.member import Caller, Member, Waiting
from pegel_broker.group.options import MAX_GROUP_METADATA_BYTES, MAX_MEMBER_METADATA_BYTES
from pegel_broker.group.records import group_record
from pegel_broker.group.states import State, StaticRejoin, join_refused

# From these versions of JoinGroup on a client knows of them.
KNOWS_MEMBER_ID_REQUIRED = 4
KNOWS_SKIP_ASSIGNMENT = 9

# Of the client's name, so that the id is a string that a record can hold, whatever its bytes.
_PREFIX_MAX = 255


def kept_texts(request: JoinGroupRequest) -> list[str]:
    """What of a request is kept in the group's record."""
    names = [p.name for p in request.protocols]
    return [request.protocol_type, request.member_id, request.group_instance_id or "", *names]


def new_member_id(random: Random, prefix: str) -> str:
    return f"{prefix[:_PREFIX_MAX]}-{uuid.UUID(int=random.getrandbits(128), version=4)}"


# -- JoinGroup


def join(
    group: ClassicGroup,
    now: Moment,
    request: JoinGroupRequest,
    caller: Caller,
    handle: Handle,
    effects: Effects,
) -> None:
    """JoinGroup; the answer may have to wait for the others."""
    error = _check_join(group, request)
    if error:
        if error is ErrorCode.GROUP_MAX_SIZE_REACHED and request.member_id in group.members:
            group.remove(group.members[request.member_id], effects, error)
            group.after_removal(now, effects)
        member_id = "" if error is ErrorCode.GROUP_MAX_SIZE_REACHED else request.member_id
        effects.reply(handle, join_refused(error, member_id, caller.version))
        return
    waiting = Waiting(handle, caller.version)
    if request.member_id:
        _join_known(group, now, request, caller, waiting, effects)
    elif request.group_instance_id is not None:
        _join_static(group, now, request, caller, waiting, effects)
    elif caller.version >= KNOWS_MEMBER_ID_REQUIRED:
        # The client may lose the answer: it must not leave members behind that nobody is.
        member_id = new_member_id(group.random, caller.client_id)
        group.pending[member_id] = None
        deadline = now.seconds + request.session_timeout_ms / 1000
        group.timers.set(group.member_key(member_id), deadline)
        refused = join_refused(ErrorCode.MEMBER_ID_REQUIRED, member_id, caller.version)
        effects.reply(handle, refused)
    else:
        _add(group, now, request, caller, new_member_id(group.random, caller.client_id), waiting)
        group.rebalance_or_complete(now, effects)


def _check_join(group: ClassicGroup, request: JoinGroupRequest) -> ErrorCode:
    if group.state is State.DEAD:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    if not _has_room(group, request):
        return ErrorCode.GROUP_MAX_SIZE_REACHED
    names = [protocol.name for protocol in request.protocols]
    if not group.roster.supports(request.protocol_type, names):
        return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    return ErrorCode.NONE


def _has_room(group: ClassicGroup, request: JoinGroupRequest) -> bool:
    limit = group.options.max_size
    size = sum(len(protocol.metadata) for protocol in request.protocols)
    known = group.members.get(request.member_id)
    others = group.roster.metadata_bytes - (known.size if known is not None else 0)
    if size > MAX_MEMBER_METADATA_BYTES or others + size > MAX_GROUP_METADATA_BYTES:
        return False
    if group.state is State.PREPARING_REBALANCE:
        # A group that is over its size (it may have been lowered) takes those that come first.
        return (known is not None and known.joining is not None) or group.joined < limit
    if group.state is State.EMPTY:
        return request.member_id in group.pending or len(group.pending) < limit
    if known is not None:
        return True
    if request.group_instance_id in group.roster.static_ids:
        return True
    if request.member_id in group.pending:
        return len(group.members) < limit
    return len(group.members) < limit and len(group.pending) < limit


def _member(request: JoinGroupRequest, caller: Caller, member_id: str) -> Member:
    rebalance_timeout = request.rebalance_timeout_ms
    return Member(
        member_id,
        request.group_instance_id,
        caller.client_id,
        caller.host,
        request.session_timeout_ms,
        rebalance_timeout if rebalance_timeout >= 0 else request.session_timeout_ms,
        _protocols(request),
    )


def _protocols(request: JoinGroupRequest) -> tuple[tuple[str, bytes], ...]:
    """Each name once: a member has one vote for a protocol."""
    by_name: dict[str, bytes] = {}
    for protocol in request.protocols:
        by_name.setdefault(protocol.name, bytes(protocol.metadata))
    return tuple(by_name.items())


def _add(
    group: ClassicGroup,
    now: Moment,
    request: JoinGroupRequest,
    caller: Caller,
    member_id: str,
    waiting: Waiting,
) -> None:
    member = _member(request, caller, member_id)
    member.joining = waiting
    group.add(now, member, request.protocol_type)


def _join_known(
    group: ClassicGroup,
    now: Moment,
    request: JoinGroupRequest,
    caller: Caller,
    waiting: Waiting,
    effects: Effects,
) -> None:
    member_id = request.member_id
    if member_id in group.pending:
        _add(group, now, request, caller, member_id, waiting)
        group.rebalance_or_complete(now, effects)
        return
    error = group.roster.check(member_id, request.group_instance_id)
    if error or group.state is State.EMPTY:
        error = error or ErrorCode.UNKNOWN_MEMBER_ID
        effects.reply(waiting.handle, join_refused(error, member_id, waiting.version))
        return
    member = group.members[member_id]
    protocols = _protocols(request)
    same = member.protocols == protocols
    # A leader that joins again wants a rebalance: what it watches over has changed.
    lost_answer = group.state is State.COMPLETING_REBALANCE and same
    up_to_date = group.state is State.STABLE and same and member_id != group.leader_id
    if lost_answer or up_to_date:
        group.keep_alive(now, member)
        effects.reply(waiting.handle, group.join_response(member))
        return
    _update(group, member, request)
    group.wait_join(now, member, waiting, effects)
    group.rebalance_or_complete(now, effects)


def _update(group: ClassicGroup, member: Member, request: JoinGroupRequest) -> None:
    fresh = _protocols(request)
    if member.protocols != fresh:
        group.roster.update(member, fresh)
    member.session_timeout_ms = request.session_timeout_ms
    if request.rebalance_timeout_ms >= 0:
        member.rebalance_timeout_ms = request.rebalance_timeout_ms


# -- static members (KIP-345)


def _join_static(
    group: ClassicGroup,
    now: Moment,
    request: JoinGroupRequest,
    caller: Caller,
    waiting: Waiting,
    effects: Effects,
) -> None:
    """A static member without a member id: new, or a process that was started again."""
    instance_id = request.group_instance_id
    assert instance_id is not None
    member_id = new_member_id(group.random, instance_id)
    old_id = group.roster.static_ids.get(instance_id)
    if old_id is None:
        _add(group, now, request, caller, member_id, waiting)
        group.rebalance_or_complete(now, effects)
        return
    old_leader = group.leader_id
    member = group.members[old_id]
    group.replace(member, member_id, effects)
    member.client_id, member.client_host = caller.client_id, caller.host
    _update(group, member, request)
    if group.state is State.STABLE and group.roster.select_protocol() == group.protocol_name:
        _rejoin_without_rebalance(group, now, member, old_leader, waiting, effects)
        return
    group.wait_join(now, member, waiting, effects)
    group.rebalance_or_complete(now, effects)


def _rejoin_without_rebalance(
    group: ClassicGroup,
    now: Moment,
    member: Member,
    old_leader: str | None,
    waiting: Waiting,
    effects: Effects,
) -> None:
    """Its assignment stays; the new id is answered for once it is on record.

    A leader that knows ``skip_assignment`` goes on watching over the group (KIP-814). An older one
    is told that the former id leads, so that it does not assign: nobody would take its assignment.
    """
    knows = waiting.version >= KNOWS_SKIP_ASSIGNMENT
    group.wait_join(now, member, waiting, effects)
    shares = {m.member_id: m.assignment for m in group.members.values()}
    context = StaticRejoin(
        group.group_id,
        group.generation,
        member.member_id,
        group.leader_id if knows else old_leader,
    )
    effects.write([group_record(group.group_id, group.record(shares))], context)


def static_rejoin_committed(
    group: ClassicGroup, now: Moment, context: StaticRejoin, effects: Effects
) -> None:
    """Answer, unless it was replaced meanwhile or a rebalance has begun that will answer."""
    member = group.members.get(context.member_id)
    if member is None or member.joining is None or group.state is not State.STABLE:
        return
    leads = context.leader_told == member.member_id
    response = group.join_response(member)
    response.leader = context.leader_told or ""
    response.members = group.members_for_leader() if leads else []
    response.skip_assignment = leads
    group.answer_join_with(member, effects, response)
    group.keep_alive(now, member)


def static_rejoin_failed(
    group: ClassicGroup, now: Moment, context: StaticRejoin, error: ErrorCode, effects: Effects
) -> None:
    """The record does not say who the member is now: a rebalance will write one that does."""
    member = group.members.get(context.member_id)
    if member is None or member.joining is None or group.state is not State.STABLE:
        return
    group.answer_join(member, effects, error)
    group.keep_alive(now, member)
    group.prepare_rebalance(now, effects)


# -- SyncGroup


def sync(
    group: ClassicGroup,
    now: Moment,
    request: SyncGroupRequest,
    caller: Caller,
    handle: Handle,
    effects: Effects,
) -> None:
    """SyncGroup; the answer waits for the leader's assignment to be committed."""
    error = _check_sync(group, request)
    if error:
        effects.reply(handle, SyncGroupResponse(error_code=error))
        return
    member = group.members[request.member_id]
    group.synced(member)
    if group.state is State.STABLE:
        group.keep_alive(now, member)
        effects.reply(handle, group.sync_response(member, ErrorCode.NONE))
        return
    group.answer_sync(member, effects, ErrorCode.REBALANCE_IN_PROGRESS)
    member.syncing = Waiting(handle, caller.version)
    group.keep_alive(now, member)
    if member.member_id == group.leader_id:
        group.assign(effects, {a.member_id: bytes(a.assignment) for a in request.assignments})


def _check_sync(group: ClassicGroup, request: SyncGroupRequest) -> ErrorCode:
    if group.state is State.DEAD:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    error = group.roster.check(request.member_id, request.group_instance_id)
    if error:
        return error
    if request.generation_id != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    for given, held in (
        (request.protocol_type, group.protocol_type),
        (request.protocol_name, group.protocol_name),
    ):
        if given is not None and held is not None and given != held:
            return ErrorCode.INCONSISTENT_GROUP_PROTOCOL
    if group.state is State.EMPTY:
        return ErrorCode.UNKNOWN_MEMBER_ID
    if group.state is State.PREPARING_REBALANCE:
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


# -- Heartbeat, LeaveGroup, OffsetCommit


def heartbeat(group: ClassicGroup, now: Moment, request: HeartbeatRequest) -> ErrorCode:
    if group.state is State.DEAD:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    error = group.roster.check(request.member_id, request.group_instance_id)
    if error:
        return error
    if request.generation_id != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    if group.state is State.EMPTY:
        return ErrorCode.UNKNOWN_MEMBER_ID
    group.keep_alive(now, group.members[request.member_id])
    if group.state is State.PREPARING_REBALANCE:
        return ErrorCode.REBALANCE_IN_PROGRESS
    return ErrorCode.NONE


def leave(
    group: ClassicGroup, now: Moment, leaving: list[MemberIdentity], effects: Effects
) -> list[ErrorCode]:
    """One result for each who leaves; by member id, or by instance id alone (an admin's way)."""
    before = len(group.members)
    errors = [_leave_one(group, now, identity, effects) for identity in leaving]
    if len(group.members) < before:
        group.after_removal(now, effects)
    return errors


def _leave_one(
    group: ClassicGroup, now: Moment, identity: MemberIdentity, effects: Effects
) -> ErrorCode:
    member_id = identity.member_id
    if member_id in group.pending and identity.group_instance_id is None:
        group.forget_pending(now, member_id, effects)
        return ErrorCode.NONE
    if identity.group_instance_id is not None and not member_id:
        member_id = group.roster.static_ids.get(identity.group_instance_id, "")
    error = group.roster.check(member_id, identity.group_instance_id)
    if not error:
        group.remove(group.members[member_id], effects, ErrorCode.UNKNOWN_MEMBER_ID)
    return error


def may_commit(group: ClassicGroup, now: Moment, request: OffsetCommitRequest) -> ErrorCode:
    """Whether offsets may be committed by this request; a member that may has been heard of."""
    generation, member_id = request.generation_id_or_member_epoch, request.member_id
    if group.state is State.DEAD:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    if generation < 0 and group.state is State.EMPTY:
        return ErrorCode.NONE  # a simple commit: nobody is there whose progress it could undo
    if generation < 0 and not member_id and request.group_instance_id is None:
        return ErrorCode.UNKNOWN_MEMBER_ID
    error = group.roster.check(member_id, request.group_instance_id)
    if error:
        return error
    if generation != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    if group.state is State.COMPLETING_REBALANCE:
        return ErrorCode.REBALANCE_IN_PROGRESS
    group.keep_alive(now, group.members[member_id])
    return ErrorCode.NONE
