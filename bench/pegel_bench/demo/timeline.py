"""The failover as a time line, read from what the nodes logged."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_AT = re.compile(r"\bat_ms=(\d+)")


@dataclass(frozen=True, slots=True)
class Moment:
    """One step; ``at_ms`` in milliseconds since the epoch, None where no log tells."""

    name: str
    meaning: str
    at_ms: int | None


def failover(
    logs: Iterable[str],
    *,
    topic: str,
    partition: int,
    broker: int,
    killed_ms: int,
    acknowledged_ms: int | None,
) -> list[Moment]:
    """The steps between a SIGKILL and the first acknowledgement under the new leader.

    Takes the first event of each kind at or after ``killed_ms``; clocks of one machine agree to a
    millisecond.
    """
    lines = [line for log in logs for line in log.splitlines() if "at_ms=" in line]

    def first(*needles: str) -> int | None:
        times = [
            int(found.group(1))
            for line in lines
            if any(needle in line for needle in needles) and (found := _AT.search(line))
        ]
        return min((t for t in times if t >= killed_ms - 1), default=None)

    return [
        Moment("killed", f"broker {broker} got SIGKILL", killed_ms),
        Moment(
            "noticed",
            "its connections broke",
            first(f"noticed broker={broker} ", f"noticed controller={broker} "),
        ),
        Moment("fenced", "its listener refused: it is gone", first(f"fenced broker={broker} ")),
        Moment(
            "elected",
            f"a new leader of partition {partition} is committed",
            first(f"elected partition={topic}-{partition} "),
        ),
        Moment("acknowledged", "first write by all in-sync replicas since", acknowledged_ms),
    ]
