"""The purgatory on a loop whose time the test turns by hand."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from pegel_broker import purgatory as module
from pegel_broker.purgatory import Delayed, Purgatory


class HandTurnedLoop:
    """``call_at`` and ``time`` of a loop; ``turn(to)`` fires what is due, in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Any) -> Timer:
        timer = Timer(self, when, call)
        self.timers.append(timer)
        return timer

    def turn(self, to: float) -> None:
        while due := sorted((t for t in self.timers if t.when <= to), key=lambda t: t.when):
            self.timers.remove(due[0])
            self.now = max(self.now, due[0].when)
            due[0].call()
        self.now = to


class Timer:
    def __init__(self, loop: HandTurnedLoop, when: float, call: Any) -> None:
        self.loop, self.when, self.call = loop, when, call

    def cancel(self) -> None:
        if self in self.loop.timers:
            self.loop.timers.remove(self)


class Operation(Delayed):
    def __init__(self, loop: HandTurnedLoop, deadline: float) -> None:
        super().__init__(deadline)
        self.loop = loop
        self.timed_out_at: list[float] = []

    def on_timeout(self) -> None:
        self.timed_out_at.append(self.loop.now)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> HandTurnedLoop:
    hand_turned = HandTurnedLoop()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: hand_turned)
    return hand_turned


def test_each_times_out_once_at_its_deadline(loop: HandTurnedLoop) -> None:
    purgatory = Purgatory()
    operations = [Operation(loop, deadline) for deadline in (3, 1, 2, 1)]
    for operation in operations:
        purgatory.add(operation)
    assert len(loop.timers) == 1, "one timer for all"
    loop.turn(10)
    assert [o.timed_out_at for o in operations] == [[3], [1], [2], [1]]
    assert len(purgatory) == 0
    assert loop.timers == []


def test_who_is_done_is_not_woken(loop: HandTurnedLoop) -> None:
    purgatory = Purgatory()
    early, late = Operation(loop, 1), Operation(loop, 2)
    purgatory.add(early)
    purgatory.add(late)
    early.done = True
    purgatory.finished()
    assert len(purgatory) == 1
    loop.turn(5)
    assert (early.timed_out_at, late.timed_out_at) == ([], [2])


def test_the_finished_do_not_pile_up(loop: HandTurnedLoop) -> None:
    """Long time-outs with quick answers, as with every produce: the heap stays small."""
    purgatory = Purgatory()
    waiting = Operation(loop, 1_000)
    purgatory.add(waiting)
    for _ in range(20 * module._SWEEP_AT):
        operation = Operation(loop, 30)
        purgatory.add(operation)
        operation.done = True
        purgatory.finished()
        assert len(purgatory._heap) <= 2 * module._SWEEP_AT + 2
    assert len(purgatory) == 1
    loop.turn(2_000)
    assert waiting.timed_out_at == [1_000]


def test_nothing_fires_after_close(loop: HandTurnedLoop) -> None:
    purgatory = Purgatory()
    operation = Operation(loop, 1)
    purgatory.add(operation)
    purgatory.close()
    loop.turn(5)
    assert operation.timed_out_at == []


@pytest.mark.parametrize("seed", range(30))
def test_random_lives(loop: HandTurnedLoop, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SWEEP_AT", 8)
    rng = random.Random(seed)
    purgatory = Purgatory()
    waiting: list[Operation] = []
    finished: list[Operation] = []
    for _ in range(500):
        match rng.randrange(4):
            case 0 | 1:
                operation = Operation(loop, loop.now + rng.randrange(20))
                purgatory.add(operation)
                waiting.append(operation)
            case 2 if waiting:
                operation = waiting.pop(rng.randrange(len(waiting)))
                operation.done = True
                purgatory.finished()
                finished.append(operation)
            case _:
                loop.turn(loop.now + rng.randrange(5))
                timed_out = [o for o in waiting if o.deadline <= loop.now]
                assert all(o.timed_out_at == [o.deadline] for o in timed_out)
                waiting = [o for o in waiting if o.deadline > loop.now]
        assert len(purgatory) == len(waiting), seed
    assert not any(o.timed_out_at for o in waiting + finished)
