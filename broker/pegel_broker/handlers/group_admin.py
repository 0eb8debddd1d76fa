"""ListGroups, DescribeGroups, DeleteGroups: what people and their tools ask about groups."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pegel.protocol.api_keys import ApiKey
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)
from pegel.protocol.messages.describe_groups import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from pegel.protocol.messages.list_groups import ListedGroup, ListGroupsRequest, ListGroupsResponse
from pegel_broker.group.classic import ClassicGroup
from pegel_broker.group.states import State
from pegel_broker.handlers.context import Broker, Request
from pegel_broker.handlers.group_membership import ask_group
from pegel_broker.handlers.registry import handles
from pegel_broker.handlers.values import ALL_GROUP_OPERATIONS, OPERATIONS_NOT_ASKED

CLASSIC = "classic"


@handles(ApiKey.LIST_GROUPS)
def list_groups(request: Request) -> ListGroupsResponse:
    """The groups that this broker coordinates. Filters are exact, in any case of letters.

    While a partition is being loaded the list would miss groups: COORDINATOR_LOAD_IN_PROGRESS.
    """
    message, coordinators = request.message, request.broker.coordinators
    assert isinstance(message, ListGroupsRequest)
    states = {state.lower() for state in message.states_filter}
    types = {kind.lower() for kind in message.types_filter}
    error = ErrorCode.NONE
    groups: list[ListedGroup] = []
    for partition in coordinators.groups.partitions():
        problem = coordinators.groups.check(partition)
        if problem:
            if problem is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS:
                error = problem
            continue
        groups += [
            _listed(group)
            for group in coordinators.groups.machine(partition).groups.values()
            if (not states or group.state.value.lower() in states)
            and (not types or CLASSIC in types)
        ]
    return ListGroupsResponse(error_code=error, groups=sorted(groups, key=lambda g: g.group_id))


def _listed(group: ClassicGroup) -> ListedGroup:
    return ListedGroup(
        group_id=group.group_id,
        protocol_type=group.protocol_type or "",
        group_state=group.state.value,
        group_type=CLASSIC,
    )


@handles(ApiKey.DESCRIBE_GROUPS)
def describe_groups(request: Request) -> DescribeGroupsResponse:
    """A group that is not there is described as dead."""
    message, broker = request.message, request.broker
    assert isinstance(message, DescribeGroupsRequest)
    operations = OPERATIONS_NOT_ASKED
    if message.include_authorized_operations:
        operations = ALL_GROUP_OPERATIONS
    return DescribeGroupsResponse(
        groups=[_describe(broker, group, operations) for group in dict.fromkeys(message.groups)]
    )


def _describe(broker: Broker, group_id: str, operations: int) -> DescribedGroup:
    coordinators = broker.coordinators
    partition = coordinators.group_partition(group_id)
    error = coordinators.groups.check(partition)
    group = None if error else coordinators.groups.machine(partition).groups.get(group_id)
    if group is None:
        return DescribedGroup(
            error_code=error,
            group_id=group_id,
            group_state="" if error else State.DEAD.value,
            authorized_operations=OPERATIONS_NOT_ASKED if error else operations,
        )
    stable = group.state is State.STABLE
    return DescribedGroup(
        group_id=group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type or "",
        protocol_data=(group.protocol_name or "") if stable else "",
        members=[
            DescribedGroupMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                member_metadata=member.metadata(group.protocol_name) if stable else b"",
                member_assignment=member.assignment if stable else b"",
            )
            for member in group.members.values()
        ],
        authorized_operations=operations,
    )


@handles(ApiKey.DELETE_GROUPS)
async def delete_groups(request: Request) -> DeleteGroupsResponse:
    """Each group by itself: what cannot be deleted keeps none of the others."""
    message, broker = request.message, request.broker
    assert isinstance(message, DeleteGroupsRequest)
    found = [
        ask_group(broker, group_id, lambda s, now, h, g=group_id: s.delete_group(g, h))  # type: ignore[misc]
        for group_id in message.groups_names
    ]
    results = []
    for group_id, handle in zip(message.groups_names, found, strict=True):
        errors: Sequence[ErrorCode] = (
            await handle if isinstance(handle, asyncio.Future) else (handle,)
        )
        results.append(DeletableGroupResult(group_id=group_id, error_code=errors[0]))
    return DeleteGroupsResponse(results=results)
