"""A handler that fails midway: the tip is as it was, and nothing rests on what was not proposed."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest

from pegel_controller.control.controller import Controller
from pegel_controller.control.options import ControllerResult
from pegel_controller.control.tip import Tip
from pegel_controller.rpc import messages as m
from tests.controller.control.harness import Harness


class BrokenError(Exception):
    """What no handler expects."""


def cluster() -> Harness:
    """Four live brokers, a fifth that is fenced, and a partition that is on its way to them."""
    h = Harness()
    h.start(1, 2, 3, 4, 5)
    h.configure("min.insync.replicas", "2")
    h.create("t", 4)
    h.create("u", 2)
    h.kill(5)
    h.register(5)
    h.move((1, 2, 3, 4), "u")
    return h


def expire(h: Harness) -> None:
    h.now += 1.5
    for broker in (1, 2, 4):
        h.heartbeat(broker)
    h.now += 1.5
    h.commit(h.controller.tick(h.now))


def unregister(h: Harness) -> None:
    h.commit(h.controller.unregister_broker(h.now, m.UnregisterBrokerRequest(3)))


def grow(h: Harness) -> None:
    request = m.CreatePartitionsRequest((m.CreatePartitionsTopic("t", 8),))
    h.commit(h.controller.create_partitions(h.now, request))


def resign(h: Harness) -> None:
    state = h.partition()
    topic_id = h.image.topics_by_name["t"].topic_id
    h.resign(state.leader, [(topic_id, 0, state.leader_epoch)])


STEPS: dict[str, Callable[[Harness], object]] = {
    "killed": lambda h: h.kill(3),
    "expired": expire,
    "unregistered": unregister,
    "unfenced": lambda h: h.heartbeat(5),
    "shutting down": lambda h: h.heartbeat(3, wants_shutdown=True),
    "restarted": lambda h: (setattr(h, "now", h.now + 5.0), h.register(3, boot="another")),
    "shrunk": lambda h: h.alter((h.partition().leader,)),
    "resigned": resign,
    "moved": lambda h: h.move((4, 3, 2)),
    "created": lambda h: h.create("v", 3),
    "grown": grow,
    "deleted": lambda h: h.delete("t"),
    "configured": lambda h: h.configure("min.insync.replicas", "3"),
    "log failed": lambda h: h.fail_logs(3, 0, 1),
}


@pytest.mark.parametrize("what", STEPS)
def test_a_step_that_fails_anywhere_changes_nothing_and_can_be_done_again(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The harness compares the tip with what is committed after each step that succeeds."""
    sound, left = Tip.apply, 0

    def apply(tip: Tip, records) -> None:  # type: ignore[no-untyped-def]
        nonlocal left
        sound(tip, records)
        left -= 1
        if left < 0:
            raise BrokenError

    for fails_at in range(20):
        h = cluster()
        before, left = h.controller.tip.image, fails_at
        monkeypatch.setattr(Tip, "apply", apply)
        try:
            STEPS[what](h)
        except BrokenError:
            pass
        else:
            assert fails_at > 0, "nothing was applied"
            return
        finally:
            monkeypatch.undo()
        committed = h.image
        tip = h.controller.tip
        assert tip.image.topics_by_id == committed.topics_by_id == before.topics_by_id
        assert tip.image.brokers == committed.brokers
        assert tip.image.configs == committed.configs
        fresh = Tip(tip.image, {})
        assert vars(tip) == vars(fresh), "its indexes do not fit its image"
        if what != "expired":
            STEPS[what](h)
        else:
            h.commit(h.controller.tick(h.now))
            assert h.image.brokers[3].fenced, "nobody missed it any more"
        assert h.image is not committed
    raise AssertionError("it never ends")


def test_every_handler_is_atomic() -> None:
    handlers = [
        function
        for name, function in inspect.getmembers(Controller, inspect.isfunction)
        if not name.startswith("_")
        and inspect.signature(function).return_annotation is ControllerResult
    ]
    assert len(handlers) > 12
    assert [f.__name__ for f in handlers if not hasattr(f, "__wrapped__")] == []


def test_no_lease_for_what_was_never_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unfencing that fails stays undone, also for the next heartbeat."""
    h = cluster()
    monkeypatch.setattr(Tip, "revive", lambda *_: 1 / 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            h.heartbeat(5)
    monkeypatch.undo()
    response = h.heartbeat(5, wants_fence=True)
    assert (response.fenced, response.lease_ms) == (True, 0)
    assert h.image.brokers[5].fenced
    assert not h.heartbeat(5).fenced
    assert not h.image.brokers[5].fenced
