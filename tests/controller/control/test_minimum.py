"""Another min.insync.replicas, while a leader that does not know it yet changes its ISR."""

from __future__ import annotations

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_broker.replication.partition import Leader, Partition
from tests.controller.control.harness import Harness


def led(minimum: str = "1") -> tuple[Harness, Partition]:
    """A topic of three replicas, and its leader, who knows the metadata as they are now."""
    h = Harness()
    h.start(1, 2, 3)
    h.configure("min.insync.replicas", minimum)
    h.create("t")
    core = Partition("t", 0, h.partition().leader, lambda *_: True)
    core.update(0.0, h.partition(), 0, 0)
    return h, core


def ask(h: Harness, core: Partition, *isr: int) -> int:
    """Its leader asks for this ISR, by what it knows, and takes the answer."""
    assert isinstance(core.state, Leader)
    core.propose(isr)
    error = h.alter(isr, partition_epoch=core.state.partition_epoch)
    now = h.partition()
    if not error:
        core.on_isr_accepted(1.0, now.leader_epoch, now.partition_epoch, now.isr)
    return error


@pytest.mark.parametrize("of_all_topics", [False, True])
def test_what_was_acknowledged_by_the_minimum_before_a_raise_survives(of_all_topics: bool) -> None:
    h, core = led("1")
    leader, others = core.node_id, {1, 2, 3} - {core.node_id}
    h.configure("min.insync.replicas", "2", "" if of_all_topics else "t")
    assert ask(h, core, leader) == ErrorCode.INVALID_UPDATE_VERSION
    core.on_isr_refused(0, definite=False)
    assert not core.advance(10, min_insync_replicas=1), "the others are still in sync"
    # It learns of the raise and asks again: now it stands still, and they may lead.
    core.update(2.0, h.partition(), 0, 0)
    assert not ask(h, core, leader)
    assert not core.advance(10, min_insync_replicas=2)
    assert set(h.partition().elr) == others
    h.kill(leader)
    assert h.partition().leader in others


def test_a_minimum_that_was_lowered_and_raised_again_is_not_passed_over() -> None:
    """The leader knows a minimum like the one of now, and has yet to pass through the lower one."""
    h, core = led("2")
    h.configure("min.insync.replicas", "1")
    h.configure("min.insync.replicas", "2")
    assert ask(h, core, core.node_id) == ErrorCode.INVALID_UPDATE_VERSION


def test_a_replica_that_joins_by_the_minimum_before_a_raise_is_refused_as_well() -> None:
    """With the answer its leader would know the epoch, and could ask to shrink by it."""
    h, core = led("1")
    assert not ask(h, core, core.node_id)
    h.configure("min.insync.replicas", "2")
    assert ask(h, core, *h.partition().replicas) == ErrorCode.INVALID_UPDATE_VERSION


def test_a_move_to_more_replicas_raises_what_is_needed_and_its_answer_is_not_built_upon() -> None:
    """One of one was needed, now two of three are: in the same entry as the last one's joining."""
    h = Harness()
    h.start(1, 2, 3)
    h.configure("min.insync.replicas", "2")
    h.create("t", factor=1)
    leader = h.partition().leader
    second, third = sorted({1, 2, 3} - {leader})
    h.move((leader, second, third))
    core = Partition("t", 0, leader, lambda *_: True)
    core.update(0.0, h.partition(), 0, 0)
    assert not ask(h, core, leader, second)
    core.update(1.0, h.partition(), 0, 0)
    assert not ask(h, core, leader, second, third)
    assert not h.partition().reassigning
    assert isinstance(core.state, Leader)
    assert core.state.partition_epoch == h.partition().partition_epoch
    assert core.wanted_isr(100.0, 5, 30.0) is None, "both lag, and it does not know that two count"
    core.update(100.0, h.partition(), 0, 0)
    assert core.wanted_isr(200.0, 5, 30.0) == (leader,)
    assert not ask(h, core, leader)
    assert not core.advance(10, min_insync_replicas=2)


def test_only_partitions_that_need_more_than_before_change() -> None:
    h, _ = led("2")
    h.create("single", factor=1)
    h.create("own", min_insync_replicas="1")
    h.create("offline", factor=1)
    single, own = h.partition("single"), h.partition("own")
    history = h.controller.history.next_sequence
    first = h.partition()
    h.configure("min.insync.replicas", "3")
    raised = h.partition()
    assert raised.partition_epoch == first.partition_epoch + 1
    assert (raised.isr, raised.elr, raised.leader_epoch) == (first.isr, (), first.leader_epoch)
    h.configure("min.insync.replicas", "5")
    h.configure("retention.ms", "1000", "t")
    assert h.partition() is raised, "no more than three can be in sync"
    assert h.partition("single") == single
    assert h.partition("own") == own
    events, _ = h.controller.history.after(history - 1)
    assert {event.kind for event in events} == {"config changed"}, "nothing else is to be told"
