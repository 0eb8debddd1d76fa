"""Consumer groups on the wire: what each version carries, and what tools ask."""

from __future__ import annotations

import asyncio

import pytest

from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.create_topics import (
    CreatableTopic,
    CreateTopicsRequest,
    CreateTopicsResponse,
)
from pegel.protocol.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from pegel.protocol.messages.delete_topics import (
    DeleteTopicsRequest,
    DeleteTopicsResponse,
    DeleteTopicState,
)
from pegel.protocol.messages.describe_groups import (
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from pegel.protocol.messages.find_coordinator import (
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)
from pegel.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from pegel.protocol.messages.join_group import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
    JoinGroupResponse,
)
from pegel.protocol.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
)
from pegel.protocol.messages.list_groups import ListGroupsRequest, ListGroupsResponse
from pegel.protocol.messages.metadata import (
    MetadataRequest,
    MetadataRequestTopic,
    MetadataResponse,
)
from pegel.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from pegel.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)
from pegel.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from pegel.protocol.messages.sync_group import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
    SyncGroupResponse,
)
from tests.broker.group.harness import subscription
from tests.support.node import NodeUnderTest, RawClient, produce, records
from tests.support.node import run as run_node

SETTINGS = {"group.initial.rebalance.delay.ms": 0, "offsets.topic.num.partitions": 3}


def run(main, **settings: object) -> None:  # type: ignore[no-untyped-def]
    """With a topic ``t`` of two partitions and a coordinator that is found."""

    async def body(node: NodeUnderTest) -> None:
        await node.create("t", partitions=2)
        client = await node.connect()
        await find(client, "g")
        await main(node, client)

    merged = {**SETTINGS, **{k.replace("_", "."): v for k, v in settings.items()}}
    run_node(body, **merged)


async def find(client: RawClient, *groups: str) -> FindCoordinatorResponse:
    request = FindCoordinatorRequest(key_type=0, coordinator_keys=list(groups))
    return await client.ask(request, 5, FindCoordinatorResponse)


async def join(
    client: RawClient, group: str = "g", member_id: str = "", *, version: int = 9
) -> JoinGroupResponse:
    request = JoinGroupRequest(
        group_id=group, session_timeout_ms=10_000, rebalance_timeout_ms=10_000,
        member_id=member_id, protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol(name="range", metadata=subscription("t"))],
    )  # fmt: skip
    response = await client.ask(request, version, JoinGroupResponse)
    if response.error_code == ErrorCode.MEMBER_ID_REQUIRED:
        return await join(client, group, response.member_id, version=version)
    return response


async def sync(
    client: RawClient, joined: JoinGroupResponse, group: str = "g", *, version: int = 5
) -> SyncGroupResponse:
    request = SyncGroupRequest(
        group_id=group, generation_id=joined.generation_id, member_id=joined.member_id,
        assignments=[SyncGroupRequestAssignment(member_id=joined.member_id, assignment=b"all")],
    )  # fmt: skip
    return await client.ask(request, version, SyncGroupResponse)


async def commit(
    client: RawClient,
    offset: int,
    *,
    group: str = "g",
    topic: str = "t",
    partition: int = 0,
    version: int = 9,
    metadata: str | None = None,
) -> int:
    part = OffsetCommitRequestPartition(
        partition_index=partition, committed_offset=offset, committed_leader_epoch=5,
        committed_metadata=metadata,
    )  # fmt: skip
    request = OffsetCommitRequest(
        group_id=group, topics=[OffsetCommitRequestTopic(name=topic, partitions=[part])]
    )
    response = await client.ask(request, version, OffsetCommitResponse)
    return response.topics[0].partitions[0].error_code


