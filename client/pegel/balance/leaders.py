"""Who is the preferred leader of what: as even as the replicas allow, without copying a byte."""

from __future__ import annotations

from collections import deque

from pegel.balance.placing import Placing

# Searches for a chain of exchanges after the plain ones; each may look at every partition.
CHAINS_MAX = 2_000


def spread_leaders(state: Placing, *, everywhere: bool) -> None:
    """Reorder replicas so that preferred leaders are even; without ``everywhere`` only of those
    partitions that the plan moves anyway.

    Each partition may be led by any of its replicas that stay. First whoever leads too many gives
    to the one of its partners that leads fewest. What is left needs chains (a leads less, b as
    many as before, c more), found by breadth-first search: where there is none, no order of the
    replicas is more even.
    """
    leads: dict[int, dict[int, None]] = {b: {} for b in state.staying}
    for number, replicas in enumerate(state.replicas):
        if replicas[0] in leads:
            leads[replicas[0]][number] = None
    movable = set(range(len(state.replicas)) if everywhere else state.reasons)
    while _uneven(leads) and _exchange_once(state, leads, movable):
        pass
    final: set[int] = set()
    for _ in range(CHAINS_MAX):
        open_ = [b for b in state.staying if b not in final]
        if not open_:
            return
        most = max(len(leads[b]) for b in open_)
        if most - min(len(leads[b]) for b in state.staying) < 2:
            return
        sources = [b for b in open_ if len(leads[b]) == most]
        reached = _chain(state, leads, movable, sources, most - 2)
        final |= reached


def _uneven(leads: dict[int, dict[int, None]]) -> bool:
    counts = [len(led) for led in leads.values()]
    return bool(counts) and max(counts) - min(counts) > 1


def _exchange_once(state: Placing, leads: dict[int, dict[int, None]], movable: set[int]) -> bool:
    changed = False
    for broker in sorted(leads, key=lambda b: (-len(leads[b]), b)):
        for number in list(leads[broker]):
            if number not in movable:
                continue
            others = [b for b in state.replicas[number] if b in leads]
            fewest = min(others, key=lambda b: (len(leads[b]), b))
            if len(leads[fewest]) <= len(leads[broker]) - 2:
                _lead(state, leads, number, broker, fewest)
                changed = True
    return changed


def _lead(
    state: Placing, leads: dict[int, dict[int, None]], number: int, giver: int, receiver: int
) -> None:
    reason = (
        f"broker {giver} leads {len(leads[giver])} partitions, broker {receiver} "
        f"{len(leads[receiver])}"
    )
    del leads[giver][number]
    leads[receiver][number] = None
    replicas = state.replicas[number]
    replicas.remove(receiver)
    replicas.insert(0, receiver)
    state.reasons.setdefault(number, []).append(reason)


def _chain(
    state: Placing,
    leads: dict[int, dict[int, None]],
    movable: set[int],
    sources: list[int],
    enough: int,
) -> set[int]:
    """Pass one leadership along from a source to who leads at most ``enough``.

    Returns what was reached where nobody such was: those brokers are as even as can be.
    """
    came_by: dict[int, tuple[int, int] | None] = dict.fromkeys(sources)
    queue = deque(sources)
    while queue:
        broker = queue.popleft()
        if len(leads[broker]) <= enough:
            steps = []
            step = came_by[broker]
            while step is not None:
                giver, number = step
                steps.append((number, giver, broker))
                broker, step = giver, came_by[giver]
            for number, giver, receiver in steps:
                _lead(state, leads, number, giver, receiver)
            return set()
        for number in leads[broker]:
            if number in movable:
                for other in state.replicas[number]:
                    if other in leads and other not in came_by:
                        came_by[other] = (broker, number)
                        queue.append(other)
    return set(came_by)
