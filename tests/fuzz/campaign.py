"""Lives of a target: each begins anew and takes some thousand frames. A seed is one life."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.fuzz.targets import TARGETS, Target

FRAMES_OF_A_LIFE = 5_000
FRAMES_OF_A_CONNECTION = 20
MEMORY_SPARE_BYTES = 16 << 20
# Memory is measured for one frame of so many: tracing makes Python several times slower.
MEMORY_EVERY = 250
CHECK_EVERY = 500


class FuzzError(AssertionError):
    """The target crashed, hung, grew beyond its limit, or hid an error of its own.

    ``frame``: after which frame of the life that showed, where it showed at once.
    """

    def __init__(self, text: str, frame: int | None = None) -> None:
        super().__init__(text)
        self.frame = frame


@dataclass(slots=True)
class Figures:
    frames: int = 0
    bytes: int = 0
    lives: int = 0
    connections: int = 0
    closed: int = 0  # connections that the target ended
    peak_bytes: int = 0  # the most that one frame took, of those measured
    longest_ms: float = 0.0  # of CPU: the longest that one frame held up the loop
    longest: str = ""
    by_target: Counter[str] = field(default_factory=Counter)

    def add(self, other: Figures) -> None:
        self.frames += other.frames
        self.bytes += other.bytes
        self.lives += other.lives
        self.connections += other.connections
        self.closed += other.closed
        self.peak_bytes = max(self.peak_bytes, other.peak_bytes)
        if other.longest_ms > self.longest_ms:
            self.longest_ms, self.longest = other.longest_ms, other.longest
        self.by_target.update(other.by_target)

    def __str__(self) -> str:
        targets = ", ".join(f"{count:,} {name}" for name, count in sorted(self.by_target.items()))
        return (
            f"{self.frames:,} frames ({targets}), {self.bytes / 1e6:,.0f} MB, {self.lives:,} "
            f"lives, {self.connections:,} connections, {self.closed:,} of them closed by the "
            f"target; one frame took at most {self.peak_bytes / 1e6:.1f} MB and "
            f"{self.longest_ms:.0f} ms of CPU ({self.longest})"
        )


class Errors(logging.Handler):
    """What the code under test calls an error of its own."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
            self.seen.append(f"{record.getMessage()}: {error!r} at {where}")
        else:
            self.seen.append(record.getMessage())


async def live(
    name: str, seed: int, frames: int = FRAMES_OF_A_LIFE, fed: range | None = None
) -> Figures:
    """One life. ``fed``: all frames are drawn, and only these are given to the target.

    Raises FuzzError.
    """
    r = random.Random(f"{name} {seed}")
    figures, errors = Figures(lives=1), Errors()
    loop = asyncio.get_running_loop()
    unhandled: list[str] = []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(repr(context)))

    def hidden() -> str:
        if not errors.seen and not unhandled:
            return ""
        return f"{len(errors.seen)} errors: {errors.seen[:3]}; {unhandled[:3]}"

    logger = logging.getLogger("pegel")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(errors)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    target: Target = TARGETS[name]()
    try:
        await target.start(r)
        # What is drawn does not depend on how long connections live: parts of a life stay the same.
        lengths = random.Random(f"{name} {seed} connections")
        await _feed(target, lengths, frames, figures, fed or range(frames), hidden)
        await target.check()
    except FuzzError:
        raise
    except (AssertionError, TimeoutError) as error:
        raise FuzzError(f"{error!r}; {errors.seen[-3:]}; {unhandled[-3:]}") from error
    finally:
        await target.stop()
        logger.removeHandler(errors)
        logger.setLevel(level)
        logger.propagate = propagate
        loop.set_exception_handler(None)
    if hidden():
        raise FuzzError(hidden())
    figures.by_target[name] = figures.frames
    return figures


async def _feed(
    target: Target,
    lengths: random.Random,
    frames: int,
    figures: Figures,
    fed: range,
    hidden: Callable[[], str],
) -> None:
    left = 0
    for number in range(frames):
        if number not in fed:
            target.draw()
            continue
        if left == 0 or target.closed:
            figures.closed += target.closed and number > 0
            await target.connect()
            figures.connections += 1
            left = lengths.randrange(1, FRAMES_OF_A_CONNECTION)
        data = target.draw()
        left -= 1
        measured = number % MEMORY_EVERY == MEMORY_EVERY - 1
        if measured:
            tracemalloc.start()
        started = time.thread_time()
        target.feed(data)
        await asyncio.sleep(0)
        took = (time.thread_time() - started) * 1000
        if measured:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            figures.peak_bytes = max(figures.peak_bytes, peak)
            if peak > 2 * len(data) + MEMORY_SPARE_BYTES:
                raise FuzzError(f"a frame of {len(data)} bytes took {peak:,}: {data[:100].hex()}")
        elif took > figures.longest_ms:
            figures.longest_ms, figures.longest = took, data[:24].hex()
        figures.frames += 1
        figures.bytes += len(data)
        if hidden():
            raise FuzzError(hidden(), number)
        if number % CHECK_EVERY == CHECK_EVERY - 1:
            await target.check()


def run_life(
    name: str, seed: int, frames: int = FRAMES_OF_A_LIFE, fed: range | None = None
) -> Figures:
    return asyncio.run(live(name, seed, frames, fed))


def shrink(name: str, seed: int, failure: FuzzError, frames: int = FRAMES_OF_A_LIFE) -> range:
    """The fewest last frames, one or four times as many as tried before, that fail alone.

    What was drawn may depend on what the target was told before; then all up to the failure stay.
    """
    end = frames if failure.frame is None else failure.frame + 1
    size = 1
    while size < end:
        window = range(end - size, end)
        try:
            run_life(name, seed, end, window)
        except Exception:
            return window
        size *= 4
    return range(end)
