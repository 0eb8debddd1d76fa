"""Producers that nobody closed: what they still hold is sent at the end, or its loss is said."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import warnings
import weakref
from collections.abc import Iterable
from concurrent.futures import TimeoutError as NotDone
from contextlib import suppress
from typing import TYPE_CHECKING

from pegel.errors import PegelError

if TYPE_CHECKING:
    from pegel.producer.accumulator import PartitionQueue
    from pegel.producer.sender import Sender

_log = logging.getLogger("pegel.producer")
# Seconds that all producers of a process together may take at its end.
EXIT_TIMEOUT = 5.0

# Producers that are open, the loops that they run on, and the process that made them.
_open: weakref.WeakKeyDictionary[Sender, tuple[asyncio.AbstractEventLoop, int]] = (
    weakref.WeakKeyDictionary()
)
_told: weakref.WeakSet[Sender] = weakref.WeakSet()


def watch(sender: Sender) -> None:
    """Look after what ``sender`` holds until ``forget`` is called. Call it on its event loop."""
    _open[sender] = (asyncio.get_running_loop(), os.getpid())


def forget(sender: Sender) -> None:
    _open.pop(sender, None)


def unacknowledged(queues: Iterable[PartitionQueue]) -> int:
    """Records that are neither acknowledged nor failed."""
    return sum(
        len(batch)
        for queue in queues
        for batch in (*queue.pending, *queue.in_flight)
        if not batch.done
    )


def on_lost(sender: Sender) -> None:
    """Nobody holds the producer any more, and it was not closed."""
    loop, process = _open.get(sender, (None, 0))
    if loop is None or process != os.getpid():
        return
    count = unacknowledged(sender.queues.values())
    warnings.warn(
        f"a producer was not closed, with {count} records not acknowledged: use `with`, or close()",
        ResourceWarning,
        stacklevel=3,
    )
    if loop.is_closed():
        _tell(sender, count)


def _tell(sender: Sender, count: int) -> None:
    """Nothing will send them any more. Told once, also where warnings are off."""
    if count and sender not in _told:
        _told.add(sender)
        _log.error(
            "%d records were not acknowledged when their event loop ended, and may be lost: "
            "await them, or close the producer (and the client) before",
            count,
        )


@atexit.register
def at_exit() -> None:
    """Flush what runs in threads of its own (the synchronous client); tell of the rest."""
    flushing = []
    for sender, (loop, process) in list(_open.items()):
        if process != os.getpid() or not unacknowledged(sender.queues.values()):
            continue
        if loop.is_running() and threading.current_thread() is threading.main_thread():
            flushing.append((sender, asyncio.run_coroutine_threadsafe(sender.flush(), loop)))
        else:
            _tell(sender, unacknowledged(sender.queues.values()))
    deadline = EXIT_TIMEOUT
    for sender, done in flushing:
        with suppress(NotDone, PegelError):
            done.result(deadline)
        deadline = 0.1 if not done.done() else deadline
        _tell(sender, unacknowledged(sender.queues.values()))
