"""Heartbeats that do not depend on how quick the user's loop is.

A consumer's code runs on the event loop of its user, who may block it for longer than a session:
heartbeats sent from there would come late, and the group would take a busy member for a dead one.
So they are sent from a thread that does nothing else, on an event loop and connections of its own:
one ``HeartThread`` for each client, however many consumers it has. Where the loop belongs to the
client anyway (the synchronous client) or the network is a simulated one, ``Heart`` runs on it.

That a member is alive does not mean that it gets on. As in Kafka's client (KIP-62) a member whose
reader does not come back within ``max_poll_interval`` leaves, so that others get its partitions.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from pegel.cluster import Cluster
from pegel.consumer.coordinator import Coordinator
from pegel.errors import PegelError, to_error_code
from pegel.protocol.errors import ErrorCode
from pegel.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse
from pegel.protocol.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberIdentity,
)
from pegel.seams import Clock

_STOP_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom a heartbeat speaks for."""

    group: str
    generation: int
    member_id: str
    instance_id: str | None


class Pulse:
    """One member, as seen from both loops; plain attributes, each written by one side only.

    The member writes ``identity`` (``None``: no heartbeats), ``polling`` and ``last_poll``;
    the heart writes ``beats`` and ``left``, the generation in which it made the member leave.
    Reports go to ``report`` on the member's loop: generation and
    the error that the coordinator gave, or ``None`` when the member was made to leave.
    """

    def __init__(
        self,
        *,
        interval: float,
        session_timeout: float,
        max_poll_interval: float,
        clock: Clock,
        report: Callable[[int, ErrorCode | None], None],
    ) -> None:
        self.interval, self.session_timeout = interval, session_timeout
        self.max_poll_interval = max_poll_interval
        self.clock = clock
        self.report = report
        self.loop = asyncio.get_running_loop()
        self.identity: Identity | None = None
        self.polling = False
        self.last_poll = clock.monotonic()
        self.beats = 0
        self.left: int | None = None

    def tell(self, generation: int, code: ErrorCode | None) -> None:
        """Report on the member's own loop, whichever runs this."""
        with suppress(RuntimeError):  # that loop is closed, and with it the member
            self.loop.call_soon_threadsafe(self.report, generation, code)

    @property
    def overdue(self) -> bool:
        """Whether the reader has been away for longer than it may."""
        away = self.clock.monotonic() - self.last_poll
        return not self.polling and away > self.max_poll_interval


class Hearts(Protocol):
    """Keeps members alive."""

    def add(self, group: str, pulse: Pulse) -> None: ...

    def remove(self, pulse: Pulse) -> None: ...

    async def close(self) -> None: ...


class Heart:
    """Sends the heartbeats of any number of members from the running loop."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._tasks: dict[Pulse, asyncio.Task[None]] = {}

    def add(self, group: str, pulse: Pulse) -> None:
        task = asyncio.get_running_loop().create_task(self._keep_alive(group, pulse))
        self._tasks[pulse] = task

    def remove(self, pulse: Pulse) -> None:
        task = self._tasks.pop(pulse, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _keep_alive(self, group: str, pulse: Pulse) -> None:
        coordinator = Coordinator(self._cluster, group)
        while True:
            await asyncio.sleep(pulse.interval)
            who = pulse.identity
            if who is None:
                continue
            if pulse.overdue:
                await self._leave(coordinator, pulse, who)
                continue
            request = HeartbeatRequest(
                group_id=group,
                generation_id=who.generation,
                member_id=who.member_id,
                group_instance_id=who.instance_id,
            )
            try:
                response = await coordinator.ask(
                    request,
                    HeartbeatResponse,
                    lambda answer: answer.error_code,
                    timeout=pulse.session_timeout,
                )
            except PegelError:
                continue  # whether the session is over will be said by who answers next
            pulse.beats += 1
            code = to_error_code(response.error_code)
            if code is not ErrorCode.NONE:
                pulse.tell(who.generation, code)

    async def _leave(self, coordinator: Coordinator, pulse: Pulse, who: Identity) -> None:
        """The reader is stuck. A static member only falls silent: its place is kept for it."""
        pulse.identity = None
        pulse.left = who.generation
        if who.instance_id is None:
            reason = f"its reader did not come back within {pulse.max_poll_interval:g} s"
            request = leave_request(who.group, who.member_id, None, reason)
            with suppress(PegelError):  # else the session runs out
                await coordinator.ask(
                    request, LeaveGroupResponse, lambda r: r.error_code, timeout=pulse.interval
                )
        pulse.tell(who.generation, None)


def leave_request(
    group: str, member_id: str, instance_id: str | None, reason: str
) -> LeaveGroupRequest:
    return LeaveGroupRequest(
        group_id=group,
        member_id=member_id,
        members=[MemberIdentity(member_id=member_id, group_instance_id=instance_id, reason=reason)],
    )


class HeartThread:
    """A ``Heart`` on a loop and thread of its own, begun when the first member comes."""

    def __init__(self, new_cluster: Callable[[random.Random], Cluster], rng: random.Random) -> None:
        self._new_cluster = new_cluster
        self._random = random.Random(rng.getrandbits(64))
        self._loop: asyncio.AbstractEventLoop | None = None
        self._heart: Heart | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._on_end: Callable[[], object] = lambda: None

    def add(self, group: str, pulse: Pulse) -> None:
        if self._loop is None:
            self._start()
        assert self._loop is not None
        assert self._heart is not None
        self._loop.call_soon_threadsafe(self._heart.add, group, pulse)

    def remove(self, pulse: Pulse) -> None:
        if self._loop is not None and self._heart is not None:
            self._loop.call_soon_threadsafe(self._heart.remove, pulse)

    async def close(self) -> None:
        """Stop the thread; waits ``_STOP_TIMEOUT`` seconds at most."""
        loop, thread, stop = self._loop, self._thread, self._stop
        if loop is None or thread is None or stop is None:
            return
        self._loop = None
        here = asyncio.get_running_loop()
        ended = asyncio.Event()
        self._on_end = lambda: here.call_soon_threadsafe(ended.set)
        loop.call_soon_threadsafe(stop.set)
        with suppress(TimeoutError):
            async with asyncio.timeout(_STOP_TIMEOUT):
                await ended.wait()
                thread.join()  # it is at its end

    def _start(self) -> None:
        self._loop = loop = asyncio.new_event_loop()
        cluster = self._new_cluster(self._random)
        self._heart = heart = Heart(cluster)
        self._stop = stop = asyncio.Event()

        async def main() -> None:
            try:
                await stop.wait()
            finally:
                await heart.close()
                await cluster.close()

        def work() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(main())
            with suppress(RuntimeError):  # nobody waits for it any more
                self._on_end()

        self._thread = threading.Thread(target=work, name="pegel-heartbeats", daemon=True)
        self._thread.start()
