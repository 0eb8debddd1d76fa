"""Rack-aware placement: leaders and replicas spread evenly, racks apart."""

from collections.abc import Sequence
from random import Random

from pegel_controller.metadata.image import BrokerState


def place(
    brokers: Sequence[BrokerState], partitions: int, replication_factor: int, random: Random
) -> list[tuple[int, ...]]:
    """Replicas of each partition, preferred leader first. Eligible brokers lead, fenced last."""
    live = _interleave([b for b in brokers if b.eligible], random)
    fenced = _interleave([b for b in brokers if not b.eligible], random)
    assert live
    assert replication_factor <= len(live) + len(fenced)
    start = random.randrange(len(live))
    placed = []
    for partition in range(partitions):
        turn, position = divmod(partition, len(live))
        first = (start + position) % len(live)
        # The shift varies the followers of a leader from turn to turn.
        others = live[first + 1 :] + live[:first]
        shift = turn % max(1, len(others))
        others = others[shift:] + others[:shift] + fenced
        placed.append(_choose(live[first], others, replication_factor))
    return placed


def _choose(first: BrokerState, others: Sequence[BrokerState], count: int) -> tuple[int, ...]:
    chosen, racks, left = [first.node_id], {first.rack}, []
    for broker in others:
        if len(chosen) == count:
            return tuple(chosen)
        if broker.rack is None or broker.rack not in racks:
            chosen.append(broker.node_id)
            racks.add(broker.rack)
        else:
            left.append(broker.node_id)
    return tuple((chosen + left)[:count])


def _interleave(brokers: Sequence[BrokerState], random: Random) -> list[BrokerState]:
    racks: dict[str, list[BrokerState]] = {}
    for broker in sorted(brokers, key=lambda b: b.node_id):
        racks.setdefault(broker.rack or "", []).append(broker)
    for members in racks.values():
        random.shuffle(members)
    order: list[BrokerState] = []
    longest = max((len(m) for m in racks.values()), default=0)
    for row in range(longest):
        order.extend(racks[rack][row] for rack in sorted(racks) if row < len(racks[rack]))
    return order
