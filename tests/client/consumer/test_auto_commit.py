"""Commits that are made for the reader, with a coordinator that fails on command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest

from pegel.consumer.offsets import AutoCommit
from pegel.errors import BrokerError, CommitFailedError, PegelError
from pegel.protocol.errors import ErrorCode
from pegel.types import CommittedOffset, TopicPartition

T0, T1 = TopicPartition("t", 0), TopicPartition("t", 1)


class Coordinator:
    """Each commit waits until the test answers it."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[TopicPartition, int], asyncio.Future[None]]] = []
        self.taken: list[dict[TopicPartition, int]] = []
        self.auto = AutoCommit(self.commit, lambda _: None)

    def commit(self, offsets: Mapping[TopicPartition, CommittedOffset]) -> asyncio.Task[None]:
        async def work() -> None:
            what = {tp: committed.offset for tp, committed in offsets.items()}
            answer = asyncio.get_running_loop().create_future()
            self.asked.append((what, answer))
            await answer
            self.taken.append(what)

        return asyncio.get_running_loop().create_task(work())

    async def next_asked(self) -> tuple[dict[TopicPartition, int], asyncio.Future[None]]:
        async with asyncio.timeout(20):
            while not self.asked:
                await asyncio.sleep(0.001)
        return self.asked.pop(0)

    async def refuse_next(self, code: ErrorCode = ErrorCode.NOT_COORDINATOR) -> None:
        _, answer = await self.next_asked()
        answer.set_exception(BrokerError("away", code))

    async def take_next(self) -> None:
        _, answer = await self.next_asked()
        answer.set_result(None)

    def finished(self, tp: TopicPartition, offset: int) -> None:
        self.auto.finished(tp, CommittedOffset(offset))


def run(body: Callable[[Coordinator], Awaitable[None]]) -> None:
    async def main() -> None:
        coordinator = Coordinator()
        try:
            await body(coordinator)
        finally:
            await coordinator.auto.close()

    asyncio.run(main())


def test_what_one_flush_could_not_commit_is_kept_for_the_next() -> None:
    """Closing flushes twice, and the second found nothing: a commit was lost."""

    async def body(coordinator: Coordinator) -> None:
        coordinator.finished(T0, 7)
        await coordinator.refuse_next()
        with pytest.raises(CommitFailedError, match="no commit within"):
            await coordinator.auto.flush(0.01)
        flush = asyncio.create_task(coordinator.auto.flush(20.0))
        await coordinator.take_next()
        await flush
        assert coordinator.taken == [{T0: 7}]

    run(body)


def test_a_commit_of_a_flush_that_fails_or_is_given_up_is_made_again() -> None:
    async def body(coordinator: Coordinator) -> None:
        auto = coordinator.auto
        auto._finished[T0] = CommittedOffset(7)  # as the reader's task leaves it when it gives up
        flush = asyncio.create_task(auto.flush(20.0))
        await coordinator.refuse_next()
        with pytest.raises(BrokerError):
            await flush
        await coordinator.take_next()
        await auto.flush(20.0)
        auto._finished[T0] = CommittedOffset(8)
        with pytest.raises(CommitFailedError):
            await auto.flush(0.01)  # not answered
        _, given_up = await coordinator.next_asked()
        assert given_up.cancelled()
        await coordinator.take_next()
        await auto.flush(20.0)
        assert coordinator.taken == [{T0: 7}, {T0: 8}]

    run(body)


def test_newer_offsets_are_never_followed_by_older_ones() -> None:
    async def body(coordinator: Coordinator) -> None:
        auto = coordinator.auto
        auto._finished[T0] = CommittedOffset(5)
        flush = asyncio.create_task(auto.flush(20.0))
        _, first = await coordinator.next_asked()
        coordinator.finished(T0, 7)
        await asyncio.sleep(0.01)
        assert not coordinator.asked, "one commit at a time"
        first.set_exception(BrokerError("away", ErrorCode.NOT_COORDINATOR))
        with pytest.raises(PegelError):
            await flush
        await coordinator.take_next()
        await auto.flush(20.0)
        assert coordinator.taken == [{T0: 7}]

    run(body)


def test_what_is_forgotten_while_it_is_committed_is_not_committed_again() -> None:
    """It is another's, who may have committed more; back with this member it would be rewound."""

    async def body(coordinator: Coordinator) -> None:
        coordinator.finished(T0, 7)
        coordinator.finished(T1, 1)
        _, answer = await coordinator.next_asked()
        coordinator.auto.forget([T0])
        answer.set_exception(BrokerError("away", ErrorCode.NOT_COORDINATOR))
        await coordinator.take_next()
        await coordinator.auto.flush(20.0)
        assert coordinator.taken == [{T1: 1}]

    run(body)
