"""Hostile frames for so many seconds: one line of figures, or the command that repeats a failure.

``python -m tests.fuzz --seconds 60 [--target broker] [--seed 0]``; a seed is one life of a target.
Where Atheris is installed, half of the time is for inputs that are guided by coverage.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from tests.fuzz import guided
from tests.fuzz.campaign import FRAMES_OF_A_LIFE, Figures, FuzzError, run_life, shrink
from tests.fuzz.targets import TARGETS

# How often each gets its turn.
TURNS = ("broker", "controller", "broker", "client", "broker", "http", "controller", "client")


def again(target: str, seed: int, fed: range | None = None) -> str:
    """The command that repeats a life, or the part of it that is enough."""
    command = f"python -m tests.fuzz --target {target} --seed {seed} --lives 1"
    return command if fed is None else f"{command} --frames {fed.start}-{fed.stop - 1}"


def life(turn: tuple[str, int, range | None]) -> tuple[str, int, Figures | None, str]:
    """The figures, or what failed and how to repeat the fewest frames that fail."""
    target, seed, fed = turn
    try:
        frames = FRAMES_OF_A_LIFE if fed is None else fed.stop
        return target, seed, run_life(target, seed, frames, fed), ""
    except Exception as error:
        failure = error if isinstance(error, FuzzError) else FuzzError(str(error))
        fewest = shrink(target, seed, failure) if fed is None else fed
        text = f"{type(error).__name__}: {error}\n  {len(fewest):,} frames are enough"
        return target, seed, None, f"{text}\n  repeat: {again(target, seed, fewest)}"


def frames_of(text: str) -> range:
    """``FIRST-LAST``. Raises ValueError."""
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--lives", type=int, default=1 << 40, help="at most so many")
    parser.add_argument("--target", choices=sorted(TARGETS), default=None)
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--frames", type=frames_of, metavar="FIRST-LAST", help="feed only these")
    parser.add_argument("--processes", type=int, default=None)
    parser.add_argument("--unguided", action="store_true", help="without Atheris")
    options = parser.parse_args()
    with_guide = guided.is_there() and not options.unguided and options.lives == 1 << 40
    if with_guide:
        options.seconds /= 2
    turns = (options.target,) if options.target else TURNS
    seeds = itertools.count(options.seed)
    total, failed = Figures(), 0
    started = time.perf_counter()
    left = options.lives
    with ProcessPoolExecutor(options.processes) as pool:
        while left > 0 and (failed == 0) and time.perf_counter() - started < options.seconds:
            batch = [(turn, next(seeds), options.frames) for turn in turns][:left]
            left -= len(batch)
            for target, seed, figures, error in pool.map(life, batch):
                if figures is None:
                    failed += 1
                    print(f"{target} {seed}: {error}", flush=True)
                else:
                    total.add(figures)
    seconds = time.perf_counter() - started
    print(f"{failed} failures: {total}; {seconds:.0f} s, {FRAMES_OF_A_LIFE:,} frames a life")
    if with_guide:
        failed += guide((options.target,) if options.target else guided.TARGETS, options.seconds)
    return 1 if failed else 0


def guide(targets: tuple[str, ...], seconds: float) -> int:
    """Each target for its share of the time, two at once; how many failed."""
    side_by_side = min(os.cpu_count() or 1, len(targets))
    share = seconds * side_by_side / len(targets)
    with ThreadPoolExecutor(side_by_side) as pool:
        done = list(pool.map(lambda target: guided.run(target, share), targets))
    print("\n".join(map(str, done)))
    return sum(bool(figures.failure) for figures in done)


if __name__ == "__main__":
    sys.exit(main())
