"""Unclean recovery (KIP-966): nobody is trusted, so that log ends are compared."""

import pytest

from pegel.protocol.errors import ErrorCode
from pegel_controller.control import recovery
from pegel_controller.control.tip import Tip
from pegel_controller.rpc.messages import UnregisterBrokerRequest
from pegel_controller.rpc.recovery_messages import LogEnd
from tests.controller.control.harness import Harness


def without_power(count: int = 1, brokers: int = 3, **config: str) -> Harness:
    """No host of a partition's replicas had power; they are registered again, and not yet live."""
    h = Harness()
    h.start(*range(1, brokers + 1))
    assert not h.create("t", count, brokers, min_insync_replicas="2", **config).error
    for broker in h.partition().replicas:
        h.kill(broker)
    for broker in h.partition().replicas:
        assert not h.register(broker, boot="another").error
    for number in range(count):
        state = h.partition("t", number)
        assert (state.isr, state.elr, state.leader) == ((), (), -1)
        assert state.last_known_elr
    return h


def order(h: Harness) -> tuple[int, ...]:
    """The replicas: the first of the last known, another of them, and one that left before."""
    state = h.partition()
    first, second = state.last_known_elr
    (third,) = {*state.replicas} - {first, second}
    return first, second, third


def wait(h: Harness) -> float:
    return h.controller.options.recovery_timeout


# -- who is asked


def test_live_replicas_of_what_nobody_leads_are_asked_once() -> None:
    h = without_power()
    h.start(4)
    first, second, _ = order(h)
    topic_id = h.image.topics_by_name["t"].topic_id
    wanted = ((topic_id, 0, h.partition().leader_epoch),)
    assert h.heartbeat(first).ends_wanted == wanted
    assert h.heartbeat(first).ends_wanted == wanted, "it has not answered"
    assert h.answer(first, 5) == 1
    assert h.heartbeat(first).ends_wanted == ()
    assert h.heartbeat(second).ends_wanted == wanted
    assert h.heartbeat(4).ends_wanted == (), "it holds no replica"


def test_nobody_is_asked_while_somebody_leads() -> None:
    h = Harness()
    h.start(1, 2, 3)
    assert not h.create("t", 3, 3).error
    assert [h.heartbeat(b).ends_wanted for b in (1, 2, 3)] == [()] * 3


def test_a_broker_that_is_not_to_lead_is_not_asked() -> None:
    h = without_power()
    first = order(h)[0]
    assert h.heartbeat(first, wants_fence=True).ends_wanted == ()
    h.fail_logs(first, 0)
    assert h.heartbeat(first).ends_wanted == ()


def test_what_was_answered_costs_nothing_until_something_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    h = without_power()
    _, second, third = order(h)
    h.answer(second, 5)
    assert h.heartbeat(second).ends_wanted == ()
    with monkeypatch.context() as patched:
        patched.setattr(Tip, "partition", None)  # it would be called to look again
        assert h.heartbeat(second).ends_wanted == ()
    h.heartbeat(third)  # its unfencing is a change
    assert h.heartbeat(second).ends_wanted == ()


def test_what_stays_offline_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    h = without_power()
    first, second, _ = order(h)
    h.answer(second, 5)
    h.let_pass(5, second)
    with monkeypatch.context() as patched:
        patched.setattr(recovery.Recoveries, "_elect", None)  # it would be called to decide
        h.let_pass(60, second)
    h.answer(first, 6)
    h.let_pass(wait(h) + 1, first, second)
    assert h.partition().leader == first


def test_one_heartbeat_asks_for_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "ENDS_PER_HEARTBEAT_MAX", 2)
    h = without_power(count=5)
    assert [h.answer(1, 0) for _ in range(4)] == [2, 2, 1, 0]


# -- who is elected


def test_the_longest_log_leads_and_not_the_last_known() -> None:
    """Seed 301180: the disk of the last known had zeroed what the others hold."""
    h = without_power()
    first, second, third = order(h)
    h.answer(first, 0, -1)
    h.answer(second, 41)
    assert h.partition().leader == -1, "the third is not heard"
    h.answer(third, 40)
    state = h.partition()
    assert (state.leader, state.isr, state.last_known_elr) == (second, (second,), ())
    assert (state.leader_recovery_state, state.reason) == (1, "log ends compared")
    event = h.controller.history.events[-1]
    assert f"broker {second} ends at 41 in epoch 0" in event.detail


def test_who_left_cleanly_and_is_remembered_by_nobody_leads() -> None:
    """Seed 400437: it had left while the others were still enough."""
    h = without_power()
    first, second, third = order(h)
    assert third not in h.partition().last_known_elr
    h.answer(first, 23)
    h.answer(second, 23)
    h.answer(third, 24)
    assert h.partition().leader == third


