"""Moves of replicas (KIP-455): each rule as a scenario, and a controller lost at every step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_controller.control.controller import Controller
from pegel_controller.metadata.snapshot import decode_snapshot, encode_snapshot
from pegel_controller.rpc.reassignment_messages import (
    AlterReassignmentsRequest,
    ReassignablePartition,
)
from tests.controller.control.harness import Harness


def five(factor: int = 3, **configs: str) -> Harness:
    """Five brokers and a topic whose replicas are 1, 2, 3 in this order."""
    h = Harness()
    h.start(1, 2, 3, 4, 5)
    assert not h.create("t", 1, factor, **configs).error
    h.move(tuple(range(1, factor + 1)))
    finish(h)
    assert h.partition().replicas == tuple(range(1, factor + 1))
    h.drain_handovers()
    return h


def catch_up(h: Harness, topic: str = "t") -> bool:
    """One replica that is not in sync joins the ISR, as its leader asks; False if all are."""
    state = h.partition(topic)
    for replica in state.replicas:
        if replica not in state.isr and h.image.brokers[replica].eligible:
            assert h.alter((*state.isr, replica), topic) == 0
            return True
    return False


def finish(h: Harness, topic: str = "t") -> None:
    """Everybody does what is asked until nothing is left to do."""
    for _ in range(20):
        if not h.partition(topic).reassigning:
            return
        if not catch_up(h, topic):
            h.now += 1.1
            h.commit(h.controller.tick(h.now))
            h.drain_handovers()
    raise AssertionError(f"the move does not end: {h.partition(topic)}")


def test_replicas_are_added_then_caught_up_then_the_old_ones_go() -> None:
    h = five(min_insync_replicas="2")
    before = h.partition()
    assert h.move((1, 4, 5)) == 0
    state = h.partition()
    assert (state.replicas, state.adding, state.removing) == ((1, 4, 5, 2, 3), (4, 5), (2, 3))
    assert (state.isr, state.leader) == (before.isr, before.leader)
    assert state.reason == "reassigned"
    assert catch_up(h)
    assert h.partition().replicas == (1, 4, 5, 2, 3)
    assert catch_up(h)
    state = h.partition()
    assert (state.replicas, state.isr, state.leader) == ((1, 4, 5), (1, 4, 5), 1)
    assert not state.reassigning
    assert state.reason == "moved"
    assert state.leader_epoch == before.leader_epoch


def test_a_leader_that_leaves_resigns_before_another_is_elected() -> None:
    h = five()
    assert h.move((4, 5, 2)) == 0
    while catch_up(h):
        pass
    state = h.partition()
    assert state.leader == 1, "a live leader leads until it has agreed"
    assert state.reassigning
    h.drain_handovers()
    state = h.partition()
    assert (state.replicas, state.leader, state.reassigning) == ((4, 5, 2), 4, False)


def test_another_order_and_fewer_replicas_take_effect_at_once() -> None:
    h = five()
    assert h.move((3, 1, 2)) == 0
    assert h.partition().replicas == (3, 1, 2)
    assert not h.partition().reassigning
    h.drain_handovers()
    assert h.move((1, 2), allow_change=False) == ErrorCode.INVALID_REPLICATION_FACTOR
    assert h.move((1, 2)) == 0
    assert (h.partition().replicas, h.partition().isr) == ((1, 2), (1, 2))


def test_fewer_replicas_wait_for_one_of_the_target_that_is_not_in_sync() -> None:
    h = five(min_insync_replicas="2")
    h.kill(2)
    assert h.move((1, 2)) == 0
    assert h.partition().reassigning
    assert h.partition().isr == (1, 3)
    h.start(2)
    finish(h)
    assert h.partition().isr == (1, 2)


def test_cancel_gives_back_exactly_what_was() -> None:
    h = five()
    assert h.cancel() == ErrorCode.NO_REASSIGNMENT_IN_PROGRESS
    assert h.move((2, 3, 4)) == 0
    assert h.move((4, 5, 3)) == 0, "a move may be changed on the way"
    assert h.partition().original == (1, 2, 3)
    assert h.partition().adding == (4, 5)
    assert h.cancel() == 0
    state = h.partition()
    assert (state.replicas, state.isr, state.leader) == ((1, 2, 3), (1, 2, 3), 1)
    assert not state.reassigning


def test_cancel_after_the_leader_went_over_asks_it_to_resign() -> None:
    h = five()
    assert h.move((4, 5, 3)) == 0
    assert h.alter((*h.partition().isr, 4)) == 0
    h.elect_preferred()
    assert h.partition().leader == 4
    assert h.cancel() == 0
    assert h.partition().leader == 4, "still the live leader's partition"
    h.drain_handovers()
    state = h.partition()
    assert (state.replicas, state.leader, state.reassigning) == ((1, 2, 3), 1, False)


def test_cancel_that_would_lose_data_is_refused() -> None:
    h = five()
    assert h.move((4, 5)) == 0
    assert h.alter((*h.partition().isr, 4)) == 0
    for broker in (1, 2, 3):
        h.kill(broker)
    assert h.partition().isr == (4,)
    assert h.cancel() == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert "in sync are only 4" in h.message
    h.start(1)
    assert h.alter((4, 1)) == 0
    assert h.cancel() == 0


def only_an_added_replica_is_eligible() -> Harness:
    """1 and 2 are to become 3 and 4; 3 led alone, and is gone."""
    h = five(factor=2)
    assert h.move((3, 4)) == 0
    assert h.alter((1, 2, 3)) == 0
    assert h.alter((1, 3)) == 0
    for broker in (1, 3):
        h.kill(broker)
    state = h.partition()
    assert (state.leader, state.isr, state.elr) == (-1, (), (3,))
    return h


def test_cancel_does_not_forget_the_only_replica_that_may_lead() -> None:
    h = only_an_added_replica_is_eligible()
    before = h.partition()
    assert h.cancel() == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert "known to be only on 3, which cannot lead now" in h.message
    assert "bring that back and cancel when one of 1, 2 has caught up" in h.message
    assert h.move((1, 2)) == ErrorCode.INVALID_REPLICA_ASSIGNMENT, "the same by another name"
    h.start(1)
    assert h.cancel() == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert h.partition() is before
    h.start(3)
    assert h.alter((3, 1)) == 0
    assert h.cancel() == 0
    h.drain_handovers()
    assert (h.partition().replicas, h.partition().leader) == ((1, 2), 1)


def test_cancel_does_not_forget_the_last_known_leader() -> None:
    h = only_an_added_replica_is_eligible()
    h.register(3, boot="another")
    state = h.partition()
    assert (state.isr, state.elr, state.last_known_elr) == ((), (), (3,))
    assert h.cancel() == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    h.answer(3, 10)
    h.let_pass(h.controller.options.recovery_timeout + 1, 3)
    assert h.partition().leader == 3


def test_what_an_added_replica_alone_held_can_be_given_up() -> None:
    h = only_an_added_replica_is_eligible()
    h.start(1)
    assert h.cancel() == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert "give it up: order an unclean election, then cancel" in h.message
    h.elect_uncleanly()
    assert h.partition().leader == 1
    assert h.cancel() == 0
    assert (h.partition().replicas, h.partition().isr) == ((1, 2), (1,))


def test_one_eligible_replica_of_those_before_is_enough_to_cancel() -> None:
    h = five(factor=2, min_insync_replicas="2")
    assert h.move((3, 4)) == 0
    assert h.alter((1, 3)) == 0
    for broker in (1, 3):
        h.kill(broker)
    assert set(h.partition().elr) == {1, 3}
    assert h.cancel() == 0
    assert (h.partition().replicas, h.partition().elr) == ((1, 2), (1,))
    h.start(1)
    assert h.partition().leader == 1


def test_a_partition_of_which_nobody_is_known_stays_offline_and_holds_up_no_broker() -> None:
    """Earlier versions could forget all of them."""
    h = only_an_added_replica_is_eligible()
    topic = h.image.topics_by_name["t"]
    forgotten = replace(topic.partitions[0], replicas=(1, 2), elr=(), adding=(), removing=(),
                        original=())  # fmt: skip
    topic = replace(topic, partitions=(forgotten,))
    image = replace(h.image, topics_by_name={"t": topic}, topics_by_id={topic.topic_id: topic})
    h.controller = Controller(Random(7))
    h.controller.on_leadership(h.now, image)
    h.start(1, 3)
    h.kill(1)
    h.start(1)
    h.register(2, boot="another")
    assert h.partition() == forgotten
    h.elect_uncleanly()
    assert (h.partition().leader, h.partition().isr) == (1, (1,))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ((), "empty replica list"),
        ((1, 1), "broker 1 more than once"),
        ((1, 9), "no such broker is registered; registered are 1, 2, 3, 4, 5"),
        ((1, 5), "5 is fenced and cannot take a new replica; live brokers without a replica are 4"),
    ],
)  # fmt: skip
def test_a_bad_plan_is_refused_with_what_would_be_possible(
    target: tuple[int, ...], says: str
) -> None:
    h = five()
    h.kill(5)
    before = h.partition()
    assert h.move(target) == ErrorCode.INVALID_REPLICA_ASSIGNMENT
    assert says in h.message
    assert h.partition() is before


def test_requests_name_each_partition_once_and_only_existing_ones() -> None:
    h = five()
    item = ReassignablePartition("t", 0, (1, 2, 4))
    nowhere = ReassignablePartition("t", 7, (1, 2, 4))
    request = AlterReassignmentsRequest((item, item, nowhere))
    response = h.commit(h.controller.alter_reassignments(h.now, request)).response
    assert [p.error for p in response.partitions] == [
        ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_REQUEST, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
    ]  # fmt: skip
    assert not h.partition().reassigning


def test_a_move_asks_for_no_more_in_sync_replicas_than_before() -> None:
    """One replica, min.insync.replicas 2: writes went on before, they do so on the way."""
    h = five(factor=1, min_insync_replicas="2")
    assert h.move((2, 3)) == 0
    assert h.partition().replication_factor == 1
    assert catch_up(h)
    assert h.partition().replication_factor == 1
    finish(h)
    assert h.partition().replication_factor == 2


def test_a_deleted_topic_moves_no_more() -> None:
    h = five()
    assert h.move((1, 4, 5)) == 0
    h.delete("t")
    assert not h.controller.tip.moving
    h.now += 5
    h.commit(h.controller.tick(h.now))


Step = Callable[[Harness], object]


def _steps(target: tuple[int, ...]) -> list[Step]:
    """A whole move, one committed entry at most each."""

    def advance(h: Harness) -> None:
        h.now += 1.1
        for broker in sorted(h.epochs):
            if not h.image.brokers[broker].fenced:
                h.heartbeat(broker)
        h.commit(h.controller.tick(h.now))

    return [
        lambda h: h.move(target),
        catch_up, catch_up, catch_up,
        advance,
        lambda h: h.drain_handovers(),
        advance,
    ]  # fmt: skip


TARGETS = [
    (1, 4, 5),  # the leader stays
    (4, 5, 2),  # the leader leaves
    (4, 5),  # all but one, and one fewer
    (2, 3),  # fewer
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("committed", [True, False], ids=["after", "before"])
def test_a_controller_lost_at_any_step_is_taken_over_and_the_move_ends(
    target: tuple[int, ...], committed: bool
) -> None:
    """The next controller knows the log alone; with "before" the step's entry was lost with it."""
    for lost_at in range(len(_steps(target))):
        h = five(min_insync_replicas="2")
        for number, step in enumerate(_steps(target)):
            if number != lost_at:
                step(h)
            else:
                if committed:
                    step(h)
                else:
                    with h.uncommitted():
                        step(h)
                take_over(h)
        if not h.partition().reassigning and h.partition().replicas != target:
            assert not committed
            assert lost_at == 0, "only the request itself may be lost; its sender is told"
            assert h.move(target) == 0
        finish(h)
        state = h.partition()
        assert (state.replicas, set(state.isr)) == (target, set(target)), lost_at
        assert state.leader in target


