"""Offsets that a group keeps at its coordinator: fetch, commit, and commit by itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager

from pegel.consumer.coordinator import Coordinator
from pegel.consumer.heart import Identity
from pegel.errors import CommitFailedError, PegelError, broker_error, to_error_code
from pegel.portions import in_portions
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
    OffsetCommitResponse,
)
from pegel.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
)
from pegel.types import CommittedOffset, TopicPartition

_log = logging.getLogger("pegel.consumer")

_FENCED = {
    ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID,
    ErrorCode.REBALANCE_IN_PROGRESS, ErrorCode.STALE_MEMBER_EPOCH,
}  # fmt: skip
_RETRY_PAUSE = 0.1
_OFFSET_MAX = 2**63 - 1


async def fetch_offsets(
    coordinator: Coordinator,
    partitions: Iterable[TopicPartition] | None,
    *,
    timeout: float,
    require_stable: bool = True,
) -> dict[TopicPartition, CommittedOffset]:
    """What the group committed; partitions without an offset are left out.

    Args:
        partitions: ``None`` asks for all that the group has.
        require_stable: wait until open transactions that commit offsets have ended (KIP-447).

    Raises:
        PegelError: they cannot be read.
    """
    if partitions is None:
        return await _fetch(coordinator, None, timeout, require_stable)
    found: dict[TopicPartition, CommittedOffset] = {}
    ends = asyncio.get_running_loop().time() + timeout
    for portion in in_portions(partitions):
        wanted: dict[str, list[int]] = {}
        for topic, partition in portion:
            wanted.setdefault(topic, []).append(partition)
        left = ends - asyncio.get_running_loop().time()
        found |= await _fetch(coordinator, wanted, left, require_stable)
    return found


async def _fetch(
    coordinator: Coordinator,
    wanted: Mapping[str, list[int]] | None,
    timeout: float,
    require_stable: bool,
) -> dict[TopicPartition, CommittedOffset]:
    """One request."""
    request = _fetch_request(coordinator.group, wanted, require_stable)
    response = await coordinator.ask(request, OffsetFetchResponse, _fetch_error, timeout=timeout)
    code = _fetch_error(response)
    if code:
        raise broker_error(code, f"offsets of group {coordinator.group!r}")
    found: dict[TopicPartition, CommittedOffset] = {}
    for answer in response.groups[0].topics if response.groups else response.topics:
        for p in answer.partitions:
            tp = TopicPartition(answer.name, p.partition_index)
            if p.error_code:
                raise broker_error(p.error_code, f"offset of {tp} in {coordinator.group!r}")
            if p.committed_offset >= 0:
                found[tp] = CommittedOffset(
                    p.committed_offset, p.committed_leader_epoch, p.metadata or ""
                )
    return found


def _fetch_request(
    group: str, wanted: Mapping[str, list[int]] | None, require_stable: bool
) -> OffsetFetchRequest:
    """Filled for every version: one group until 7, groups from 8 on."""
    return OffsetFetchRequest(
        group_id=group,
        topics=None
        if wanted is None
        else [OffsetFetchRequestTopic(name=t, partition_indexes=p) for t, p in wanted.items()],
        groups=[
            OffsetFetchRequestGroup(
                group_id=group,
                topics=None
                if wanted is None
                else [
                    OffsetFetchRequestTopics(name=t, partition_indexes=p) for t, p in wanted.items()
                ],
            )
        ],
        require_stable=require_stable,
    )


def _fetch_error(response: OffsetFetchResponse) -> int:
    """The error of the group, or one of a partition that a retry can help."""
    answer = response.groups[0] if response.groups else response
    if answer.error_code:
        return answer.error_code
    for topic in answer.topics:
        for p in topic.partitions:
            if p.error_code and to_error_code(p.error_code).retriable:
                return p.error_code
    return 0


async def commit_offsets(
    coordinator: Coordinator,
    offsets: Mapping[TopicPartition, CommittedOffset],
    who: Identity | None,
    *,
    timeout: float,
) -> None:
    """Have the group keep these offsets; very many of them in several requests.

    Args:
        who: the member that commits; ``None`` for a group without members.

    Raises:
        CommitFailedError: the group went on without this member.
        PegelError: they were not all committed.
    """
    ends = asyncio.get_running_loop().time() + timeout
    for portion in in_portions(sorted(offsets.items())) if offsets else [[]]:
        await _commit(coordinator, portion, who, ends - asyncio.get_running_loop().time())


async def _commit(
    coordinator: Coordinator,
    offsets: Iterable[tuple[TopicPartition, CommittedOffset]],
    who: Identity | None,
    timeout: float,
) -> None:
    """One request."""
    topics: dict[str, OffsetCommitRequestTopic] = {}
    for tp, committed in offsets:
        topic = topics.setdefault(tp.topic, OffsetCommitRequestTopic(name=tp.topic))
        topic.partitions.append(
            OffsetCommitRequestPartition(
                partition_index=tp.partition,
                committed_offset=committed.offset,
                committed_leader_epoch=committed.leader_epoch,
                committed_metadata=committed.metadata,
            )
        )
    request = OffsetCommitRequest(
        group_id=coordinator.group,
        generation_id_or_member_epoch=-1 if who is None else who.generation,
        member_id="" if who is None else who.member_id,
        group_instance_id=None if who is None else who.instance_id,
        topics=list(topics.values()),
    )
    response = await coordinator.ask(request, OffsetCommitResponse, _commit_error, timeout=timeout)
    code = to_error_code(_commit_error(response))
    if code in _FENCED:
        raise CommitFailedError(
            f"group {coordinator.group!r} took no commit: {code.message} What was read since the "
            "last commit will be read again, maybe by another member",
            code,
            retriable=code is ErrorCode.REBALANCE_IN_PROGRESS,
        )
    if code is not ErrorCode.NONE:
        where = ", ".join(
            str(TopicPartition(t.name, p.partition_index))
            for t in response.topics
            for p in t.partitions
            if p.error_code == code
        )
        raise broker_error(code, f"commit of group {coordinator.group!r}: {where}")


def next_offsets(
    offsets: Mapping[TopicPartition, int | CommittedOffset],
) -> dict[TopicPartition, CommittedOffset]:
    """What a caller wants committed, checked.

    Raises:
        TypeError, ValueError: what is no offset of a next record; names its partition.
    """
    chosen: dict[TopicPartition, CommittedOffset] = {}
    for key, value in offsets.items():
        tp = TopicPartition(*key)
        committed = value if isinstance(value, CommittedOffset) else CommittedOffset(value)
        offset: object = committed.offset
        if not isinstance(offset, int) or isinstance(offset, bool):
            raise TypeError(
                f"{tp}: an offset is an int or a CommittedOffset, not {type(offset).__name__}"
            )
        if not 0 <= offset <= _OFFSET_MAX:
            raise ValueError(f"{tp}: offsets to commit are 0 to {_OFFSET_MAX}, not {offset}")
        chosen[tp] = committed
    return chosen


def _commit_error(response: OffsetCommitResponse) -> int:
    return next((p.error_code for t in response.topics for p in t.partitions if p.error_code), 0)


class AutoCommit:
    """Commits what the reader finished, soon after: one commit at a time, the newest offsets.

    A quick reader is not held up by a commit for each batch; the next one takes what was finished
    meanwhile. ``flush`` waits for all of it, before partitions go to somebody else.

    Args:
        commit: does one commit; raises PegelError.
        on_error: told of an error that will not go away, once.
    """

    def __init__(
        self,
        commit: Callable[[Mapping[TopicPartition, CommittedOffset]], asyncio.Task[None]],
        on_error: Callable[[PegelError], None],
    ) -> None:
        self._commit, self._on_error = commit, on_error
        self._finished: dict[TopicPartition, CommittedOffset] = {}
        self._under_way: dict[TopicPartition, CommittedOffset] = {}
        self.turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def finished(self, tp: TopicPartition, committed: CommittedOffset) -> None:
        """Everything before ``committed`` has been worked on."""
        self._finished[tp] = committed
        self._start()

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        """These are somebody else's now, who may commit more: none of them is committed again."""
        for tp in partitions:
            self._finished.pop(tp, None)
            self._under_way.pop(tp, None)

    async def flush(self, timeout: float) -> None:
        """Return when everything finished is committed, or cannot be.

        What can be committed later is kept for another ``flush``.

        Raises:
            CommitFailedError: the group went on without this member.
            PegelError: not committed within ``timeout`` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                if self._task is not None:  # it tries again and again
                    await asyncio.wait([self._task])
                while self._finished or self.turn.locked():
                    await self._commit_finished()
        except TimeoutError:
            raise not_in_time(timeout) from None

    async def close(self) -> None:
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _start(self) -> None:
        if self._finished and self._task is None and not self._closed:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._finished:
                try:
                    await self._commit_finished()
                except PegelError as error:
                    if not error.retriable:
                        self._give_up(error)
                        return
                    await asyncio.sleep(_RETRY_PAUSE)
        finally:
            self._task = None

    async def _commit_finished(self) -> None:
        """One commit; what a later one may yet bring through is put back."""
        async with self.turn:
            offsets, self._finished = self._finished, {}
            if not offsets:
                return
            self._under_way = offsets
            try:
                await self._commit({**offsets})
            except (PegelError, asyncio.CancelledError) as error:
                if not isinstance(error, PegelError) or error.retriable:
                    # Newer offsets that were finished meanwhile stand above these.
                    self._finished = {**offsets, **self._finished}
                    self._start()
                raise
            finally:
                self._under_way = {}

    def _give_up(self, error: PegelError) -> None:
        if isinstance(error, CommitFailedError):
            _log.warning("%s", error)
        else:
            self._on_error(error)


@asynccontextmanager
async def by_hand(
    auto: AutoCommit | None, partitions: Iterable[TopicPartition], timeout: float
) -> AsyncIterator[float]:
    """Inside ``partitions`` are committed by hand: no older commit of them comes after that.

    Gives what is left of the time.

    Raises:
        CommitFailedError: the commit that is under way took all of it.
    """
    if auto is None:
        yield timeout
        return
    ends = asyncio.get_running_loop().time() + timeout
    try:
        async with asyncio.timeout(timeout):
            await auto.turn.acquire()
    except TimeoutError:
        raise not_in_time(timeout) from None
    try:
        yield max(0.0, ends - asyncio.get_running_loop().time())
        auto.forget(partitions)
    finally:
        auto.turn.release()


def not_in_time(timeout: float) -> CommitFailedError:
    return CommitFailedError(
        f"no commit within {timeout:.3g} s; what was read since the last one may be read again",
        ErrorCode.REQUEST_TIMED_OUT,
    )