def test_a_newer_epoch_is_better_than_a_longer_log() -> None:
    h = without_power()
    first, second, third = order(h)
    h.answer(first, 100, 1)
    h.answer(second, 20, 3)
    h.answer(third, 21, 2)
    assert h.partition().leader == second


def test_of_equal_logs_the_first_of_the_replicas_leads() -> None:
    h = without_power()
    replicas = h.partition().replicas
    assert replicas[0] not in h.partition().last_known_elr
    for broker in reversed(replicas):
        h.answer(broker, 7)
    assert h.partition().leader == replicas[0]


def test_each_partition_is_decided_by_its_own_logs() -> None:
    h = without_power(count=2)
    replicas = h.partition().replicas
    assert {*h.partition("t", 1).replicas} == {*replicas}
    for broker in replicas:
        h.answer(broker, 50 + broker, only=0)
    assert h.partition("t", 0).leader == max(replicas)
    assert h.partition("t", 1).leader == -1
    for broker in replicas:
        h.answer(broker, 50 - broker)
    assert h.partition("t", 1).leader == min(replicas)


def test_the_only_replica_leads_unasked() -> None:
    h = Harness()
    h.start(1, 2)
    assert not h.create("t", 1, 1).error
    only = h.partition().leader
    h.kill(only)
    h.start(only, boot="another")
    assert h.partition().leader == only


# -- which answers count


def test_an_answer_of_an_earlier_life_does_not_count() -> None:
    h = without_power()
    first, second, third = order(h)
    h.answer(second, 41)
    earlier = h.epochs[second]
    h.kill(second)
    assert not h.register(second, boot="yet another").error
    h.answer(first, 40)
    h.answer(third, 39)
    assert h.partition().leader == -1
    end = LogEnd(*h.heartbeat(second).ends_wanted[0], 0, 41)
    assert h.report(second, end, broker_epoch=earlier) == ErrorCode.STALE_BROKER_EPOCH
    assert h.partition().leader == -1
    assert not h.report(second, LogEnd(*h.heartbeat(second).ends_wanted[0], 0, 12))
    assert h.partition().leader == first


def test_an_answer_of_another_leader_epoch_does_not_count() -> None:
    """The log may have changed since: somebody led."""
    h = without_power()
    first, second, _ = order(h)
    topic_id, number, epoch = h.heartbeat(first).ends_wanted[0]
    for wrong in (epoch - 1, epoch + 1):
        assert not h.report(first, LogEnd(topic_id, number, wrong, 0, 99))
    assert h.answer(first, 5) == 1
    h.answer(second, 6)
    h.elect_uncleanly()
    assert h.partition().leader == second
    h.kill(second)
    assert h.partition().leader == -1
    assert h.heartbeat(first).ends_wanted == ((topic_id, number, epoch + 2),), "in the same life"


def test_what_is_led_or_gone_by_now_is_passed_over() -> None:
    h = without_power()
    first, second, third = order(h)
    late = LogEnd(*h.heartbeat(first).ends_wanted[0], 0, 99)
    h.heartbeat(second)
    h.elect_uncleanly()
    leader = h.partition().leader
    assert not h.report(first, late)
    assert h.partition().leader == leader
    h.delete("t")
    assert not h.report(first, late)
    h.heartbeat(third)
    assert h.heartbeat(first).ends_wanted == ()


def test_an_end_that_is_told_twice_elects_once() -> None:
    h = without_power()
    first, second, third = order(h)
    h.answer(second, 1)
    h.answer(third, 1)
    wanted = h.heartbeat(first).ends_wanted[0]
    epoch = h.partition().partition_epoch
    assert not h.report(first, LogEnd(*wanted, 0, 9), LogEnd(*wanted, 0, 8))
    assert h.partition().partition_epoch == epoch + 1


def test_another_broker_cannot_answer() -> None:
    h = without_power()
    h.start(4)
    first = order(h)[0]
    end = LogEnd(*h.heartbeat(first).ends_wanted[0], 9, 99)
    assert not h.report(4, end)
    for broker in h.partition().replicas:
        h.answer(broker, 1)
    assert h.partition().leader == h.partition().replicas[0]


