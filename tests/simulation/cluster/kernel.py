"""Simulated time: one scheduler for everything, and one event loop for each process.

Only the scheduler decides what runs next: by time, then by the order in which it was asked for.
There is no selector, no thread and no clock, so one seed gives one history.

It is quick, for a seed is worth what it costs: within ``running_loops_are_known`` asyncio is not
told who runs, and whoever asks for the running loop is answered without a system call.
"""

from __future__ import annotations

import asyncio
import hashlib
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from heapq import heappop, heappush
from typing import Any
from unittest import mock

# So many turns without time going by is a loop that spins.
TURNS_AT_ONE_TIME_MAX = 100_000
HASHED_TOGETHER = 500  # lines of a trace


class SpinningError(AssertionError):
    """Some process keeps its loop busy without ever waiting."""


_running: SimLoop | None = None
_asyncio_is_told = True


def _run_as(loop: SimLoop | None) -> None:
    """From here on ``loop`` is the running one."""
    global _running  # noqa: PLW0603 (asyncio's own is as global)
    if loop is not _running:
        _running = loop
        if _asyncio_is_told:
            events._set_running_loop(loop)


def _running_loop_or_none() -> SimLoop | None:
    return _running


def _running_loop(stacklevel: int = 0) -> SimLoop:
    if _running is None:
        raise RuntimeError("no running event loop")
    return _running


def _current_task(loop: SimLoop | None = None) -> asyncio.Task[Any] | None:
    return asyncio.tasks._current_tasks.get(loop or _running_loop())  # type: ignore[attr-defined]


@contextmanager
def running_loops_are_known() -> Iterator[None]:
    """Whoever asks asyncio for the running loop is answered from here, and asyncio is not told.

    Python 3.11 makes a system call whenever its own is set or asked for. Code in C that asks by
    itself is told that no loop is running, and fails.
    """
    global _asyncio_is_told  # noqa: PLW0603
    assert _running is None
    answers = {
        (asyncio, "get_running_loop"): _running_loop,
        (events, "get_running_loop"): _running_loop,
        (events, "_get_event_loop"): _running_loop,
        (events, "get_event_loop"): _running_loop,
        (events, "_get_running_loop"): _running_loop_or_none,
        (asyncio, "current_task"): _current_task,
        (asyncio.tasks, "current_task"): _current_task,
    }
    with ExitStack() as patched:
        for (module, name), answer in answers.items():
            if hasattr(module, name):
                patched.enter_context(mock.patch.object(module, name, answer))
        _asyncio_is_told = False
        try:
            yield
        finally:
            _run_as(None)
            _asyncio_is_told = True


class Trace:
    """A hash of everything that happened; with ``keep`` the lines themselves.

    Unless ``hashed`` events are counted only: to write and to hash them costs some 2 % of a run.
    """

    def __init__(self, *, keep: bool = False, hashed: bool = True) -> None:
        self.hashed = hashed or keep
        self._hash = hashlib.blake2b(digest_size=16)
        self._kept: list[str] | None = [] if keep else None
        self._unhashed: list[str] = []
        self.events = 0

    def add(self, now: float, what: str) -> None:
        self.events += 1
        if self.hashed:
            unhashed = self._unhashed
            unhashed.append(f"{now:.9f} {what}\n")
            if len(unhashed) >= HASHED_TOGETHER:
                self._hash_all()

    def _hash_all(self) -> None:
        lines, self._unhashed = self._unhashed, []
        self._hash.update("".join(lines).encode())
        if self._kept is not None:
            self._kept += lines

    def tell(self, line: str) -> None:
        """Add a line that is for readers only: it is in no hash."""
        if self._kept is not None:
            self._hash_all()
            self._kept.append(line)

    @property
    def lines(self) -> list[str]:
        """Of a trace that is kept."""
        self._hash_all()
        return self._kept or []

    @property
    def digest(self) -> str:
        """Empty where nothing is hashed."""
        self._hash_all()
        return self._hash.hexdigest() if self.hashed else ""


class Scheduler:
    """Global simulated seconds in ``now``; events in order of time, then of their making."""

    def __init__(self, trace: Trace) -> None:
        self.now = 0.0
        self.trace = trace
        self.runnable: deque[SimLoop] = deque()
        self._heap: list[tuple[float, int, Callable[..., None], Any]] = []
        self._sequence = 0
        self.turns = 0

    def at(self, when: float, call: Callable[..., None], argument: Any = None) -> None:
        """Call ``call(argument)`` at global time ``when``."""
        self._sequence = sequence = self._sequence + 1
        now = self.now
        heappush(self._heap, (when if when > now else now, sequence, call, argument))

    def after(self, delay: float, call: Callable[..., None], argument: Any = None) -> None:
        self.at(self.now + delay, call, argument)

    def run_until(self, end: float) -> None:
        """Let everything happen that is due before ``end``, then be there."""
        heap, runnable = self._heap, self.runnable
        while True:
            if runnable:
                turns = 0
                while runnable:
                    turns += 1
                    if turns > TURNS_AT_ONE_TIME_MAX:
                        raise SpinningError(f"{runnable[0].name} does not wait")
                    runnable.popleft().turn()
                self.turns += turns
            if not heap or heap[0][0] > end:
                break
            self.now, _, call, argument = heappop(heap)
            call(argument)
        self.now = max(self.now, end)
        _run_as(None)

    def close(self) -> None:
        self._heap.clear()
        self.runnable.clear()


