"""The planner: even shares of replicas, leaders and bytes, with racks apart and few moves.

Pure. In this order, each step keeping what those before it have reached:

1. replicas leave the brokers that are to be empty;
2. partitions whose replicas share a rack without need are spread over more;
3. replica counts get within one of each other, by moving no more replicas than needed;
4. bytes get within ``bytes_tolerance`` of the mean, or ``bytes_slack`` where that is more, by
   exchanging large for small partitions;
5. preferred leaders get within one of each other, as far as the replicas allow (``leaders``).

Partitions with a replica on a broker that does not live are left alone but for step 1: they are
not at full strength, and the controller's replacement of lost brokers looks after them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain

from pegel.balance.leaders import spread_leaders
from pegel.balance.model import BrokerLoad, Move, PartitionLoad, Plan, PlanError, shares
from pegel.balance.placing import Placing

# Exchanges looked at for each broker that holds too many bytes; a plan must take seconds.
EXCHANGES_PER_BROKER_MAX = 20
PASSES_MAX = 20
# A small cluster under load is never even to the byte, and nothing is gained where it is made so.
BYTES_SLACK = 64 << 20


def plan(
    brokers: Sequence[BrokerLoad],
    partitions: Sequence[PartitionLoad],
    *,
    leaving: Collection[int] = (),
    balance: bool = True,
    bytes_tolerance: float = 0.2,
    bytes_slack: int = BYTES_SLACK,
) -> Plan:
    """Moves that empty ``leaving`` brokers and, with ``balance``, even out the others.

    Args:
        bytes_tolerance: how far a broker's bytes may be from the mean, as a share of it.
        bytes_slack: how far they may be from it in any case; less is not worth a copy.

    Raises:
        PlanError: a broker is unknown, or too few would be left.
    """
    gone = set(leaving)
    unknown = gone - {b.node_id for b in brokers}
    if unknown:
        known = ", ".join(str(b.node_id) for b in sorted(brokers, key=lambda b: b.node_id))
        raise PlanError(f"there is no broker {min(unknown)}; there are {known}")
    state = Placing(brokers, partitions, gone)
    _check_room(state, partitions, gone)
    _evacuate(state, gone)
    # An exchange may open a way that was barred before, so until nothing changes any more.
    moved = -1
    for _ in range(PASSES_MAX if balance else 0):
        if state.moved == moved:
            break
        moved = state.moved
        _part_racks(state)
        _even_counts(state)
        _even_bytes(state, bytes_tolerance, bytes_slack)
    spread_leaders(state, everywhere=balance)
    moves = [
        Move(p.partition, p.replicas, tuple(state.replicas[n]), p.size_bytes, tuple(reasons))
        for n, reasons in sorted(state.reasons.items())
        for p in [partitions[n]]
        if p.replicas != tuple(state.replicas[n])
    ]
    after = [
        PartitionLoad(p.partition, tuple(state.replicas[n]), p.size_bytes)
        for n, p in enumerate(partitions)
    ]
    ids = [b.node_id for b in brokers]
    return Plan(
        tuple(sorted(moves, key=lambda move: move.partition)),
        shares(ids, partitions),
        shares(ids, after),
    )


def _check_room(state: Placing, partitions: Sequence[PartitionLoad], leaving: set[int]) -> None:
    """Every partition must find as many brokers as it has replicas."""
    if not leaving:
        return
    left = len(state.staying)
    cramped = {
        p.partition.topic: len(p.replicas)
        for p in partitions
        if len(p.replicas) > left and leaving & set(p.replicas)
    }
    if cramped:
        topic, factor = max(cramped.items(), key=lambda item: (item[1], item[0]))
        who = ", ".join(map(str, sorted(leaving)))
        others = f" ({len(cramped)} such topics)" if len(cramped) > 1 else ""
        raise PlanError(
            f"broker {who} cannot be emptied: {topic!r} has {factor} replicas{others} and only "
            f"{left} live brokers would be left; start another broker first, or give the topic "
            "fewer replicas"
        )


def _evacuate(state: Placing, leaving: set[int]) -> None:
    for number, replicas in enumerate(state.replicas):
        for giver in [b for b in replicas if b in leaving]:
            receiver = _receiver(state, number, giver)
            state.move(number, giver, receiver, f"broker {giver} is to be empty")


def _receiver(state: Placing, number: int, giver: int) -> int:
    """The least loaded broker without this partition; one in a rack of its own goes first."""
    replicas, fallback = state.replicas[number], -1
    # As many racks as there can be: looking further would find no better one.
    best = min(len(replicas), len(state.racks) or len(replicas))
    for broker in state.least_loaded():
        if broker in replicas:
            continue
        if not state.racks or state.rack_count(number, giver, broker) >= best:
            return broker
        if fallback < 0 or state.rack_count(number, giver, broker) > state.rack_count(
            number, giver, fallback
        ):
            fallback = broker
    assert fallback >= 0  # _check_room has counted
    return fallback


def _part_racks(state: Placing) -> None:
    if len(state.racks) < 2:
        return
    for number, replicas in enumerate(state.replicas):
        possible = min(len(replicas), len(state.racks))
        while state.rack_count(number) < possible and state.whole(number):
            seen: dict[object, int] = {}
            for broker in replicas:
                seen[state.rack[broker]] = seen.get(state.rack[broker], 0) + 1
            giver = next(b for b in reversed(replicas) if seen[state.rack[b]] > 1)
            rack = state.rack[giver]
            receiver = next(
                (
                    b
                    for b in state.least_loaded()
                    if b not in replicas and state.rack[b] not in seen
                ),
                None,
            )
            if receiver is None:
                break
            state.move(number, giver, receiver, f"rack {rack} held two of its replicas")


def _even_counts(state: Placing) -> None:
    """Until nobody has two replicas more than another that could take one."""
    givers = [(-count, broker) for broker, count in state.count.items()]
    heapify(givers)
    by_size: dict[int, list[int]] = {}
    share = state.total_count / max(1, len(state.staying))
    mean = state.total_size / max(1, len(state.staying))
    sizes = state.partitions
    while givers:
        negative, giver = heappop(givers)
        if -negative != state.count[giver]:
            continue
        if -negative < state.fewest() + 2:
            return  # nobody has more than this one
        if giver not in by_size:
            by_size[giver] = sorted(state.holds[giver], key=lambda n: (sizes[n].size_bytes, n))
        if _give_one(state, giver, by_size[giver], share, mean):
            heappush(givers, (-state.count[giver], giver))


def _give_one(
    state: Placing, giver: int, numbers: Sequence[int], share: float, mean: float
) -> bool:
    """Pass one replica to the least loaded broker that can take one.

    It should be as large as the ones that the receiver is short of are on average: then bytes get
    even as well, and nothing is copied twice.
    """
    ours, sizes = state.count[giver], state.partitions
    for receiver in state.least_loaded():
        theirs = state.count[receiver]
        if theirs > ours - 2:
            return False
        wanted = (mean - state.size[receiver]) / max(1.0, share - theirs)
        at = bisect_left(numbers, wanted, key=lambda n: sizes[n].size_bytes)
        for number in chain(numbers[at:], reversed(numbers[:at])):
            if (
                number in state.holds[giver]
                and number not in state.holds[receiver]
                and state.whole(number)
                and state.keeps_racks(number, giver, receiver)
            ):
                reason = f"broker {giver} holds {ours} replicas, broker {receiver} {theirs}"
                state.move(number, giver, receiver, reason)
                return True
    return False


def _even_bytes(state: Placing, tolerance: float, slack: int) -> None:
    if not state.total_size or len(state.staying) < 2:
        return
    mean = state.total_size / len(state.staying)
    off = max(mean * tolerance, slack)
    high, low = mean + off, mean - off
    for _ in range(PASSES_MAX):
        if max(state.size.values()) <= high and min(state.size.values()) >= low:
            return
        changed = False
        for giver in sorted(state.staying, key=lambda b: (-state.size[b], b)):
            for _ in range(EXCHANGES_PER_BROKER_MAX):
                receiver = min(state.staying, key=lambda b: (state.size[b], b))
                uneven = state.size[giver] > high or state.size[receiver] < low
                if not uneven or state.size[giver] <= mean or not _exchange(state, giver, receiver):
                    break
                changed = True
        if not changed:
            return


def _exchange(state: Placing, giver: int, receiver: int) -> bool:
    """One large partition for a small one, so that both get nearer to each other."""
    gap = state.size[giver] - state.size[receiver]
    sizes = state.partitions
    small = sorted(
        (sizes[n].size_bytes, n) for n in state.holds[receiver] if n not in state.holds[giver]
    )
    if not small:
        return False
    best: tuple[float, int, int] | None = None
    for number in state.holds[giver]:
        if number in state.holds[receiver] or not state.whole(number):
            continue
        # The difference that would make both equal is half of the gap.
        wanted = sizes[number].size_bytes - gap / 2
        at = bisect_left(small, (max(wanted, 0), -1))
        for size, other in small[max(0, at - 1) : at + 1]:
            difference = sizes[number].size_bytes - size
            if 0 < difference < gap:
                candidate = (abs(gap / 2 - difference), number, other)
                if best is None or candidate < best:
                    best = candidate
    if best is None or best[0] > gap * 0.4:
        return False  # too little gained for what would be copied
    _, number, other = best
    if not (
        state.whole(other)
        and state.keeps_racks(number, giver, receiver)
        and state.keeps_racks(other, receiver, giver)
    ):
        return False
    reason = f"broker {giver} holds {_mb(state.size[giver])}, broker {receiver} "
    reason += _mb(state.size[receiver])
    state.move(number, giver, receiver, reason)
    state.move(other, receiver, giver, reason)
    return True


def _mb(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"