def test_a_new_controller_asks_again_and_waits_anew() -> None:
    h = without_power()
    first, second, third = order(h)
    h.answer(first, 5)
    h.answer(second, 6)
    h.let_pass(wait(h) - 1, first, second)
    h.controller.on_leadership_lost()
    h.controller.on_leadership(h.now, h.image)
    for broker in (first, second):
        assert len(h.heartbeat(broker).ends_wanted) == 1
    h.let_pass(2, first, second)
    assert h.partition().leader == -1, "what the one before heard is not known"
    h.answer(first, 5)
    h.answer(second, 6)
    h.answer(third, 4)
    assert h.partition().leader == second


def test_a_live_replica_whose_log_failed_has_no_end() -> None:
    h = without_power()
    first, second, third = order(h)
    h.answer(second, 41)
    h.fail_logs(second, 0)
    h.answer(first, 40)
    assert h.partition().leader == -1
    h.answer(third, 39)
    assert h.partition().leader == first, "neither waited for, nor elected by what it said before"


# -- who is waited for


def test_the_first_of_the_last_known_is_waited_for_for_ever() -> None:
    h = without_power()
    first, second, third = order(h)
    h.answer(second, 41)
    h.answer(third, 41)
    h.let_pass(10 * wait(h), second, third)
    assert h.partition().leader == -1
    h.answer(first, 0, -1)
    assert h.partition().leader in (second, third)


def test_the_others_are_waited_for_for_some_time() -> None:
    """A disk that never comes back must not stop the partition."""
    h = without_power()
    first, second, _ = order(h)
    h.answer(second, 40)
    h.let_pass(5 * wait(h), second)
    h.answer(first, 41)  # the wait begins here, with somebody who could lead
    h.let_pass(wait(h) - 1, first, second)
    assert h.partition().leader == -1
    h.let_pass(2, first, second)
    assert h.partition().leader == first
    assert "is not known" in h.controller.history.events[-1].detail


def test_the_wait_begins_anew_where_the_first_went_away_meanwhile() -> None:
    h = without_power()
    first, second, _ = order(h)
    h.answer(second, 40)
    h.answer(first, 41)
    h.let_pass(wait(h) - 1, first, second)
    h.kill(first)
    h.let_pass(wait(h), second)
    assert not h.register(first, boot="yet another").error
    h.answer(first, 41)
    h.let_pass(wait(h) - 1, first, second)
    assert h.partition().leader == -1
    h.let_pass(2, first, second)
    assert h.partition().leader == first


def test_a_first_that_does_not_answer_leads_after_the_wait() -> None:
    """As before there were questions: a broker of an older version does not understand them."""
    h = without_power()
    first, second, third = order(h)
    h.heartbeat(first)
    h.answer(second, 41)
    h.answer(third, 41)
    h.let_pass(wait(h) - 1, *order(h))
    assert h.partition().leader == -1
    h.let_pass(2, *order(h))
    assert h.partition().leader == first


def test_a_broker_that_was_removed_is_not_waited_for() -> None:
    h = without_power()
    first, second, third = order(h)
    h.answer(first, 5)
    h.answer(second, 6)
    gone = UnregisterBrokerRequest(third)
    assert not h.commit(h.controller.unregister_broker(h.now, gone)).response.error
    h.let_pass(2, first, second)
    assert h.partition().leader == second


def test_the_history_names_who_is_needed() -> None:
    """ISR and ELR, which people are shown, are empty."""
    h = without_power()
    first = order(h)[0]
    told = [e for e in h.controller.history.events if e.reason == "page cache lost" and e.topic]
    assert told[-1].detail.startswith(f"log ends are compared when broker {first} is back, and")
    assert {e.detail for e in told[:-1]} == {""}, "somebody was trusted yet"


# -- elections that are ordered or allowed


def test_an_ordered_unclean_election_takes_the_best_end_that_is_known() -> None:
    h = Harness()
    h.start(1, 2, 3)
    assert not h.create("t", 1, 3).error
    leader, second, third = h.partition().replicas
    assert not h.alter((leader,))
    h.kill(leader)
    assert h.partition().elr == (leader,)
    h.answer(second, 5)
    h.answer(third, 6)
    assert h.partition().leader == -1, "the leader holds everything, and may come back"
    h.elect_uncleanly()
    assert h.partition().leader == third


def test_an_ordered_unclean_election_waits_for_nobody() -> None:
    h = without_power()
    _, second, third = order(h)
    h.heartbeat(second)
    h.answer(third, 1)
    h.elect_uncleanly()
    assert h.partition().leader == third, "the one that is known"


def test_unclean_elections_that_become_allowed_take_the_best_end() -> None:
    h = without_power()
    _, second, third = order(h)
    h.answer(second, 5)
    h.answer(third, 6)
    h.configure("unclean.leader.election.enable", "true", "t")
    assert h.partition().leader == third