async def fetch(
    client: RawClient, group: str = "g", version: int = 9, topic: str = "t"
) -> tuple[int, int, int, str | None]:
    """Error, offset, leader epoch, metadata of partition 0."""
    if version >= 8:
        topics = [OffsetFetchRequestTopics(name=topic, partition_indexes=[0])]
        request = OffsetFetchRequest(
            groups=[OffsetFetchRequestGroup(group_id=group, topics=topics)]
        )
        response = await client.ask(request, version, OffsetFetchResponse)
        found = response.groups[0]
        assert not found.error_code
        p = found.topics[0].partitions[0]
        return p.error_code, p.committed_offset, p.committed_leader_epoch, p.metadata
    old = OffsetFetchRequest(
        group_id=group, topics=[OffsetFetchRequestTopic(name=topic, partition_indexes=[0])]
    )
    answer = await client.ask(old, version, OffsetFetchResponse)
    q = answer.topics[0].partitions[0]
    return (
        q.error_code or answer.error_code,
        q.committed_offset,
        q.committed_leader_epoch,
        q.metadata,
    )


async def describe(client: RawClient, group: str = "g") -> DescribedGroup:
    request = DescribeGroupsRequest(groups=[group], include_authorized_operations=True)
    return (await client.ask(request, 5, DescribeGroupsResponse)).groups[0]


# -- FindCoordinator


@pytest.mark.parametrize("version", range(6))
def test_a_coordinator_is_found_and_its_topic_made(version: int) -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        request = FindCoordinatorRequest(key="g", coordinator_keys=["g", "h"])
        response = await client.ask(request, version, FindCoordinatorResponse)
        found = response.coordinators if version >= 4 else [response]
        assert [c.error_code for c in found] == [0] * len(found)
        assert {c.node_id for c in found} == {1}
        assert {c.port for c in found} == {node.node.addresses.client[1]}  # type: ignore[index]
        asked = MetadataRequest(topics=[MetadataRequestTopic(name="__consumer_offsets")])
        (topic,) = (await client.ask(asked, 12, MetadataResponse)).topics
        assert topic.is_internal
        assert len(topic.partitions) == 3
        assert len(topic.partitions[0].replica_nodes) == 1  # of three that are asked for

    run_node(main, **SETTINGS)


def test_keys_that_are_not_coordinated_here_are_refused() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        request = FindCoordinatorRequest(key_type=7, key="g", coordinator_keys=["g"])
        for version in (3, 4):
            response = await client.ask(request, version, FindCoordinatorResponse)
            found = response.coordinators[0] if version >= 4 else response
            assert (found.error_code, found.node_id) == (ErrorCode.INVALID_REQUEST, -1)
            assert "consumer groups" in (found.error_message or "")

    run_node(main)


def test_many_clients_at_once_make_the_topic_once() -> None:
    async def main(node: NodeUnderTest) -> None:
        clients = [await node.connect() for _ in range(20)]
        answers = await asyncio.gather(*(find(c, "g") for c in clients))
        assert {a.coordinators[0].error_code for a in answers} == {0}

    run_node(main, **SETTINGS)


def test_asking_for_its_metadata_makes_the_internal_topic_as_it_must_be() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        asked = MetadataRequest(topics=[MetadataRequestTopic(name="__consumer_offsets")])
        (topic,) = (await client.ask(asked, 12, MetadataResponse)).topics
        assert len(topic.partitions) == 3

    run_node(main, **SETTINGS)


def test_clients_do_not_write_to_the_internal_topic() -> None:
    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        answer = await produce(client, "__consumer_offsets", records(b"v", keys=[b"k"]))
        assert answer.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
        assert answer.error_message == "Cannot append to internal topic __consumer_offsets"

    run(main)


def test_before_anybody_looked_there_is_no_coordinator() -> None:
    async def main(node: NodeUnderTest) -> None:
        client = await node.connect()
        assert (await join(client)).error_code == ErrorCode.NOT_COORDINATOR
        beat = await client.ask(HeartbeatRequest(group_id="g"), 4, HeartbeatResponse)
        assert beat.error_code == ErrorCode.NOT_COORDINATOR
        listed = await client.ask(ListGroupsRequest(), 5, ListGroupsResponse)
        assert (listed.error_code, listed.groups) == (0, [])

    run_node(main)


# -- members


