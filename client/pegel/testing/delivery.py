"""Judges what producers were promised against what consumers got (after Jepsen's kafka workload).

Values are unique. A history is a list of sends with their outcome, of reads while the cluster ran,
and of the log as it was read at the very end. Findings are sentences, sorted by kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

Place = tuple[str, int]  # topic and partition


@dataclass(slots=True)
class Sent:
    """One value. ``order`` counts the sends of one producer to one partition.

    ``offset``: where it was acknowledged, None while it was not (it may be there or not).
    ``durable``: the promise was acks=all; ``once``: the producer was idempotent.
    """

    value: bytes
    producer: str
    place: Place
    order: int
    durable: bool = True
    once: bool = True
    acknowledged: bool = False
    offset: int | None = None


OUT_OF_REACH = 2**63 - 1  # as the start of a log: whatever was read of it is older


@dataclass(slots=True)
class History:
    """What the clients of one run saw."""

    sent: dict[bytes, Sent] = field(default_factory=dict)
    # By reader and place: (offset, value) in the order of reading; a list for each start.
    reads: dict[tuple[str, Place], list[list[tuple[int, bytes]]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    # The log at the end, from its start; ``log_starts`` are the offsets of those starts.
    final: dict[Place, list[tuple[int, bytes]]] = field(default_factory=dict)
    log_starts: dict[Place, int] = field(default_factory=dict)
    # Of one consumer group: offsets that some member read, the highest acknowledged commit, and
    # what the group has in the end.
    group_reads: dict[Place, set[int]] = field(default_factory=lambda: defaultdict(set))
    group_commits: dict[Place, int] = field(default_factory=dict)
    group_final: dict[Place, int] = field(default_factory=dict)
    # Places whose topic was deleted while it was used: nothing is promised of them.
    given_up: set[str] = field(default_factory=set)

    def send(self, sent: Sent) -> Sent:
        assert sent.value not in self.sent, "values are unique"
        self.sent[sent.value] = sent
        return sent

    def leave_out(self, places: Iterable[Place]) -> None:
        """Do not judge what is in these logs at the end: nobody can read them."""
        left_out = set(places)
        for place in left_out:
            self.log_starts[place] = OUT_OF_REACH
        for sent in self.sent.values():
            if sent.place in left_out and (sent.offset is None or sent.offset < 0):
                sent.durable = False


@dataclass(slots=True)
class Verdict:
    """Findings by kind; a kind without findings is absent."""

    findings: dict[str, list[str]] = field(default_factory=dict)
    sent: int = 0
    acknowledged: int = 0
    read: int = 0

    def add(self, kind: str, text: str) -> None:
        self.findings.setdefault(kind, []).append(text)

    @property
    def lines(self) -> list[str]:
        return [f"{kind}: {text}" for kind in sorted(self.findings) for text in self.findings[kind]]


def judge(history: History) -> Verdict:
    """Everything that contradicts a promise."""
    verdict = Verdict(sent=len(history.sent))
    logs = {place: dict(log) for place, log in history.final.items()}
    for place, log in history.final.items():
        if place[0] not in history.given_up:
            _check_log(history, verdict, place, log)
    values: dict[tuple[Place, int], bytes] = {}
    for sent in history.sent.values():
        if sent.acknowledged:
            verdict.acknowledged += 1
        if sent.place[0] in history.given_up or not sent.durable or not sent.acknowledged:
            continue
        _check_acknowledged(history, verdict, sent, logs.get(sent.place, {}))
        if sent.offset is not None and sent.offset >= 0:
            values[sent.place, sent.offset] = sent.value
    for (reader, place), parts in sorted(history.reads.items()):
        if place[0] in history.given_up:
            continue
        for read in parts:
            verdict.read += len(read)
            _check_read(history, verdict, reader, place, read, logs.get(place, {}), values)
    for place, committed in sorted(history.group_final.items()):
        _check_group(history, verdict, place, committed)
    return verdict


def _check_group(history: History, verdict: Verdict, place: Place, committed: int) -> None:
    """At least once: nothing before the group's offset was left out, and no commit is undone."""
    where = f"{place[0]}-{place[1]}"
    start = history.log_starts.get(place, 0)
    missed = [o for o in range(start, committed) if o not in history.group_reads[place]]
    if missed:
        verdict.add("left out", f"{where}: committed {committed}, nobody read {missed[:5]}")
    if committed < history.group_commits.get(place, 0):
        verdict.add(
            "commit undone",
            f"{where}: {history.group_commits[place]} was committed, now {committed}",
        )


def _check_log(
    history: History, verdict: Verdict, place: Place, log: list[tuple[int, bytes]]
) -> None:
    where = f"{place[0]}-{place[1]}"
    seen: dict[bytes, int] = {}
    last: dict[str, tuple[int, bytes]] = {}
    expected = history.log_starts.get(place, 0)
    for offset, value in log:
        if offset != expected:
            verdict.add("hole", f"{where} goes from offset {expected - 1} to {offset}")
        expected = offset + 1
        sent = history.sent.get(value)
        if sent is None or sent.place != place:
            verdict.add("phantom", f"{where}@{offset} holds {value!r}, which was not sent there")
            continue
        if sent.once and value in seen:
            verdict.add("doubled", f"{where}: {value!r} is at {seen[value]} and at {offset}")
        seen.setdefault(value, offset)
        if sent.once:
            order, before = last.get(sent.producer, (-1, b""))
            if sent.order < order:
                verdict.add("reordered", f"{where}@{offset}: {value!r} comes after {before!r}")
            last[sent.producer] = max((order, before), (sent.order, value))


def _check_acknowledged(
    history: History, verdict: Verdict, sent: Sent, log: dict[int, bytes]
) -> None:
    where = f"{sent.place[0]}-{sent.place[1]}"
    if sent.offset is None or sent.offset < 0:
        if sent.value not in log.values():
            verdict.add("lost", f"{where}: {sent.value!r}, acknowledged, is nowhere")
        return
    if sent.offset < history.log_starts.get(sent.place, 0):
        return  # retention
    found = log.get(sent.offset)
    if found is None:
        verdict.add("lost", f"{where}@{sent.offset}: {sent.value!r}, acknowledged, is not there")
    elif found != sent.value:
        kind = "lost" if sent.value not in log.values() else "moved"
        verdict.add(kind, f"{where}@{sent.offset}: {sent.value!r}, acknowledged, became {found!r}")


def _check_read(
    history: History,
    verdict: Verdict,
    reader: str,
    place: Place,
    read: list[tuple[int, bytes]],
    log: dict[int, bytes],
    values: dict[tuple[Place, int], bytes],
) -> None:
    where = f"{reader} in {place[0]}-{place[1]}"
    before: int | None = None
    for offset, value in read:
        if before is not None and offset != before + 1:
            kind = "skipped" if offset > before else "went back"
            verdict.add(kind, f"{where}: from offset {before} to {offset}")
        before = offset
        if value not in history.sent:
            verdict.add("phantom", f"{where}@{offset} read {value!r}, which nobody sent")
        known = values.setdefault((place, offset), value)
        if known != value:
            verdict.add("two values", f"{where}@{offset}: {known!r} and {value!r}")
        if offset >= history.log_starts.get(place, 0) and log.get(offset) != value:
            verdict.add(
                "read and gone", f"{where}@{offset}: {value!r} was read, now {log.get(offset)!r}"
            )