class Handle(list[Any]):
    """What ``call_soon`` and ``call_at`` return: callback, arguments, when.

    A list, because it is made and taken apart without a call in Python.
    """

    __slots__ = ()

    def cancel(self) -> None:
        self[0] = None
        self[1] = ()

    def cancelled(self) -> bool:
        return self[0] is None

    def when(self) -> float:
        return self[2]  # type: ignore[no-any-return]


class SimLoop(asyncio.AbstractEventLoop):
    """The event loop of one process. ``time()`` is the monotonic clock of its machine.

    A loop that is ``dead`` never runs anything again: the process was killed, and neither its
    ``finally`` blocks nor its callbacks happen. While ``paused`` everything waits (SIGSTOP).
    """

    def __init__(
        self, scheduler: Scheduler, name: str, rate: float = 1.0, offset: float = 0.0
    ) -> None:
        self.name = name
        self.dead = False
        self.paused = False
        self._still = False  # dead or paused
        self.problems: list[str] = []
        self._scheduler = scheduler
        self._rate = rate
        self._offset = offset
        self._ready: deque[list[Any]] = deque()
        self._queued = False
        self.create_future = partial(asyncio.Future, loop=self)

    # -- time

    def time(self) -> float:
        return self._scheduler.now * self._rate + self._offset

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        # Futures and tasks give a context, and have no use for what is returned.
        entry = Handle((callback, args)) if context is None else [callback, args]
        self._ready.append(entry)
        if not self._queued and not self._still:
            self._queued = True
            self._scheduler.runnable.append(self)
        return entry

    call_soon_threadsafe = call_soon

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        now = self._scheduler.now * self._rate + self._offset
        return self.call_at(now + delay, callback, *args)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        handle = Handle((callback, args, when))
        rate, offset = self._rate, self._offset
        at = (when - offset) / rate
        # Never early by a rounding error: a timer that finds itself early would spin.
        while at * rate + offset < when:
            at += 1e-9
        scheduler = self._scheduler  # as its ``at``, without the call
        scheduler._sequence = sequence = scheduler._sequence + 1
        now = scheduler.now
        heappush(scheduler._heap, (at if at > now else now, sequence, self._due, handle))
        return handle

    def _due(self, handle: Handle) -> None:
        if handle[0] is not None:
            self._ready.append(handle)
            if not self._queued:
                self._wake()

    def _wake(self) -> None:
        if not self._still:
            self._queued = True
            self._scheduler.runnable.append(self)

    def turn(self) -> None:
        """Run what is ready now, as one turn of an asyncio loop does."""
        self._queued = False
        if self._still:
            return
        if _running is not self:
            _run_as(self)
        ready = self._ready
        left = len(ready)
        while left:
            left -= 1
            entry = ready.popleft()
            callback = entry[0]
            if callback is None:
                continue
            try:
                callback(*entry[1])
            except BaseException as error:
                if not self.dead:  # else it was killed in the middle of this call
                    if not isinstance(error, Exception):
                        raise
                    self._problem(f"a callback raised {error!r}", error)
            if self.dead:
                return
        if ready and not self._queued:
            self._wake()

    def pause(self) -> None:
        self.paused = self._still = True

    def resume(self) -> None:
        self.paused, self._still = False, self.dead
        if self._ready and not self._queued:
            self._wake()

    def kill(self) -> None:
        # What is ready stays: a task that never began would complain when it is forgotten.
        self.dead = self._still = True

    # -- what asyncio asks of a loop

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> Any:
        return asyncio.Task(coro, loop=self, name=name or "task")

    get_debug = bool  # False; each new future asks, and this costs no call in Python

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if not self.dead:
            error = context.get("exception")
            self._problem(f"{context.get('message')}: {error!r}", error)

    def _problem(self, text: str, error: BaseException | None) -> None:
        where = ""
        if error is not None and error.__traceback__ is not None:
            last = error.__traceback__
            while last.tb_next is not None:
                last = last.tb_next
            code = last.tb_frame.f_code
            where = f" ({code.co_filename.rpartition('/')[2]}:{last.tb_lineno})"
        self.problems.append(f"{self.name}: {text}{where}")

    def start(self, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run ``coro`` as this process's main task."""
        before = _running
        _run_as(self)
        try:
            return self.create_task(coro, name="main")
        finally:
            _run_as(before)


def _known_tasks() -> Iterable[asyncio.Task[Any]]:
    """Of all loops. Python 3.12 renamed it."""
    tasks: Any = asyncio.tasks
    return tasks._scheduled_tasks if hasattr(tasks, "_scheduled_tasks") else tasks._all_tasks


def bury(loops: Iterable[SimLoop]) -> None:
    """The end of a simulation: close what still waits, so that nothing runs when memory is
    freed."""
    waiting: dict[Any, list[asyncio.Task[Any]]] = {}
    for task in tuple(_known_tasks()):
        if not task.done():
            waiting.setdefault(task.get_loop(), []).append(task)
    for loop in loops:
        loop.kill()
        _run_as(loop)
        for task in waiting.get(loop, ()):
            _close(task)
    _run_as(None)


def _close(task: asyncio.Task[Any]) -> None:
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    for _ in range(100):
        try:
            task.get_coro().close()  # type: ignore[union-attr]
        except RuntimeError:  # it awaits in its own ``finally``: throw again
            continue
        break
