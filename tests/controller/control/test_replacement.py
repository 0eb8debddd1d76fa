"""Lost brokers: what is rebuilt, where, in which order, and when nothing is to be done."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pegel_controller.control.replacement import MOVES_PER_RECEIVER_MAX
from pegel_controller.metadata.image import RESOURCE_BROKER
from pegel_controller.rpc import messages as m
from tests.controller.control.harness import Harness
from tests.controller.control.test_reassignment import take_over

TIMEOUT = 60.0


def cluster(racks: str = "-----", timeout_ms: int = int(TIMEOUT * 1000), seed: int = 1) -> Harness:
    """One broker for each letter, which names its rack."""
    h = Harness(seed)
    for broker, rack in enumerate(racks, 1):
        h.start(broker, rack=None if rack == "-" else rack)
    h.configure("replica.replacement.timeout.ms", str(timeout_ms))
    return h


def wait(h: Harness, seconds: float, *, catch_up: bool = True) -> None:
    """Time passes in steps of half a second; live brokers beat, and followers catch up."""
    for _ in range(int(seconds * 2)):
        h.now += 0.5
        h.drain_handovers()
        if catch_up:
            for name, topic in sorted(h.image.topics_by_name.items()):
                for number, state in enumerate(topic.partitions):
                    live = {x for x in state.replicas if h.controller.tip.eligible(x)}
                    if state.leader != -1 and live - set(state.isr):
                        h.alter(sorted(live | set(state.isr)), name, number)
        h.commit(h.controller.tick(h.now))


def loads(h: Harness) -> dict[int, int]:
    found = dict.fromkeys((b for b, s in h.image.brokers.items() if not s.fenced), 0)
    for topic in h.image.topics_by_name.values():
        for state in topic.partitions:
            for broker in state.replicas:
                found[broker] = found.get(broker, 0) + 1
    return found


def test_a_broker_that_comes_back_in_time_moves_nothing() -> None:
    h = cluster()
    h.create("t", 20, 3)
    before = {n: p.replicas for n, p in enumerate(h.image.topics_by_name["t"].partitions)}
    h.kill(2)
    wait(h, TIMEOUT - 2)
    assert not h.controller.tip.moving
    h.start(2)
    wait(h, TIMEOUT + 10)
    assert before == {n: p.replicas for n, p in enumerate(h.image.topics_by_name["t"].partitions)}


def test_replicas_of_a_lost_broker_are_rebuilt_and_the_balance_is_kept() -> None:
    h = cluster()
    h.create("t", 30, 3, min_insync_replicas="2")
    h.kill(2)
    wait(h, TIMEOUT + 40)
    partitions = h.image.topics_by_name["t"].partitions
    assert all(2 not in p.replicas and len(p.isr) == 3 for p in partitions)
    found = loads(h)
    assert max(found.values()) - min(found.values()) <= 1, found
    leaders = [p.preferred_leader for p in partitions]
    counts = [leaders.count(b) for b in (1, 3, 4, 5)]
    assert max(counts) - min(counts) <= 3


def test_a_replica_that_comes_back_late_goes_only_when_the_new_one_is_in_sync() -> None:
    h = cluster()
    h.create("t", 1, 3)
    lost = h.partition().replicas[1]
    h.kill(lost)
    wait(h, TIMEOUT + 2, catch_up=False)
    assert h.partition().removing == (lost,)
    (added,) = h.partition().adding
    h.start(lost)
    wait(h, 10, catch_up=False)
    assert lost in h.partition().replicas
    h.alter((*h.partition().isr, added))
    assert lost not in h.partition().replicas
    assert not h.partition().reassigning


def test_the_most_endangered_go_first_and_few_at_a_time() -> None:
    h = cluster("-" * 6)
    h.configure("replica.replacement.moves.max", "3")
    h.create("t", 40, 3, min_insync_replicas="2")
    partitions = h.image.topics_by_name["t"].partitions
    single = [n for n, p in enumerate(partitions) if 2 in p.replicas][-3:]
    for number in single:
        state = h.partition("t", number)
        if state.leader == 2:
            h.elect_away(number)
        state = h.partition("t", number)
        h.alter((state.leader,), "t", number)
    h.kill(2)
    wait(h, TIMEOUT + 1, catch_up=False)
    moving = {number for _, number in h.controller.tip.moving}
    assert moving == set(single)
    for _ in range(40):
        wait(h, 1)
        adding = [
            b for key in h.controller.tip.moving for b in h.controller.tip.partition(key).adding
        ]
        assert len(adding) <= 3
        assert all(adding.count(b) <= MOVES_PER_RECEIVER_MAX for b in adding)
    assert all(2 not in p.replicas for p in h.image.topics_by_name["t"].partitions)


def test_racks_stay_apart_where_that_is_possible() -> None:
    h = cluster("aabbcc")
    h.create("t", 24, 3)
    h.kill(1)
    wait(h, TIMEOUT + 40)
    racks = {b: s.rack for b, s in h.image.brokers.items()}
    for state in h.image.topics_by_name["t"].partitions:
        assert len({racks[b] for b in state.replicas}) == 3


def test_without_a_spare_broker_nothing_moves_until_one_comes() -> None:
    h = cluster("---")
    h.create("t", 4, 3)
    h.kill(3)
    wait(h, TIMEOUT + 20)
    assert not h.controller.tip.moving
    h.start(4)
    wait(h, 20)
    assert all(set(p.isr) == {1, 2, 4} for p in h.image.topics_by_name["t"].partitions)


def test_partitions_without_a_leader_wait_for_a_replica() -> None:
    h = cluster("----")
    h.create("t", 4, 1)
    h.kill(2)
    wait(h, TIMEOUT + 10)
    assert not h.controller.tip.moving
    assert any(
        p.leader == -1 and p.replicas == (2,) for p in h.image.topics_by_name["t"].partitions
    )


def test_never_is_minus_one_and_an_unregistered_broker_is_lost_at_once() -> None:
    h = cluster(timeout_ms=-1)
    h.create("t", 10, 3)
    h.kill(2)
    wait(h, 3 * TIMEOUT)
    assert not h.controller.tip.moving
    h.configure("replica.replacement.timeout.ms", "600000")
    h.commit(h.controller.unregister_broker(h.now, m.UnregisterBrokerRequest(2)))
    wait(h, 20)
    assert all(2 not in p.replicas for p in h.image.topics_by_name["t"].partitions)


def test_a_target_that_dies_on_the_way_is_replaced_as_well() -> None:
    h = cluster()
    h.create("t", 1, 3)
    first, second, third = h.partition().replicas
    spare, other = (b for b in range(1, 6) if b not in (first, second, third))
    assert h.move((first, second, spare)) == 0
    h.kill(spare)
    wait(h, TIMEOUT + 10)
    assert h.partition().replicas == (first, second, other)
    assert not h.partition().reassigning


def test_a_new_active_controller_gives_the_time_again_and_then_goes_on() -> None:
    h = cluster()
    h.create("t", 10, 3)
    h.kill(2)
    wait(h, TIMEOUT - 5)
    take_over(h)
    wait(h, TIMEOUT - 5)
    assert not h.controller.tip.moving
    wait(h, 5 + 2, catch_up=False)
    assert h.controller.tip.moving
    take_over(h)
    wait(h, TIMEOUT + 30)
    assert all(2 not in p.replicas for p in h.image.topics_by_name["t"].partitions)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    brokers=st.integers(4, 8),
    partitions=st.integers(1, 30),
    factor=st.integers(2, 3),
)
def test_any_cluster_heals_evenly(seed: int, brokers: int, partitions: int, factor: int) -> None:
    h = cluster("-" * brokers, timeout_ms=2000, seed=seed)
    h.create("t", partitions, factor)
    before = loads(h)
    h.kill(h.random.randint(1, brokers))
    wait(h, 40)
    assert all(len(p.isr) == factor for p in h.image.topics_by_name["t"].partitions)
    found = loads(h)
    spread = max(before.values()) - min(before.values())
    assert max(found.values()) - min(found.values()) <= max(1, spread)


@pytest.mark.parametrize("value", ["-2", "soon"])
def test_bad_timeouts_are_refused(value: str) -> None:
    h = cluster()
    change = m.ConfigOperation("replica.replacement.timeout.ms", 0, value)
    request = m.AlterConfigsRequest((m.ConfigResource(RESOURCE_BROKER, "", (change,)),))
    result = h.controller.alter_configs(h.now, request)
    assert not result.records
