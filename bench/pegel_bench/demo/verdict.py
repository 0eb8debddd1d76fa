"""Compares what was read with what was sent, file by file and line by line."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class Verdict:
    """Counts of lines over all files; ``wrong_files`` names those that differ in any way."""

    expected: int = 0
    read: int = 0
    lost: int = 0
    doubled: int = 0
    out_of_order: int = 0
    wrong_files: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.doubled or self.out_of_order)


def compare(
    sent: Mapping[bytes, Sequence[bytes]], read: Mapping[bytes, Sequence[bytes]]
) -> Verdict:
    """Judge every key of either side. A line that nobody sent counts as doubled."""
    verdict = Verdict()
    for key in sorted({*sent, *read}):
        expected, got = sent.get(key, ()), read.get(key, ())
        verdict.expected += len(expected)
        verdict.read += len(got)
        if expected == got:
            continue
        verdict.wrong_files.append(key.decode(errors="replace"))
        missing = Counter(expected) - Counter(got)
        surplus = Counter(got) - Counter(expected)
        verdict.lost += missing.total()
        verdict.doubled += surplus.total()
        verdict.out_of_order += _out_of_order(expected, got)
    return verdict


def _out_of_order(expected: Sequence[bytes], got: Sequence[bytes]) -> int:
    """Lines present on both sides that must move for the orders to agree.

    The n-th copy of a line is matched with its n-th copy on the other side; what is not part of
    the longest increasing run of matched positions is out of order.
    """
    positions: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for index, line in enumerate(expected):
        positions[line].append(index)
    matched = [positions[line].popleft() for line in got if positions[line]]
    tails: list[int] = []
    for position in matched:
        at = bisect_left(tails, position)
        tails[at : at + 1] = [position]
    return len(matched) - len(tails)
