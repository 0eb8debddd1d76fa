"""The planner: what holds for any cluster, and what it says of small ones."""

from __future__ import annotations

import random
import re
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegel.balance.model import BrokerLoad, PartitionLoad, Plan, PlanError
from pegel.balance.planner import BYTES_SLACK, plan
from pegel.types import TopicPartition


def partition(number: int, *replicas: int, size: int = 1) -> PartitionLoad:
    return PartitionLoad(TopicPartition("t", number), replicas, size)


@st.composite
def clusters(draw: st.DrawFn, racks: bool = True) -> tuple[list[BrokerLoad], list[PartitionLoad]]:
    count = draw(st.integers(1, 9))
    rack_count = draw(st.integers(1, 4)) if racks else 0
    rng = random.Random(draw(st.integers(0, 2**32)))
    dead = {n for n in range(count) if rng.random() < 0.1} if draw(st.booleans()) else set()
    brokers = [
        BrokerLoad(n, f"r{rng.randrange(rack_count)}" if rack_count else None, n not in dead)
        for n in range(count)
    ]
    crowded = range(draw(st.integers(1, count)))
    factor = draw(st.integers(1, len(crowded)))
    mixed = draw(st.booleans())
    partitions = [
        partition(
            n,
            *rng.sample(crowded, rng.randint(1, factor) if mixed else factor),
            size=rng.choice((0, 1, 5, 100, rng.randrange(10_000))),
        )
        for n in range(draw(st.integers(0, 40)))
    ]
    return brokers, partitions


def applied(found: Plan, partitions: list[PartitionLoad]) -> list[PartitionLoad]:
    after = {move.partition: move.after for move in found.moves}
    return [
        PartitionLoad(p.partition, after.get(p.partition, p.replicas), p.size_bytes)
        for p in partitions
    ]


def rack_count(p: PartitionLoad, brokers: list[BrokerLoad]) -> int:
    racks = {b.node_id: b.rack or str(b.node_id) for b in brokers}
    return len({racks[r] for r in p.replicas})


@settings(max_examples=300, deadline=None)
@given(cluster=clusters())
def test_any_plan_is_sound(cluster: tuple[list[BrokerLoad], list[PartitionLoad]]) -> None:
    brokers, partitions = cluster
    live = {b.node_id for b in brokers if b.live}
    found = plan(brokers, partitions)
    old = {p.partition: p for p in partitions}
    for move in found.moves:
        assert move.before == old[move.partition].replicas
        assert len(move.after) == len(set(move.after)) == len(move.before)
        assert move.before != move.after
        assert set(move.added) <= live
        assert set(move.before) <= live or not move.added, "what is not whole is not moved"
        assert move.reasons
    for before, after in zip(partitions, applied(found, partitions), strict=True):
        assert rack_count(after, brokers) >= rack_count(before, brokers)
    again = plan(brokers, applied(found, partitions))
    assert all(not move.added for move in again.moves), "it is done when it says so"
    assert found.after == again.before


