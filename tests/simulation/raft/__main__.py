"""Simulate many histories of the Raft core; one line of figures, or how to repeat what failed.

``python -m tests.simulation.raft --seeds 10000 [--first 0] [--without lost,crash] [--digest]``
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.raft.faults import CHOICES
from tests.simulation.raft.simulator import run


def again(seed: int, without: Sequence[str] = ()) -> str:
    """The command that repeats one history."""
    taken_out = f" --without {','.join(without)}" if without else ""
    return f"python -m tests.simulation.raft --seeds 1 --first {seed}{taken_out}"


def fails(seed: int, without: Sequence[str]) -> str | None:
    try:
        run(seed, without=without)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def shrink(seed: int, without: Sequence[str]) -> list[str]:
    """Take out each fault without which the seed still fails; what is left is needed."""
    kept = list(without)
    for name in CHOICES:
        if name not in kept and fails(seed, [*kept, name]):
            kept.append(name)
    return kept


def chunk(seeds: Sequence[int], without: Sequence[str]) -> tuple[Counter[str], dict[int, str]]:
    figures: Counter[str] = Counter()
    failed: dict[int, str] = {}
    for seed in seeds:
        try:
            simulator = run(seed, without=without)
        except Exception as error:
            failed[seed] = f"{type(error).__name__}: {error}"
            continue
        figures.update(simulator.figures)
        figures["milliseconds"] += int(simulator.now * 1000)
    return figures, failed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.raft", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--without", default="", help="faults to leave out, with commas between")
    parser.add_argument("--digest", action="store_true", help="a digest of each history instead")
    parser.add_argument("--processes", type=int, default=None)
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    without = [name for name in options.without.split(",") if name]
    if unknown := sorted(set(without) - set(CHOICES)):
        parser.error(f"no such fault: {', '.join(unknown)}; there are {', '.join(CHOICES)}")
    if options.digest:
        print("\n".join(run(seed, trace=True, without=without).digest() for seed in seeds))
        return 0
    started, figures, failed = time.perf_counter(), Counter[str](), dict[int, str]()
    chunks = [seeds[at : at + 50] for at in range(0, len(seeds), 50)]
    with ProcessPoolExecutor(options.processes) as pool:
        for part, bad in pool.map(chunk, chunks, [without] * len(chunks)):
            figures.update(part)
            failed.update(bad)
    seconds, simulated = time.perf_counter() - started, figures.pop("milliseconds", 0) / 1000
    counts = ", ".join(f"{figures[name]:,} {name}" for name in sorted(figures))
    print(
        f"{len(seeds):,} seeds, {len(failed)} violations: {counts}; "
        f"{simulated:,.0f} s simulated in {seconds:.1f} s"
    )
    for seed, error in sorted(failed.items())[:10]:
        print(f"seed {seed}: {error}\n  repeat: {again(seed, shrink(seed, without))}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