def take_over(h: Harness) -> None:
    """Another controller, from a snapshot of what was committed."""
    image = decode_snapshot(encode_snapshot(h.image))
    h.controller = Controller(Random(7))
    h.controller.on_leadership(h.now, image)


@pytest.mark.parametrize("seed", range(25))
def test_random_moves_under_failures_keep_the_invariants_and_end(seed: int) -> None:
    """Moves, cancels, kills, restarts and take-overs; the harness checks each committed change."""
    h = Harness(seed)
    h.start(1, 2, 3, 4, 5)
    least = h.random.choice([3, 1, 0])  # brokers that live at any time
    for number in range(3):
        h.create(f"t{number}", 1, 3, min_insync_replicas=h.random.choice("123"))
    for _ in range(200):
        name = f"t{h.random.randrange(3)}"
        broker = h.random.randint(1, 5)
        state = h.partition(name)
        match h.random.randrange(8):
            case 0 if broker in h.controller.brokers.sessions:
                if sum(not b.fenced for b in h.image.brokers.values()) > least:
                    h.kill(broker)
            case 1 if h.image.brokers[broker].fenced:
                h.start(broker)
            case 2:
                target = tuple(h.random.sample(range(1, 6), h.random.randint(1, 4)))
                h.move(target, name)
            case 3 if h.random.random() < 0.3:
                h.cancel(name)
            case 4 if h.random.random() < 0.2:
                take_over(h)
            case 5:
                h.now += 0.3
                h.drain_handovers()
                h.commit(h.controller.tick(h.now))
            case _ if state.leader != -1:
                live = [r for r in state.replicas if h.image.brokers[r].eligible]
                h.alter({*state.isr, h.random.choice(live)}, name)
    for broker in range(1, 6):
        if h.image.brokers[broker].fenced:
            h.start(broker)
    for number in range(3):
        finish(h, f"t{number}")
        assert h.partition(f"t{number}").leader in h.partition(f"t{number}").isr