@settings(max_examples=300, deadline=None)
@given(cluster=clusters(racks=False))
def test_without_racks_counts_and_leaders_get_within_one(
    cluster: tuple[list[BrokerLoad], list[PartitionLoad]],
) -> None:
    brokers, partitions = cluster
    brokers = [BrokerLoad(b.node_id) for b in brokers]
    found = plan(brokers, partitions, bytes_tolerance=1e9)
    replicas = [share.replicas for share in found.after.values()]
    assert max(replicas) - min(replicas) <= 1
    if len({len(p.replicas) for p in partitions}) == 1:
        leaders = [share.leaders for share in found.after.values()]
        assert max(leaders) - min(leaders) <= 1
    # No more replicas are copied than brokers have too many.
    ceiling = -(-sum(replicas) // len(replicas))
    surplus = sum(max(0, share.replicas - ceiling) for share in found.before.values())
    floor = sum(replicas) // len(replicas)
    deficit = sum(max(0, floor - share.replicas) for share in found.before.values())
    assert sum(len(move.added) for move in found.moves) == max(surplus, deficit)


@settings(max_examples=200, deadline=None)
@given(cluster=clusters(), balance=st.booleans(), seed=st.integers(0, 1000))
def test_a_drained_broker_is_empty_or_the_plan_is_refused(
    cluster: tuple[list[BrokerLoad], list[PartitionLoad]], balance: bool, seed: int
) -> None:
    brokers, partitions = cluster
    leaving = random.Random(seed).choice(brokers).node_id
    left = [b for b in brokers if b.live and b.node_id != leaving]
    cramped = any(leaving in p.replicas and len(p.replicas) > len(left) for p in partitions)
    if cramped:
        with pytest.raises(PlanError, match="start another broker first"):
            plan(brokers, partitions, leaving=[leaving], balance=balance)
        return
    found = plan(brokers, partitions, leaving=[leaving], balance=balance)
    assert found.after[leaving].replicas == 0
    if not balance:
        assert all(leaving in move.before for move in found.moves)


def test_the_reason_of_each_move_is_said() -> None:
    brokers = [BrokerLoad(1), BrokerLoad(2), BrokerLoad(3)]
    found = plan(brokers, [partition(n, 1, 2) for n in range(3)])
    said = [reason for move in found.moves for reason in move.reasons]
    assert "broker 1 holds 3 replicas, broker 3 0" in said
    assert all(re.match(r"broker \d (holds|leads) \d", reason) for reason in said), said
    assert [share.replicas for share in found.after.values()] == [2, 2, 2]
    assert [share.leaders for share in found.after.values()] == [1, 1, 1]
    racks = [BrokerLoad(1, "a"), BrokerLoad(2, "a"), BrokerLoad(3, "b")]
    (move,) = plan(racks, [partition(0, 1, 2)]).moves
    assert move.after in {(1, 3), (3, 1)}
    assert move.reasons[0] == "rack a held two of its replicas"
    (move,) = plan(brokers, [partition(0, 1, 2)], leaving=[1]).moves
    assert move.reasons[0] == "broker 1 is to be empty"


def test_large_partitions_are_exchanged_for_small_ones() -> None:
    partitions = [partition(n, 1, size=100 << 20) for n in range(4)]
    partitions += [partition(4 + n, 2, size=10 << 20) for n in range(4)]
    found = plan([BrokerLoad(1), BrokerLoad(2)], partitions)
    assert [share.replicas for share in found.after.values()] == [4, 4]
    sizes = [share.size_bytes for share in found.after.values()]
    assert max(sizes) <= 1.2 * sum(sizes) / 2


def test_bytes_are_not_copied_where_all_hold_little() -> None:
    """A cluster under load was asked to even out a megabyte, again and again."""
    partitions = [partition(n, 1, size=BYTES_SLACK // 4) for n in range(4)]
    partitions += [partition(4 + n, 2, size=0) for n in range(4)]
    brokers = [BrokerLoad(1), BrokerLoad(2)]
    assert not any(move.before != move.after for move in plan(brokers, partitions).moves)
    assert plan(brokers, partitions, bytes_slack=BYTES_SLACK // 4).moves


def test_unknown_brokers_and_too_few_of_them_are_refused_with_what_would_do() -> None:
    brokers = [BrokerLoad(1), BrokerLoad(2), BrokerLoad(3)]
    with pytest.raises(PlanError, match="there is no broker 7; there are 1, 2, 3"):
        plan(brokers, [], leaving=[7])
    with pytest.raises(PlanError, match="'t' has 3 replicas and only 2 live brokers"):
        plan(brokers, [partition(0, 1, 2, 3)], leaving=[3])


def test_many_brokers_take_moments() -> None:
    """A twentieth of the size that is promised to take seconds."""

    def seconds(brokers: int, partitions: int) -> float:
        rng = random.Random(1)
        found = [partition(n, *rng.sample(range(brokers), 3), size=n) for n in range(partitions)]
        began = time.process_time()
        plan([BrokerLoad(b, f"r{b % 5}") for b in range(brokers + 1)], found)
        return time.process_time() - began

    assert seconds(50, 5_000) < 5.0
