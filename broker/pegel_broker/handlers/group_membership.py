"""JoinGroup, SyncGroup, Heartbeat, LeaveGroup: the classic protocol of consumer groups."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from pegel.protocol.messages.join_group import JoinGroupRequest
from pegel.protocol.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
    MemberResponse,
)
from pegel.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse
from pegel.protocol.schema import Message
from pegel_broker.coordinator.effects import Effects, Moment
from pegel_broker.group.member import Caller
from pegel_broker.group.shard import GroupShard
from pegel_broker.group.states import join_refused
from pegel_broker.handlers.context import Answer, Broker, Request
from pegel_broker.handlers.registry import handles

T = TypeVar("T")
Operation = Callable[[GroupShard, Moment, "asyncio.Future[Any]"], Effects]


def ask_group(
    broker: Broker, group_id: str, operation: Operation
) -> ErrorCode | asyncio.Future[Any]:
    """Run ``operation`` where the group is coordinated; an error where that is not here.

    ``operation(shard, now, handle)``: the future is answered through the handle.
    """
    coordinators = broker.coordinators
    handle: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    error = coordinators.groups.call(
        coordinators.group_partition(group_id), lambda shard, now: operation(shard, now, handle)
    )
    return error or handle


def then(handle: asyncio.Future[T], answer: Callable[[T], Message]) -> Answer:
    """The message that ``answer`` makes of the handle's result, now or when it is there."""
    if handle.done():
        return answer(handle.result())
    return _later(handle, answer)


async def _later(handle: Awaitable[T], answer: Callable[[T], Message]) -> Message:
    return answer(await handle)


def caller_of(request: Request) -> Caller:
    host = request.peer.rpartition(":")[0]
    return Caller(request.client_id or "", f"/{host}", request.version)


@handles(ApiKey.JOIN_GROUP)
def join_group(request: Request) -> Answer:
    message = request.message
    assert isinstance(message, JoinGroupRequest)
    caller = caller_of(request)
    found = ask_group(
        request.broker, message.group_id, lambda s, now, h: s.join(now, message, caller, h)
    )
    if isinstance(found, ErrorCode):
        return join_refused(found, message.member_id, request.version)
    return found


@handles(ApiKey.SYNC_GROUP)
def sync_group(request: Request) -> Answer:
    message = request.message
    assert isinstance(message, SyncGroupRequest)
    caller = caller_of(request)
    found = ask_group(
        request.broker, message.group_id, lambda s, now, h: s.sync(now, message, caller, h)
    )
    return SyncGroupResponse(error_code=found) if isinstance(found, ErrorCode) else found


@handles(ApiKey.HEARTBEAT)
def heartbeat(request: Request) -> Answer:
    message = request.message
    assert isinstance(message, HeartbeatRequest)
    found = ask_group(
        request.broker, message.group_id, lambda s, now, h: s.heartbeat(now, message, h)
    )
    error = found if isinstance(found, ErrorCode) else found.result()
    return HeartbeatResponse(error_code=error)


@handles(ApiKey.LEAVE_GROUP)
def leave_group(request: Request) -> Answer:
    """Before version 3 one member leaves, and its error is that of the response."""
    message = request.message
    assert isinstance(message, LeaveGroupRequest)
    leaving = message.members
    if request.version < 3:
        leaving = [MemberIdentity(member_id=message.member_id)]
    group_id = message.group_id
    found = ask_group(
        request.broker, group_id, lambda s, now, h: s.leave(now, group_id, leaving, h)
    )
    if isinstance(found, ErrorCode):
        return LeaveGroupResponse(error_code=found)
    errors: list[ErrorCode] = found.result()
    if request.version < 3:
        return LeaveGroupResponse(error_code=errors[0])
    return LeaveGroupResponse(
        members=[
            MemberResponse(
                member_id=identity.member_id,
                group_instance_id=identity.group_instance_id,
                error_code=error,
            )
            for identity, error in zip(leaving, errors, strict=True)
        ]
    )