@pytest.mark.parametrize("version", range(10))
def test_a_member_joins_in_each_version(version: int) -> None:
    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        joined = await join(client, version=version)
        assert (joined.error_code, joined.generation_id) == (0, 1)
        assert joined.leader == joined.member_id
        assert [m.member_id for m in joined.members] == [joined.member_id]
        synced = await sync(client, joined, version=min(version, 5))
        assert (synced.error_code, synced.assignment) == (0, b"all")
        beat = HeartbeatRequest(group_id="g", generation_id=1, member_id=joined.member_id)
        answer = await client.ask(beat, min(version, 4), HeartbeatResponse)
        assert answer.error_code == 0
        leave = LeaveGroupRequest(
            group_id="g", member_id=joined.member_id,
            members=[MemberIdentity(member_id=joined.member_id), MemberIdentity(member_id="x")],
        )  # fmt: skip
        left = await client.ask(leave, min(version, 5), LeaveGroupResponse)
        assert left.error_code == 0
        if version >= 3:
            assert [m.error_code for m in left.members] == [0, ErrorCode.UNKNOWN_MEMBER_ID]
        assert (await describe(client)).group_state == "Empty"

    run(main)


def test_a_client_that_goes_while_it_waits_harms_nobody() -> None:
    async def main(node: NodeUnderTest, client: RawClient) -> None:
        joined = await join(client)
        await sync(client, joined)
        other = await node.connect()
        waiting = asyncio.create_task(join(other))
        while (await describe(client)).group_state != "PreparingRebalance":
            await asyncio.sleep(0)
        other.close()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await waiting
        again = await join(client, member_id=joined.member_id)
        assert again.generation_id == 2
        assert len(again.members) == 2  # its session will tell
        assert (await sync(client, again)).error_code == 0

    run(main)


# -- offsets


@pytest.mark.parametrize("version", range(2, 10))
def test_offsets_are_committed_and_fetched_in_each_version(version: int) -> None:
    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        assert await fetch(client, version=version) == (0, -1, -1, "")
        assert await commit(client, 42, version=version, metadata="mine") == 0
        epoch = 5 if version >= 6 else -1
        for fetch_version in range(1, 10):
            expected = epoch if fetch_version >= 5 else -1
            assert await fetch(client, version=fetch_version) == (0, 42, expected, "mine")

    run(main)


def test_everything_a_group_has_committed_is_fetched_with_null_topics() -> None:
    async def main(node: NodeUnderTest, client: RawClient) -> None:
        await node.create("u")
        for topic, partition in (("t", 1), ("u", 0), ("t", 0)):
            assert await commit(client, 7, topic=topic, partition=partition) == 0
        old = await client.ask(
            OffsetFetchRequest(group_id="g", topics=None), 7, OffsetFetchResponse
        )
        new = await client.ask(
            OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id="g", topics=None)]),
            8, OffsetFetchResponse,
        )  # fmt: skip
        for topics in (old.topics, new.groups[0].topics):
            found = [(t.name, [p.partition_index for p in t.partitions]) for t in topics]
            assert found == [("t", [0, 1]), ("u", [0])]

    run(main)


def test_one_wrong_partition_does_not_fail_the_others() -> None:
    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        unknown = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert await commit(client, 1, topic="nowhere") == unknown
        assert await commit(client, 1, partition=2) == unknown
        too_long = await commit(client, 1, metadata="x" * 5_000)
        assert too_long == ErrorCode.OFFSET_METADATA_TOO_LARGE
        partitions = [
            OffsetCommitRequestPartition(partition_index=n, committed_offset=9) for n in (0, 99, 1)
        ]
        request = OffsetCommitRequest(
            group_id="g", topics=[OffsetCommitRequestTopic(name="t", partitions=partitions)]
        )
        response = await client.ask(request, 9, OffsetCommitResponse)
        errors = [p.error_code for p in response.topics[0].partitions]
        assert errors == [0, unknown, 0]

    run(main)


def test_offsets_of_a_deleted_topic_go_with_it() -> None:
    async def main(node: NodeUnderTest, client: RawClient) -> None:
        assert await commit(client, 42) == 0
        gone = DeleteTopicsRequest(topics=[DeleteTopicState(name="t")], timeout_ms=10_000)
        await client.ask(gone, 6, DeleteTopicsResponse)
        made = CreateTopicsRequest(
            topics=[CreatableTopic(name="t", num_partitions=1, replication_factor=1)],
            timeout_ms=10_000,
        )
        await client.ask(made, 7, CreateTopicsResponse)
        while (await fetch(client))[1] != -1:
            await asyncio.sleep(0)

    run(main)


