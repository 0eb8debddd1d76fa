"""A group coordinator for ``fake_broker``: the classic protocol, as far as tests go."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages import (
    delete_groups,
    describe_groups,
    find_coordinator,
    heartbeat,
    list_groups,
    offset_commit,
    offset_fetch,
)
from pegel.protocol.messages import join_group as join
from pegel.protocol.messages import leave_group as leave
from pegel.protocol.messages import sync_group as sync
from pegel.protocol.schema import Message
from pegel.types import TopicPartition

if TYPE_CHECKING:
    from tests.support.fake_broker import FakeCluster

_JOIN_WINDOW = 0.02


@dataclass
class FakeMember:
    member_id: str
    instance_id: str | None
    protocols: dict[str, bytes] = field(default_factory=dict)
    joining: asyncio.Future[Message] | None = None
    syncing: asyncio.Future[Message] | None = None
    assignment: bytes = b""


@dataclass
class FakeGroup:
    """``rebalance_timeout``: seconds after which who has not joined again is dropped."""

    name: str
    generation: int = 0
    state: str = "Empty"
    leader: str = ""
    protocol: str = ""
    rebalance_timeout: float = 5.0
    members: dict[str, FakeMember] = field(default_factory=dict)
    promised: set[str] = field(default_factory=set)
    offsets: dict[TopicPartition, tuple[int, int, str]] = field(default_factory=dict)
    timer: asyncio.TimerHandle | None = None
    deadline: asyncio.TimerHandle | None = None

    def begin_rebalance(self) -> None:
        if self.state == "PreparingRebalance":
            return
        for member in self.members.values():
            _resolve(member.syncing, sync.SyncGroupResponse(
                error_code=ErrorCode.REBALANCE_IN_PROGRESS))  # fmt: skip
        self.state = "PreparingRebalance"
        loop = asyncio.get_running_loop()
        self.deadline = loop.call_later(self.rebalance_timeout, self._drop_absent)

    def _drop_absent(self) -> None:
        for member_id in [m for m, f in self.members.items() if f.joining is None]:
            del self.members[member_id]
        self.complete_if_all_joined()

    def expel(self, member_id: str) -> None:
        """As if its session had run out."""
        del self.members[member_id]
        self.begin_rebalance()
        self.complete_if_all_joined()

    def complete_if_all_joined(self) -> None:
        if self.state != "PreparingRebalance" or any(
            m.joining is None for m in self.members.values()
        ):
            return
        if self.timer is not None:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(_JOIN_WINDOW, self._complete)

    def _complete(self) -> None:
        if any(m.joining is None for m in self.members.values()):
            return
        if self.deadline is not None:
            self.deadline.cancel()
        if not self.members:
            self.state = "Empty"
            return
        self.generation += 1
        self.state = "CompletingRebalance"
        self.leader = self.leader if self.leader in self.members else next(iter(self.members))
        names = [set(m.protocols) for m in self.members.values()]
        self.protocol = sorted(set.intersection(*names))[0]
        for member in self.members.values():
            leads = member.member_id == self.leader
            _resolve(member.joining, join.JoinGroupResponse(
                generation_id=self.generation, protocol_type="consumer",
                protocol_name=self.protocol, leader=self.leader, member_id=member.member_id,
                members=[
                    join.JoinGroupResponseMember(
                        member_id=m.member_id, group_instance_id=m.instance_id,
                        metadata=m.protocols[self.protocol],
                    ) for m in self.members.values()
                ] if leads else [],
            ))  # fmt: skip
            member.joining = None

    def stop(self) -> None:
        for handle in (self.timer, self.deadline):
            if handle is not None:
                handle.cancel()


Answer = Message | asyncio.Future[Message]


def _resolve(future: asyncio.Future[Message] | None, message: Message) -> None:
    if future is not None and not future.done():
        future.set_result(message)


def on_find_coordinator(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, find_coordinator.FindCoordinatorRequest)
    broker = cluster.brokers[cluster.coordinator_id]
    code = error or (0 if broker.alive else ErrorCode.COORDINATOR_NOT_AVAILABLE)
    return find_coordinator.FindCoordinatorResponse(
        coordinators=[
            find_coordinator.Coordinator(
                key=key, node_id=broker.node_id, host="127.0.0.1", port=broker.port,
                error_code=code, error_message=None,
            ) for key in message.coordinator_keys
        ],
        node_id=broker.node_id, host="127.0.0.1", port=broker.port, error_code=code,
        error_message=None,
    )  # fmt: skip


def on_join_group(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Answer:
    assert isinstance(message, join.JoinGroupRequest)
    code = error or _wrong_node(cluster, node_id)
    if code:
        return join.JoinGroupResponse(error_code=code)
    group = cluster.group(message.group_id)
    member_id, instance = message.member_id, message.group_instance_id
    if not member_id:
        cluster.next_member += 1
        member_id = f"member-{cluster.next_member:03}"
        if instance is None:
            group.promised.add(member_id)
            return join.JoinGroupResponse(
                error_code=ErrorCode.MEMBER_ID_REQUIRED, member_id=member_id
            )
        for old in [m for m in group.members.values() if m.instance_id == instance]:
            del group.members[old.member_id]
        group.promised.add(member_id)
    member = group.members.get(member_id)
    if member is None:
        if member_id not in group.promised:
            return join.JoinGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID)
        group.promised.discard(member_id)
        member = group.members[member_id] = FakeMember(member_id, instance)
    member.protocols = {p.name: bytes(p.metadata) for p in message.protocols}
    member.joining = asyncio.get_running_loop().create_future()
    group.begin_rebalance()
    group.complete_if_all_joined()
    return member.joining


def on_sync_group(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Answer:
    assert isinstance(message, sync.SyncGroupRequest)
    group = cluster.group(message.group_id)
    code = error or _check(cluster, node_id, group, message.member_id, message.generation_id,
                           message.group_instance_id)  # fmt: skip
    if code:
        return sync.SyncGroupResponse(error_code=code)
    member = group.members[message.member_id]
    if message.member_id == group.leader and group.state == "CompletingRebalance":
        for share in message.assignments:
            group.members[share.member_id].assignment = bytes(share.assignment)
        group.state = "Stable"
        for other in group.members.values():
            _resolve(other.syncing, sync.SyncGroupResponse(assignment=other.assignment))
            other.syncing = None
    if group.state == "Stable":
        return sync.SyncGroupResponse(assignment=member.assignment)
    member.syncing = asyncio.get_running_loop().create_future()
    return member.syncing


def _wrong_node(cluster: FakeCluster, node_id: int) -> int:
    return 0 if node_id == cluster.coordinator_id else ErrorCode.NOT_COORDINATOR


def _check(
    cluster: FakeCluster, node_id: int, group: FakeGroup, member_id: str, generation: int,
    instance_id: str | None,
) -> int:  # fmt: skip
    if _wrong_node(cluster, node_id):
        return ErrorCode.NOT_COORDINATOR
    if member_id not in group.members:
        if instance_id is not None and any(
            m.instance_id == instance_id for m in group.members.values()
        ):
            return ErrorCode.FENCED_INSTANCE_ID
        return ErrorCode.UNKNOWN_MEMBER_ID
    if generation != group.generation:
        return ErrorCode.ILLEGAL_GENERATION
    return 0


def on_heartbeat(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, heartbeat.HeartbeatRequest)
    group = cluster.group(message.group_id)
    code = error or _check(cluster, node_id, group, message.member_id, message.generation_id,
                           message.group_instance_id)  # fmt: skip
    if not code and group.state == "PreparingRebalance":
        code = ErrorCode.REBALANCE_IN_PROGRESS
    return heartbeat.HeartbeatResponse(error_code=code)


def on_leave_group(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, leave.LeaveGroupRequest)
    group = cluster.group(message.group_id)
    for member in message.members or [leave.MemberIdentity(member_id=message.member_id)]:
        if not error and member.member_id in group.members:
            group.expel(member.member_id)
    return leave.LeaveGroupResponse(error_code=error or _wrong_node(cluster, node_id))


def on_offset_commit(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, offset_commit.OffsetCommitRequest)
    group = cluster.group(message.group_id)
    if error or message.generation_id_or_member_epoch < 0:
        code = error or _wrong_node(cluster, node_id)
        if not code and group.members:
            code = ErrorCode.UNKNOWN_MEMBER_ID
    else:
        code = _check(cluster, node_id, group, message.member_id,
                      message.generation_id_or_member_epoch,
                      message.group_instance_id)  # fmt: skip
    response = offset_commit.OffsetCommitResponse()
    for topic in message.topics:
        out = offset_commit.OffsetCommitResponseTopic(name=topic.name)
        for p in topic.partitions:
            if not code:
                group.offsets[TopicPartition(topic.name, p.partition_index)] = (
                    p.committed_offset, p.committed_leader_epoch, p.committed_metadata or "",
                )  # fmt: skip
            out.partitions.append(
                offset_commit.OffsetCommitResponsePartition(
                    partition_index=p.partition_index, error_code=code
                )
            )
        response.topics.append(out)
    return response


def on_offset_fetch(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, offset_fetch.OffsetFetchRequest)
    code = error or _wrong_node(cluster, node_id)
    groups: list[offset_fetch.OffsetFetchResponseGroup] = []
    for wanted in message.groups:
        known = cluster.group(wanted.group_id).offsets
        asked = (
            sorted(known)
            if wanted.topics is None
            else [TopicPartition(t.name, p) for t in wanted.topics for p in t.partition_indexes]
        )
        topics: dict[str, offset_fetch.OffsetFetchResponseTopics] = {}
        for tp in () if code else asked:
            offset, epoch, text = known.get(tp, (-1, -1, ""))
            topic = topics.setdefault(
                tp.topic, offset_fetch.OffsetFetchResponseTopics(name=tp.topic)
            )
            topic.partitions.append(
                offset_fetch.OffsetFetchResponsePartitions(
                    partition_index=tp.partition, committed_offset=offset,
                    committed_leader_epoch=epoch, metadata=text,
                )
            )  # fmt: skip
        groups.append(
            offset_fetch.OffsetFetchResponseGroup(
                group_id=wanted.group_id, topics=list(topics.values()), error_code=code
            )
        )
    return offset_fetch.OffsetFetchResponse(groups=groups)


def on_list_groups(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    mine = node_id == cluster.coordinator_id
    groups = [
        list_groups.ListedGroup(
            group_id=g.name, protocol_type="consumer", group_state=g.state, group_type="classic"
        )
        for g in (cluster.groups.values() if mine else ())
    ]
    return list_groups.ListGroupsResponse(error_code=error, groups=groups)


def on_describe_groups(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, describe_groups.DescribeGroupsRequest)
    groups: list[describe_groups.DescribedGroup] = []
    for name in message.groups:
        group = cluster.groups.get(name)
        if group is None:
            groups.append(describe_groups.DescribedGroup(group_id=name, group_state="Dead"))
            continue
        groups.append(
            describe_groups.DescribedGroup(
                error_code=error or _wrong_node(cluster, node_id), group_id=name,
                group_state=group.state, protocol_type="consumer", protocol_data=group.protocol,
                members=[
                    describe_groups.DescribedGroupMember(
                        member_id=m.member_id, group_instance_id=m.instance_id,
                        client_id="pegel", client_host="/127.0.0.1",
                        member_assignment=m.assignment,
                    ) for m in group.members.values()
                ],
            )
        )  # fmt: skip
    return describe_groups.DescribeGroupsResponse(groups=groups)


def on_delete_groups(
    cluster: FakeCluster, node_id: int, message: Message, version: int, error: int = 0
) -> Message:
    assert isinstance(message, delete_groups.DeleteGroupsRequest)
    results: list[delete_groups.DeletableGroupResult] = []
    for name in message.groups_names:
        group = cluster.groups.get(name)
        code = error or _wrong_node(cluster, node_id)
        if not code and group is None:
            code = ErrorCode.GROUP_ID_NOT_FOUND
        elif not code and group is not None and group.members:
            code = ErrorCode.NON_EMPTY_GROUP
        elif not code:
            del cluster.groups[name]
        results.append(delete_groups.DeletableGroupResult(group_id=name, error_code=code))
    return delete_groups.DeleteGroupsResponse(results=results)
