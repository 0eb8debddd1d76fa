"""Every state of small worlds of Raft, breadth first, with the promises checked in each.

``python -m tests.simulation.raft.model [--large]`` prints one line for each world.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from dataclasses import dataclass, field

from tests.simulation.raft.model.world import Action, Bounds, actions, first_world, step

STATES_MAX = 1_000_000

SMALL = {
    "two elections": Bounds(proposals=0, ordered=True),
    "a leader faster than its disk, and a crash": Bounds(
        term=1, crashes=1, candidates=(1,), slow_disks=True, ordered=True
    ),
    "messages in any order": Bounds(term=1, candidates=(1,)),
}
LARGE = {
    "three elections": Bounds(term=3, proposals=0, ordered=True),
    "two elections and a proposal": Bounds(ordered=True),
    "two elections and a crash": Bounds(proposals=0, crashes=1, ordered=True),
    "two elections, messages in any order": Bounds(proposals=0),
    "a crash, messages in any order": Bounds(term=1, crashes=1, candidates=(1,)),
    "messages twice": Bounds(term=1, proposals=2, duplicates=1, candidates=(1,), ordered=True),
    "messages lost and repeated": Bounds(term=1, heartbeats=1, candidates=(1,), ordered=True),
}


@dataclass(slots=True)
class Result:
    """``trace`` leads to the broken promise, if there is one."""

    states: int = 0
    steps: int = 0
    depth: int = 0
    error: str | None = None
    whole: bool = True  # whether all states were seen
    trace: list[Action] = field(default_factory=list)


def explore(bounds: Bounds, states_max: int = STATES_MAX) -> Result:
    """Breadth first, so that a trace is a shortest one."""
    first = first_world()
    came_from: dict[int, tuple[int, Action]] = {first.key: (0, ())}
    frontier, result = [first], Result(1)
    while frontier:
        following = []
        for world in frontier:
            for action in actions(world, bounds):
                result.steps += 1
                try:
                    after = step(world, action, bounds)
                except Exception as error:  # a broken promise, or an assertion of the core
                    result.error = f"{type(error).__name__}: {error}"
                    key = world.key
                    result.trace = [action]
                    while came_from[key][1]:
                        key, earlier = came_from[key]
                        result.trace.insert(0, earlier)
                    return result
                if after.key not in came_from:
                    came_from[after.key] = world.key, action
                    following.append(after)
                    result.states += 1
                    if result.states >= states_max:
                        result.whole = False
                        return result
        frontier = following
        result.depth += 1
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.raft.model", description=__doc__
    )
    parser.add_argument("--large", action="store_true", help="the larger worlds as well")
    parser.add_argument("--world", choices=sorted(SMALL | LARGE), help="only this one")
    options = parser.parse_args()
    worlds = SMALL | (LARGE if options.large or options.world else {})
    failed = 0
    for name, bounds in worlds.items():
        if options.world not in {None, name}:
            continue
        started = time.perf_counter()
        result = explore(bounds)
        seconds = time.perf_counter() - started
        print(
            f"{name}: {result.states:,} states, {result.steps:,} steps, depth {result.depth}, "
            f"{'no violation' if result.error is None else result.error}"
            f"{'' if result.whole else ' so far: not all states seen'}, {seconds:.1f} s",
            flush=True,
        )
        if result.error is not None:
            failed = 1
            print("  " + " / ".join(" ".join(map(str, action)) for action in result.trace))
            print(f"  repeat: python -m tests.simulation.raft.model --world {shlex.quote(name)}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
