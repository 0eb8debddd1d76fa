"""Rebuilding what a lost broker held: which replicas, where, and how many at a time.

A broker that is fenced for `replica.replacement.timeout.ms` is taken for lost, and one that was
unregistered with replicas on it at once. The time is the active controller's own: after a take-over
every broker gets all of it again. A cluster that was down as a whole must not take those that start
last for lost, and nobody can tell that from the log. The rebuilding itself is an ordinary
reassignment, so a broker that comes back late keeps its replicas until the new ones are in sync,
and deletes them then.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pegel_controller.config import BROKER_CONFIGS, broker_value
from pegel_controller.control import reassignment
from pegel_controller.control.handover import Handovers
from pegel_controller.control.tip import PartitionKey, Tip
from pegel_controller.control.topics import TopicError
from pegel_controller.metadata.image import NO_LEADER, PartitionState
from pegel_controller.metadata.records import Record

NEVER = float("inf")
TIMEOUT_KEY = "replica.replacement.timeout.ms"
MOVES_KEY = "replica.replacement.moves.max"
# One receiver must not become the bottleneck of all of them.
MOVES_PER_RECEIVER_MAX = 4


class Replacements:
    """Soft state: since when each absent broker that holds replicas is gone."""

    def __init__(self) -> None:
        self._gone_since: dict[int, float] = {}

    def clear(self) -> None:
        self._gone_since.clear()

    def plan(self, now: float, tip: Tip, handovers: Handovers) -> list[Record]:
        """Begin as many rebuilds as there is room for; applied to the tip."""
        known, brokers = self._gone_since, tip.image.brokers
        self._gone_since = {
            b: known.get(b, now) if b in brokers else float("-inf")
            for b in sorted(tip.absent)
            if tip.partitions_of(b)
        }
        timeout = _timeout(tip)
        lost = {b for b, since in self._gone_since.items() if now >= since + timeout}
        if not lost:
            return []
        return _rebuild(tip, handovers, lost, _number(tip, MOVES_KEY))

    def next_deadline(self, tip: Tip) -> float:
        """When the next broker will be taken for lost, as far as that is known."""
        timeout = _timeout(tip)
        return min((since + timeout for since in self._gone_since.values()), default=NEVER)


def _number(tip: Tip, key: str) -> int:
    value = broker_value(tip.image, BROKER_CONFIGS[key], tip.static)
    assert isinstance(value, int)
    return value


def _timeout(tip: Tip) -> float:
    milliseconds = _number(tip, TIMEOUT_KEY)
    return NEVER if milliseconds < 0 else milliseconds / 1000


def _rebuild(tip: Tip, handovers: Handovers, lost: set[int], moves_max: int) -> list[Record]:
    """All that is lost is planned for, and the most endangered begin."""
    receiving: Counter[int] = Counter()
    for key in tip.moving:
        receiving.update(tip.partition(key).adding)
    room = moves_max - receiving.total()
    if room <= 0:
        return []
    slots = [
        Slot(key, old.target, place, _able(tip, old, lost))
        for key in endangered(tip, lost)
        for old in [tip.partition(key)]
        for place, replica in enumerate(old.target)
        if replica in lost
    ]
    brokers = tip.image.brokers
    load = {b: len(tip.partitions_of(b)) for b, state in brokers.items() if state.eligible}
    targets: dict[PartitionKey, list[int]] = {}
    for slot, broker in zip(slots, spread(slots, load), strict=True):
        target = targets.setdefault(slot.key, list(slot.target))
        if broker is None or room <= 0 or receiving[broker] >= MOVES_PER_RECEIVER_MAX:
            continue
        if broker not in target:
            target[slot.place] = broker
            receiving[broker] += 1
            room -= 1
    records: list[Record] = []
    for key, chosen in targets.items():
        try:
            records += reassignment.alter(tip, handovers, key, tuple(chosen), reason="replaced")
        except TopicError:
            continue  # no fit broker; whoever asks for the cluster's health is told
    return records


def _able(tip: Tip, old: PartitionState, lost: set[int]) -> tuple[int, ...]:
    """Who could take a lost replica's place: those whose racks have none yet, if there are any."""
    brokers = tip.image.brokers
    able = [b for b, s in sorted(brokers.items()) if s.eligible and b not in old.replicas]
    racks = {brokers[r].rack for r in old.target if r in brokers and r not in lost}
    apart = [b for b in able if brokers[b].rack is None or brokers[b].rack not in racks]
    return tuple(apart or able)


@dataclass(frozen=True, slots=True)
class Slot:
    """One lost replica: its place in the target, and the brokers that could take it.

    A replacement takes the same place in the order of preference, so that leaderships are spread
    as they were.
    """

    key: PartitionKey
    target: tuple[int, ...]
    place: int
    able: tuple[int, ...]


def spread(slots: Sequence[Slot], load: Mapping[int, int]) -> list[int | None]:
    """A broker for each slot, so that replicas are as even as they can be; None where nobody can.

    Greedy first, preferred leaders before the others, so that these are spread too. Then, while
    somebody has two more than another, a chain of slots that each pass to the next broker is
    looked for (an augmenting path): without one no better plan exists.
    """
    total = dict(load)
    chosen: list[int | None] = [None] * len(slots)
    holds: dict[int, list[int]] = {broker: [] for broker in load}
    for number in sorted(range(len(slots)), key=lambda n: slots[n].place):
        able = (b for b in slots[number].able if b in total)
        broker = chosen[number] = min(able, key=lambda b: (total[b], b), default=None)
        if broker is not None:
            total[broker] += 1
            holds[broker].append(number)
    for giver in sorted(holds, key=lambda b: (-total[b], b)):
        while holds[giver] and (chain := _chain(slots, chosen, holds, total, giver)):
            for number, receiver in chain:
                before = chosen[number]
                assert before is not None
                holds[before].remove(number)
                holds[receiver].append(number)
                chosen[number] = receiver
            total[giver] -= 1
            total[chain[0][1]] += 1
    return chosen


def _chain(
    slots: Sequence[Slot],
    chosen: Sequence[int | None],
    holds: Mapping[int, Sequence[int]],
    total: Mapping[int, int],
    giver: int,
) -> list[tuple[int, int]]:
    """(slot, its new broker), last receiver first; empty where nothing gets more even."""
    came_by: dict[int, int | None] = {giver: None}
    queue = deque([giver])
    while queue:
        broker = queue.popleft()
        if total[broker] <= total[giver] - 2:
            chain = []
            while (number := came_by[broker]) is not None:
                chain.append((number, broker))
                before = chosen[number]
                assert before is not None
                broker = before
            return chain
        for number in holds[broker]:
            for able in slots[number].able:
                if able in total and able not in came_by:
                    came_by[able] = number
                    queue.append(able)
    return []


def endangered(tip: Tip, lost: Iterable[int]) -> list[PartitionKey]:
    """Partitions that are to have a replica on a lost broker: fewest in sync first.

    One without a leader is left out: there is nothing to copy from until a replica comes back.
    """
    found: dict[PartitionKey, tuple[int, int]] = {}
    for broker in sorted(lost):
        for key in tip.partitions_of(broker):
            state = tip.partition(key)
            if state.leader != NO_LEADER and broker in state.target:
                min_isr, _ = tip.policy(key[0])
                found[key] = (len(state.isr), len(state.isr) - min_isr)
    return sorted(found, key=lambda key: (found[key], key))
