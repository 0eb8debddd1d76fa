"""Who leads when nobody can be trusted any more: whoever was the last to hold everything."""

from tests.controller.control.harness import Harness


def three_without_power() -> tuple[Harness, tuple[int, ...]]:
    h = Harness()
    h.start(1, 2, 3)
    assert not h.create("t", 1, 3, min_insync_replicas="2").error
    for broker in h.partition().replicas:
        h.kill(broker)
    return h, h.partition().replicas


def test_a_new_disk_does_not_lead_where_another_kept_what_was_acknowledged() -> None:
    """Seeds 1194 and 3771: no host had power, and one disk of three was damaged."""
    h, (first, second, third) = three_without_power()
    assert h.partition().elr == (second, third)
    h.start(first, boot="another")
    h.register(second, boot="another")
    h.register(third, boot="another")
    assert h.partition().last_known_elr == (third, second)
    h.answer(first, 10)
    h.answer(second, 10)
    assert h.partition().leader == -1, "the third may hold what the second lacks"
    h.kill(second)
    h.kill(third)
    assert not h.register(third, boot="yet another", disk=2).error
    h.answer(third, 0, -1)
    h.let_pass(h.controller.options.recovery_timeout + 1, first, third)
    assert h.partition().leader == -1, "the second may hold what the first lacks"
    assert not h.register(second, boot="yet another").error
    h.answer(second, 10)
    assert (h.partition().leader, h.partition().isr) == (first, (first,))
    assert h.partition().leader_recovery_state == 1
    assert h.partition().last_known_elr == (), "what the others have counts no more"


def test_an_empty_disk_does_not_lead_before_one_that_was_in_sync_with_it() -> None:
    h, (_, second, third) = three_without_power()
    h.register(second, boot="another")
    assert (h.partition().elr, h.partition().last_known_elr) == ((third,), (second,))
    h.register(third, disk=2)
    h.heartbeat(third)
    assert (h.partition().leader, h.partition().last_known_elr) == (-1, (second,))
    h.answer(third, 0, -1)
    h.let_pass(h.controller.options.recovery_timeout + 1, third)
    assert h.partition().leader == -1
    h.answer(second, 10)
    h.let_pass(h.controller.options.recovery_timeout + 1, second, third)
    assert h.partition().leader == second


def test_an_empty_disk_leads_where_nobody_else_ever_held_anything() -> None:
    h = Harness()
    h.start(1)
    assert not h.create("t", 1, 1).error
    h.kill(1)
    h.start(1, disk=2)
    assert h.partition().leader == 1


def test_who_lacks_what_was_acknowledged_since_is_not_known_any_more() -> None:
    h, (first, second, third) = three_without_power()
    h.start(second)
    h.register(third, boot="another")
    assert (h.partition().isr, h.partition().last_known_elr) == ((second,), (third,))
    h.start(first)
    assert not h.alter((first, second))
    assert h.partition().last_known_elr == (), "these two may acknowledge without it"


def test_a_lower_minimum_ends_what_was_known() -> None:
    h, (_, second, third) = three_without_power()
    h.start(second)
    h.register(third, boot="another")
    h.configure("min.insync.replicas", "1", "t")
    assert (h.partition().elr, h.partition().last_known_elr) == ((), ())
