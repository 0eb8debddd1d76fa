"""Admin calls about consumer groups and the offsets that they keep."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress

from pegel.admin.base import AdminBase, soon_known
from pegel.admin.lag import oldest_unread
from pegel.admin.types import GroupDescription, GroupListing, GroupMember, PartitionLag
from pegel.consumer.coordinator import Coordinator, find_coordinators
from pegel.consumer.group_protocol import PROTOCOL_TYPE, GroupProtocolError, decode_assignment
from pegel.consumer.offsets import commit_offsets, fetch_offsets
from pegel.errors import (
    CommitFailedError,
    GroupNotEmptyError,
    GroupNotFoundError,
    PegelError,
    broker_error,
    to_error_code,
)
from pegel.network.pool import Endpoint
from pegel.offsets import EARLIEST, LATEST, list_offsets
from pegel.portions import in_portions
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.delete_groups import DeleteGroupsRequest, DeleteGroupsResponse
from pegel.protocol.messages.describe_groups import (
    DescribedGroup,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)
from pegel.protocol.messages.list_groups import ListGroupsRequest, ListGroupsResponse
from pegel.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
    OffsetDeleteResponse,
)
from pegel.types import CommittedOffset, TopicPartition

# Groups in one DescribeGroups request: an answer carries every member's assignment.
_DESCRIBED_AT_ONCE = 200
_MOVED = {ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_NOT_AVAILABLE,
          ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}  # fmt: skip


class GroupAdmin(AdminBase):
    """The part of ``Admin`` that knows groups."""

    async def list_groups(
        self, *, states: Sequence[str] = (), timeout: float | None = None
    ) -> list[GroupListing]:
        """All groups of all brokers, by name.

        Args:
            states: only those in one of these, such as "Stable" and "Empty".

        Raises:
            PegelError: a broker does not answer; the list would not be whole.
        """
        wait = self._timeout(timeout)
        await self._cluster.metadata.refresh(timeout=wait)
        nodes = sorted(self._cluster.metadata.view.brokers)
        request = ListGroupsRequest(states_filter=list(states))
        answers = await asyncio.gather(
            *(self._ask_broker(n, request, ListGroupsResponse, wait) for n in nodes)
        )
        found: dict[str, GroupListing] = {}
        for node_id, answer in zip(nodes, answers, strict=True):
            if answer.error_code:
                raise broker_error(answer.error_code, f"groups of broker {node_id}")
            for g in answer.groups:
                found[g.group_id] = GroupListing(
                    g.group_id, g.group_state, g.group_type, g.protocol_type
                )
        return [found[name] for name in sorted(found)]

    async def describe_group(self, group: str, *, timeout: float | None = None) -> GroupDescription:
        """State, assignor and members of a group, with the partitions of each.

        Raises:
            GroupNotFoundError, PegelError.
        """
        found = await self.describe_groups([group], timeout=timeout)
        if group not in found:
            raise _no_group(group)
        return found[group]

    async def describe_groups(
        self, groups: Sequence[str], *, timeout: float | None = None
    ) -> dict[str, GroupDescription]:
        """Several groups at once, by name; those that are not there are left out.

        Raises:
            PegelError: a group cannot be described; none is left out for that.
        """
        wait = self._timeout(timeout)
        clock = self._cluster.clock
        deadline = clock.monotonic() + wait
        found: dict[str, GroupDescription] = {}
        missing, attempts = list(dict.fromkeys(groups)), 0
        error: PegelError | None = None
        while missing:
            left = deadline - clock.monotonic()
            if left <= 0:
                raise error or PegelError(f"groups were not described in {wait:.3g} s")
            try:
                again, error = await self._describe(missing, found, left)
            except PegelError as caught:
                if not caught.retriable:
                    raise
                again, error = missing, caught
            missing = again
            if missing:
                await asyncio.sleep(min(left, self._cluster.retry_pause(attempts)))
                attempts += 1
        return found

    async def _describe(
        self, groups: Sequence[str], found: dict[str, GroupDescription], wait: float
    ) -> tuple[list[str], PegelError | None]:
        """Fill ``found``; the groups to ask for again and why."""
        by_node: dict[Endpoint, list[str]] = {}
        for name, endpoint in (await find_coordinators(self._cluster, groups, wait)).items():
            by_node.setdefault(endpoint, []).append(name)
        requests = [
            (endpoint, names[i : i + _DESCRIBED_AT_ONCE])
            for endpoint, names in by_node.items()
            for i in range(0, len(names), _DESCRIBED_AT_ONCE)
        ]
        answers = await asyncio.gather(
            *(
                self._cluster.pool.ask(
                    endpoint, DescribeGroupsRequest(groups=names), DescribeGroupsResponse,
                    timeout=wait,
                )
                for endpoint, names in requests
            )
        )  # fmt: skip
        again: list[str] = []
        error: PegelError | None = None
        for (endpoint, _), answer in zip(requests, answers, strict=True):
            for g in answer.groups:
                code = to_error_code(g.error_code)
                if code in _MOVED:
                    again.append(g.group_id)
                    error = broker_error(code, f"group {g.group_id!r}")
                elif code is not ErrorCode.NONE and code is not ErrorCode.GROUP_ID_NOT_FOUND:
                    raise broker_error(code, f"group {g.group_id!r}")
                elif code is ErrorCode.NONE and g.group_state != "Dead":
                    found[g.group_id] = _description(g, endpoint.node_id)
        return again, error

    async def delete_group(self, group: str, *, timeout: float | None = None) -> None:
        """Delete a group without members, and its offsets.

        Raises:
            GroupNotFoundError, GroupNotEmptyError, PegelError.
        """
        response = await Coordinator(self._cluster, group).ask(
            DeleteGroupsRequest(groups_names=[group]),
            DeleteGroupsResponse,
            lambda answer: answer.results[0].error_code if answer.results else 0,
            timeout=self._timeout(timeout),
        )
        for result in response.results:
            code = to_error_code(result.error_code)
            if code is ErrorCode.GROUP_ID_NOT_FOUND:
                raise _no_group(group)
            if code is ErrorCode.NON_EMPTY_GROUP:
                raise _has_members(group)
            if code is not ErrorCode.NONE:
                raise broker_error(code, f"group {group!r}")

    async def group_offsets(
        self,
        group: str,
        partitions: Sequence[TopicPartition | tuple[str, int]] | None = None,
        *,
        timeout: float | None = None,
    ) -> dict[TopicPartition, CommittedOffset]:
        """What a group has committed: all of it, or for ``partitions``; empty for no group."""
        chosen = None if partitions is None else [TopicPartition(*p) for p in partitions]
        coordinator = Coordinator(self._cluster, group)
        wait = self._timeout(timeout)
        return await fetch_offsets(coordinator, chosen, timeout=wait, require_stable=False)

    @soon_known
    async def alter_group_offsets(
        self,
        group: str,
        offsets: Mapping[TopicPartition, int | CommittedOffset]
        | Mapping[tuple[str, int], int | CommittedOffset],
        *,
        timeout: float | None = None,
    ) -> None:
        """Set offsets of a group without members; it is made if it is not there.

        Raises:
            GroupNotEmptyError: stop its members first. PegelError.
        """
        chosen = {
            TopicPartition(*tp): o if isinstance(o, CommittedOffset) else CommittedOffset(o)
            for tp, o in offsets.items()
        }
        try:
            coordinator = Coordinator(self._cluster, group)
            await commit_offsets(coordinator, chosen, None, timeout=self._timeout(timeout))
        except CommitFailedError:
            raise _has_members(group) from None

    async def delete_group_offsets(
        self,
        group: str,
        partitions: Sequence[TopicPartition | tuple[str, int]],
        *,
        timeout: float | None = None,
    ) -> None:
        """Forget offsets of partitions that no member of the group subscribes to (KIP-496).

        Raises:
            GroupNotFoundError, GroupNotEmptyError, PegelError.
        """
        for portion in in_portions(partitions):
            await self._delete_offsets(group, portion, self._timeout(timeout))

    async def _delete_offsets(
        self, group: str, partitions: Sequence[TopicPartition | tuple[str, int]], timeout: float
    ) -> None:
        topics: dict[str, OffsetDeleteRequestTopic] = {}
        for name, index in partitions:
            topic = topics.setdefault(name, OffsetDeleteRequestTopic(name=name))
            topic.partitions.append(OffsetDeleteRequestPartition(partition_index=index))
        response = await Coordinator(self._cluster, group).ask(
            OffsetDeleteRequest(group_id=group, topics=list(topics.values())),
            OffsetDeleteResponse,
            lambda answer: answer.error_code,
            timeout=timeout,
        )
        codes = [response.error_code]
        codes += [p.error_code for t in response.topics for p in t.partitions]
        for code in map(to_error_code, codes):
            if code is ErrorCode.GROUP_ID_NOT_FOUND:
                raise _no_group(group)
            if code in {ErrorCode.NON_EMPTY_GROUP, ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC}:
                raise _has_members(group)
            if code is not ErrorCode.NONE:
                raise broker_error(code, f"offsets of group {group!r}")

    async def group_lag(
        self, group: str, *, seconds: bool = False, timeout: float | None = None
    ) -> list[PartitionLag]:
        """How far a group is behind, in the partitions that it reads or has offsets of.

        Args:
            seconds: find the age of the oldest unread record too, which reads that record.

        Raises:
            PegelError: the offsets cannot be read.
        """
        wait = self._timeout(timeout)
        committed = await self.group_offsets(group, timeout=wait)
        described = await self.describe_groups([group], timeout=wait)
        wanted = set(committed)
        for member in described[group].members if group in described else ():
            wanted.update(member.partitions)
        known = await self._existing(wanted, wait)
        starts, ends = await asyncio.gather(
            list_offsets(self._cluster, dict.fromkeys(known, EARLIEST), timeout=wait),
            list_offsets(self._cluster, dict.fromkeys(known, LATEST), timeout=wait),
        )
        unread: dict[TopicPartition, int] = {}
        for tp in known:
            at = committed[tp].offset if tp in committed else starts[tp].offset
            if at < ends[tp].offset:
                unread[tp] = max(at, starts[tp].offset)
        ages = await oldest_unread(self._cluster, unread, wait) if seconds else {}
        return [
            PartitionLag(
                tp.topic, tp.partition, committed.get(tp), starts[tp].offset, ends[tp].offset,
                ends[tp].offset - unread[tp] if tp in unread else 0,
                ages.get(tp, 0.0) if seconds else None,
            )
            for tp in known
        ]  # fmt: skip

    async def _existing(self, wanted: set[TopicPartition], wait: float) -> list[TopicPartition]:
        """Offsets outlive their topics for a while."""
        names = sorted({tp.topic for tp in wanted})
        if not names:
            return []
        response = await self._cluster.metadata.fetch(names, timeout=wait)
        counts = {t.name: len(t.partitions) for t in response.topics}
        return sorted(tp for tp in wanted if tp.partition < counts.get(tp.topic, 0))


def _description(g: DescribedGroup, coordinator: int) -> GroupDescription:
    members: list[GroupMember] = []
    for m in g.members:
        partitions: tuple[TopicPartition, ...] = ()
        if g.protocol_type == PROTOCOL_TYPE:
            with suppress(GroupProtocolError):  # another client's bytes: nothing to be told
                partitions = tuple(sorted(decode_assignment(bytes(m.member_assignment))))
        members.append(
            GroupMember(
                m.member_id, m.group_instance_id, m.client_id, m.client_host.lstrip("/"), partitions
            )
        )
    return GroupDescription(
        g.group_id, g.group_state, g.protocol_type, g.protocol_data, coordinator,
        tuple(sorted(members, key=lambda m: (m.client_id, m.member_id))),
    )  # fmt: skip


def _no_group(group: str) -> GroupNotFoundError:
    return GroupNotFoundError(
        f"there is no group {group!r}; `pegel groups list` shows those that exist"
    )


def _has_members(group: str) -> GroupNotEmptyError:
    return GroupNotEmptyError(f"group {group!r} has members; stop them first")