def test_single_offsets_are_deleted() -> None:
    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        assert await commit(client, 42) == 0
        wanted = OffsetDeleteRequest(
            group_id="g",
            topics=[
                OffsetDeleteRequestTopic(
                    name=name, partitions=[OffsetDeleteRequestPartition(partition_index=0)]
                )
                for name in ("nowhere", "t")
            ],
        )
        response = await client.ask(wanted, 0, OffsetDeleteResponse)
        errors = {t.name: t.partitions[0].error_code for t in response.topics}
        assert errors == {"nowhere": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "t": 0}
        assert await fetch(client) == (0, -1, -1, "")
        wanted.group_id = "other"
        response = await client.ask(wanted, 0, OffsetDeleteResponse)
        assert response.error_code == ErrorCode.GROUP_ID_NOT_FOUND

    run(main)


# -- tools


def test_a_group_is_described_in_its_states() -> None:
    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        assert (await describe(client, "nobody")).group_state == "Dead"
        joined = await join(client)
        rebalancing = await describe(client)
        assert rebalancing.group_state == "CompletingRebalance"
        assert (rebalancing.protocol_data, rebalancing.members[0].member_metadata) == ("", b"")
        await sync(client, joined)
        stable = await describe(client)
        assert (stable.group_state, stable.protocol_type) == ("Stable", "consumer")
        assert (stable.protocol_data, stable.authorized_operations) == ("range", 328)
        (member,) = stable.members
        assert (member.client_id, member.client_host) == ("raw", "/127.0.0.1")
        assert (member.member_assignment, member.member_metadata) == (b"all", subscription("t"))

    run(main)


def test_groups_are_listed_by_state_and_type() -> None:
    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        await commit(client, 1, group="idle")
        await sync(client, await join(client))

        async def listed(version: int = 5, **filters: list[str]) -> list[str]:
            request = ListGroupsRequest(
                states_filter=filters.get("states", []), types_filter=filters.get("types", [])
            )
            response = await client.ask(request, version, ListGroupsResponse)
            return [g.group_id for g in response.groups]

        for version in range(6):
            assert await listed(version) == ["g", "idle"]
        assert await listed(states=["Stable"]) == ["g"]
        assert await listed(states=["empty", "Dead"]) == ["idle"]
        assert await listed(types=["classic"]) == ["g", "idle"]
        assert await listed(types=["consumer"]) == []
        request = ListGroupsRequest(states_filter=["Empty"])
        (idle,) = (await client.ask(request, 5, ListGroupsResponse)).groups
        assert (idle.protocol_type, idle.group_type) == ("", "classic")

    run(main)


def test_groups_are_deleted_each_by_itself() -> None:
    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        await commit(client, 1, group="idle")
        await sync(client, await join(client))
        request = DeleteGroupsRequest(groups_names=["g", "idle", "nobody"])
        response = await client.ask(request, 2, DeleteGroupsResponse)
        assert [(r.group_id, r.error_code) for r in response.results] == [
            ("g", ErrorCode.NON_EMPTY_GROUP), ("idle", 0), ("nobody", ErrorCode.GROUP_ID_NOT_FOUND),
        ]  # fmt: skip
        assert await fetch(client, "idle") == (0, -1, -1, "")

    run(main)


def test_a_thousand_groups_are_listed_and_described() -> None:
    names = [f"group-{n:04}" for n in range(1_000)]

    async def main(_node: NodeUnderTest, client: RawClient) -> None:
        for name in names:
            assert await commit(client, 1, group=name) == 0
        listed = await client.ask(ListGroupsRequest(), 5, ListGroupsResponse)
        assert [g.group_id for g in listed.groups] == names
        described = await client.ask(DescribeGroupsRequest(groups=names), 5, DescribeGroupsResponse)
        assert [g.group_state for g in described.groups] == ["Empty"] * 1_000

    run(main)
