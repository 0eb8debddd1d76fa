"""Topics that are not known yet: calls for one go on in the order in which they came."""

from __future__ import annotations

import asyncio
from functools import partial

from pegel.cluster import Cluster
from pegel.metadata import Topic
from pegel.types import check_topic_name


class _Line:
    """One question for a topic, and the calls that wait for its answer."""

    __slots__ = ("answered", "task", "waiting")

    def __init__(self, task: asyncio.Task[Topic]) -> None:
        self.task = task
        self.answered = False  # those who waited were told
        self.waiting: dict[asyncio.Future[None], None] = {}


class TopicLookups:
    """One question for each topic, however many wait for it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._loop = asyncio.get_running_loop()
        self._lines: dict[str, _Line] = {}

    def hold(self, topic: str) -> bool:
        """Whether earlier calls for ``topic`` wait here: a new one has to stand behind them."""
        return topic in self._lines

    async def wait(self, topic: str, timeout: float) -> Topic:
        """The topic. What the caller does before its next ``await`` keeps the order.

        Raises:
            PegelError: as ``Metadata.topic``; after ``timeout`` seconds at the latest.
        """
        check_topic_name(topic)
        line = self._lines.get(topic)
        if line is None:
            create = self._cluster.options.auto_create_topics
            asking = self._cluster.metadata.topic(topic, create=create)
            line = self._lines[topic] = _Line(self._loop.create_task(asking))
            line.task.add_done_callback(partial(self._on_answer, line))
        turn: asyncio.Future[None] = self._loop.create_future()
        line.waiting[turn] = None
        if line.answered:  # those before have not all gone on yet
            self._loop.call_soon(_tell, turn)  # a turn that has come already is not waited for
        try:
            async with asyncio.timeout(timeout):
                await turn
        except TimeoutError:
            raise self._cluster.metadata.unknown(topic, timeout) from None
        finally:
            del line.waiting[turn]
            if not line.waiting:
                del self._lines[topic]
                line.task.cancel()  # nobody wants to know any more, or it is done
        return line.task.result()

    def _on_answer(self, line: _Line, task: asyncio.Task[Topic]) -> None:
        if not task.cancelled():
            task.exception()  # those who wait raise it
        line.answered = True
        for turn in line.waiting:
            _tell(turn)


def _tell(turn: asyncio.Future[None]) -> None:
    if not turn.done():
        turn.set_result(None)
