"""One heap of deadlines, against a dictionary that is searched."""

from __future__ import annotations

from random import Random

import pytest

from pegel_broker.coordinator.timers import Timers


@pytest.mark.parametrize("seed", range(10))
def test_deadlines_come_up_in_order_and_never_late(seed: int) -> None:
    random, timers, model = Random(seed), Timers[int](), dict[int, float]()
    now = 0.0
    for _ in range(3_000):
        key = random.randrange(20)
        match random.randrange(4):
            case 0 | 1:
                model[key] = now + random.randrange(50)
                timers.set(key, model[key])
            case 2:
                model.pop(key, None)
                timers.cancel(key)
            case _:
                now += random.randrange(10)
                earliest = timers.next_deadline()
                assert (earliest is None) <= (not model)
                assert not model or (earliest or 0) <= min(model.values())
                due = timers.due(now)
                expected = {k: at for k, at in model.items() if at <= now}
                assert set(due) == set(expected)
                assert [expected[k] for k in due] == sorted(expected.values())
                for k in due:
                    del model[k]
        assert len(timers) == len(model)


def test_a_deadline_that_is_put_off_costs_no_heap_operation() -> None:
    timers = Timers[str]()
    for n in range(10_000):
        timers.set("member", n)
    assert timers.heap_size == 1
    assert timers.due(5_000) == []
    assert timers.next_deadline() == 9_999
    assert timers.due(9_999) == ["member"]
    assert timers.next_deadline() is None


def test_the_heap_is_bounded_by_what_is_live() -> None:
    timers = Timers[int]()
    for n in range(10_000):
        timers.set(n % 10, 20_000 - n)  # each earlier than the one before
    assert timers.heap_size < 100
    for n in range(10_000):
        timers.set(n, n)
        timers.cancel(n)
    assert timers.heap_size < 200
