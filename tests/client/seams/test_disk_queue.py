"""The queue of a real disk: a thread that makes the calls, and the loop that hears of them."""

from __future__ import annotations

import asyncio
import threading

import pytest

from pegel.seams.disk import Outcome, ThreadDiskQueue


def test_calls_are_made_in_order_by_one_thread_and_answered_on_the_loop() -> None:
    async def main() -> None:
        queue = ThreadDiskQueue("test")
        made: list[tuple[int, int]] = []
        answered: list[tuple[int, int]] = []
        last = asyncio.get_running_loop().create_future()

        def call(number: int) -> int:
            made.append((number, threading.get_ident()))
            return number

        def done(outcome: Outcome[int]) -> None:
            answered.append((outcome.result(), threading.get_ident()))

        for number in range(50):
            queue.run(lambda n=number: call(n), done)  # type: ignore[misc]
        queue.run(lambda: None, lambda _: last.set_result(None))
        await last
        queue.close()
        assert [number for number, _ in made] == [number for number, _ in answered]
        assert [number for number, _ in made] == list(range(50))
        assert {thread for _, thread in answered} == {threading.get_ident()}
        assert threading.get_ident() not in {thread for _, thread in made}

    asyncio.run(main())


def test_what_a_call_raises_is_its_outcome_and_a_future_raises_it() -> None:
    async def main() -> None:
        queue = ThreadDiskQueue("test")
        seen: list[BaseException | None] = []

        def fail() -> None:
            raise OSError("no room")

        queue.run(fail, lambda outcome: seen.append(outcome.error))
        with pytest.raises(OSError, match="no room"):
            await queue.submit(fail)
        assert [str(error) for error in seen] == ["no room"]
        queue.close()

    asyncio.run(main())


def test_a_call_back_that_fails_does_not_keep_the_next_from_being_told() -> None:
    async def main() -> None:
        queue = ThreadDiskQueue("test")
        loop = asyncio.get_running_loop()
        reported: list[object] = []
        loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
        held = threading.Event()

        def fail(_: Outcome[bool]) -> None:
            raise ValueError("in the call back")

        queue.run(lambda: held.wait(10), fail)
        told = queue.submit(lambda: "told")
        held.set()
        assert await told == "told"
        assert [str(error) for error in reported] == ["in the call back"]
        queue.close()

    asyncio.run(main())


def test_a_closed_queue_takes_nothing_and_a_cancelled_future_is_left_alone() -> None:
    async def main() -> None:
        queue = ThreadDiskQueue("test")
        held = threading.Event()
        future = queue.submit(lambda: held.wait(10))
        future.cancel()
        held.set()
        assert await queue.submit(lambda: "after") == "after"
        queue.close()
        with pytest.raises(RuntimeError, match="closed"):
            queue.run(lambda: None, lambda _: None)

    asyncio.run(main())
