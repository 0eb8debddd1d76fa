"""Who gets which partition: Kafka's four assignors, as pure functions of what the members said.

One member of a group, its leader, decides for all. Members may be written in any language, so the
names and the bytes around these functions are Kafka's own (``group_protocol``); the result has to
be right whoever the others are: every partition of a subscribed topic goes to exactly one member
that subscribed to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from pegel.consumer.group_protocol import (
    NO_GENERATION,
    GroupProtocolError,
    MemberSubscription,
    decode_generation,
    decode_sticky_data,
    encode_generation,
    encode_sticky_data,
)
from pegel.types import TopicPartition

Assignment = dict[str, list[TopicPartition]]
Members = Mapping[str, MemberSubscription]


class Assignor(NamedTuple):
    """One way to share out partitions.

    Attributes:
        name: by which members agree on it.
        cooperative: members keep what they own while they rejoin (KIP-429).
        assign: partition counts by topic and subscriptions by member id → partitions by member id.
        user_data: what a member tells of what it owned last, in which generation.
    """

    name: str
    cooperative: bool
    assign: Callable[[Mapping[str, int], Members], Assignment]
    user_data: Callable[[Sequence[TopicPartition], int], bytes | None]


def _order(members: Members) -> list[str]:
    """Static members by their instance id first, then the others by member id, as Kafka does.

    A static member that restarts has a new member id, and must keep its place.
    """
    return sorted(members, key=lambda m: (members[m].instance_id is None,
                                          members[m].instance_id or "", m))  # fmt: skip


def assign_range(counts: Mapping[str, int], members: Members) -> Assignment:
    """Topic by topic, a consecutive run of partitions for each member; the first get one more."""
    result: Assignment = {member: [] for member in members}
    order = _order(members)
    for topic in sorted(counts):
        takers = [m for m in order if topic in members[m].topics]
        if not takers:
            continue
        share, more = divmod(counts[topic], len(takers))
        start = 0
        for i, member in enumerate(takers):
            end = start + share + (i < more)
            result[member] += [TopicPartition(topic, p) for p in range(start, end)]
            start = end
    return result


def assign_round_robin(counts: Mapping[str, int], members: Members) -> Assignment:
    """All partitions of all topics in turn, to the next member that subscribed to the topic."""
    result: Assignment = {member: [] for member in members}
    order = _order(members)
    turn = 0
    for topic in sorted(counts):
        if not any(topic in members[m].topics for m in order):
            continue
        for partition in range(counts[topic]):
            while topic not in members[order[turn % len(order)]].topics:
                turn += 1
            result[order[turn % len(order)]].append(TopicPartition(topic, partition))
            turn += 1
    return result


def assign_sticky(counts: Mapping[str, int], members: Members) -> Assignment:
    """As even as the subscriptions allow, and as little moved as that allows (KIP-54, KIP-341)."""
    owned = _claims(counts, members)
    topics = {frozenset(t for t in m.topics if t in counts) for m in members.values()}
    if len(topics) <= 1:
        return _sticky_same_topics(counts, members, owned)
    return _sticky_any_topics(counts, members, owned)


def assign_cooperative_sticky(counts: Mapping[str, int], members: Members) -> Assignment:
    """As sticky; a partition that moves is given to nobody until its owner gave it back (KIP-429).

    The owner sees that it is not assigned any more, stops reading it and joins again; only that
    next round hands it on. So no two members ever read a partition at once.
    """
    result = assign_sticky(counts, members)
    owner_of = {tp: m for m, owned in _claims(counts, members).items() for tp in owned}
    claimed = {tp: m for m in _order(members) for tp in _owned(members[m])[0]}
    for member, partitions in result.items():
        result[member] = [
            tp for tp in partitions if owner_of.get(tp, claimed.get(tp, member)) == member
        ]
    return result


def _owned(member: MemberSubscription) -> tuple[tuple[TopicPartition, ...], int]:
    """What a member had, and since when, from wherever its client writes that."""
    owned, generation, data = member.owned, member.generation, member.user_data
    if data is None or (owned and generation != NO_GENERATION):
        return owned, generation
    if owned:
        if len(data) == 4:
            return owned, decode_generation(data)
        return owned, generation
    try:
        return decode_sticky_data(data)
    except GroupProtocolError:
        return owned, generation


def _claims(counts: Mapping[str, int], members: Members) -> dict[str, list[TopicPartition]]:
    """What each member may keep. Of several owners of one partition the latest has it.

    A member that was away may still claim what was given to another meanwhile; where two claim
    it in the same generation, neither is right.
    """
    best: dict[TopicPartition, tuple[int, str | None]] = {}
    for name in _order(members):
        member = members[name]
        owned, generation = _owned(member)
        for tp in owned:
            if tp.topic not in member.topics or not 0 <= tp.partition < counts.get(tp.topic, 0):
                continue
            before = best.get(tp)
            if before is None or generation > before[0]:
                best[tp] = (generation, name)
            elif generation == before[0] and before[1] != name:
                best[tp] = (generation, None)
    kept: dict[str, list[TopicPartition]] = {name: [] for name in members}
    for tp in sorted(best):
        owner = best[tp][1]
        if owner is not None:
            kept[owner].append(tp)
    return kept


def _all_partitions(counts: Mapping[str, int], members: Members) -> list[TopicPartition]:
    wanted = {topic for member in members.values() for topic in member.topics}
    return [TopicPartition(t, p) for t in sorted(counts) if t in wanted for p in range(counts[t])]


def _sticky_same_topics(
    counts: Mapping[str, int], members: Members, owned: Mapping[str, list[TopicPartition]]
) -> Assignment:
    """Everybody may have everything: shares differ by one at most, so each keeps up to a share."""
    order = _order(members)
    partitions = _all_partitions(counts, members)
    share, more = divmod(len(partitions), len(order))
    result: Assignment = {}
    # Those who own most keep the larger shares, so that less moves.
    for name in sorted(order, key=lambda m: -len(owned[m])):
        room = share
        if len(owned[name]) > share and more:
            room, more = share + 1, more - 1
        result[name] = owned[name][:room]
    taken = {tp for kept in result.values() for tp in kept}
    free = iter([tp for tp in partitions if tp not in taken])
    for name in order:
        missing = share - len(result[name])
        result[name] += [tp for _, tp in zip(range(missing), free, strict=False)]
    for name in order:
        if more and len(result[name]) == share:
            extra = next(free, None)
            if extra is not None:
                result[name].append(extra)
                more -= 1
    assert next(free, None) is None
    return {name: sorted(result[name]) for name in members}


def _sticky_any_topics(
    counts: Mapping[str, int], members: Members, owned: Mapping[str, list[TopicPartition]]
) -> Assignment:
    """Members that want different topics: fill up the smallest, then even out one by one."""
    order = _order(members)
    result: Assignment = {name: list(owned[name]) for name in order}
    taken = {tp for kept in result.values() for tp in kept}
    takers = {t: [m for m in order if t in members[m].topics] for t in counts}
    rank = {name: i for i, name in enumerate(order)}
    free = [tp for tp in _all_partitions(counts, members) if tp not in taken]
    for tp in sorted(free, key=lambda tp: (len(takers[tp.topic]), tp)):
        least = min(takers[tp.topic], key=lambda m: (len(result[m]), rank[m]))
        result[least].append(tp)
    # Each move takes from one that has at least two more: the sum of squares falls, so it ends.
    moved = True
    while moved:
        moved = False
        for giver in sorted(order, key=lambda m: (-len(result[m]), rank[m])):
            for tp in sorted(result[giver], key=lambda tp: (tp in owned[giver], tp)):
                least = min(takers[tp.topic], key=lambda m: (len(result[m]), rank[m]))
                if len(result[giver]) >= len(result[least]) + 2:
                    result[giver].remove(tp)
                    result[least].append(tp)
                    moved = True
    return {name: sorted(result[name]) for name in members}


def _no_data(owned: Sequence[TopicPartition], generation: int) -> bytes | None:
    return None


def _sticky_data(owned: Sequence[TopicPartition], generation: int) -> bytes | None:
    return encode_sticky_data(owned, generation) if owned else None


def _cooperative_data(owned: Sequence[TopicPartition], generation: int) -> bytes | None:
    return encode_generation(generation)


ASSIGNORS: dict[str, Assignor] = {
    a.name: a
    for a in (
        Assignor("range", False, assign_range, _no_data),
        Assignor("roundrobin", False, assign_round_robin, _no_data),
        Assignor("sticky", False, assign_sticky, _sticky_data),
        Assignor("cooperative-sticky", True, assign_cooperative_sticky, _cooperative_data),
    )
}
