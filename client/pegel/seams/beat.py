"""When what a node does at fixed intervals is due: all of it at the same instants."""

from __future__ import annotations

# Seconds. The heartbeat of a broker's session by default, and what else an idle node does.
BEAT = 0.400
# Seconds. uvloop rounds a timer to the nearest millisecond: one that is armed for a deadline itself
# may fire before it, find nothing due, and be armed again and again until it is.
EARLY_MAX = 0.0005


def next_beat(now: float, interval: float) -> float:
    """The next multiple of ``interval`` after ``now``, in seconds of the same clock.

    A node whose timers share their instants wakes up once for all of them, and waking is what
    idling costs: some 0.2 ms of cold caches each time, whatever it is for. A beat that is no
    further away than a timer may fire early counts as this one.
    """
    return ((now + EARLY_MAX) // interval + 1) * interval


def last_beat(now: float, longest: float, interval: float = BEAT) -> float:
    """When a wait of at most ``longest`` seconds ends best: at its last beat, where it has one."""
    latest = now + longest
    beat = latest // interval * interval
    return beat if beat > now else latest
