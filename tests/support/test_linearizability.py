"""The checker accepts what is linearizable and refuses what is known not to be."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

import pytest

from tests.support.linearizability import NEVER, UNKNOWN, Model, Operation, check


def _register(state: int, operation: Operation) -> Iterable[int]:
    if operation.name == "write":
        return [operation.input]
    if operation.name == "cas":
        old, new = operation.input
        if operation.output is UNKNOWN:
            return [new] if state == old else []
        done = operation.output
        return [new if done else state] if done == (state == old) else []
    return [state] if operation.output in {UNKNOWN, state} else []


REGISTER = Model(0, _register)


def op(
    name: str,
    given: object,
    output: object,
    called: float,
    returned: float = NEVER,
    client: str = "c",
) -> Operation:
    return Operation(client, name, given, output, called, returned)


GOOD = {
    "one after the other": [op("write", 1, None, 0, 1), op("read", None, 1, 2, 3)],
    "a read beside a write sees the old value": [
        op("write", 1, None, 0, 10), op("read", None, 0, 1, 2), op("read", None, 1, 3, 4),
    ],
    "an unanswered write may have happened": [
        op("write", 1, UNKNOWN, 0), op("read", None, 1, 5, 6),
    ],
    "an unanswered write may never have happened": [
        op("write", 1, UNKNOWN, 0), op("read", None, 0, 5, 6),
    ],
    "an unanswered write may happen late": [
        op("write", 1, UNKNOWN, 0), op("read", None, 0, 5, 6), op("read", None, 1, 7, 8),
    ],
    "one of two compare-and-sets wins": [
        op("cas", (0, 1), True, 0, 5), op("cas", (0, 2), False, 0, 5), op("read", None, 1, 6, 7),
    ],
}  # fmt: skip
BAD = {
    "a stale read": [op("write", 1, None, 0, 1), op("read", None, 0, 2, 3)],
    "a value that goes and comes back": [
        op("write", 1, None, 0, 10), op("read", None, 1, 1, 2), op("read", None, 0, 3, 4),
    ],
    "a value that nobody wrote": [op("write", 1, None, 0, 1), op("read", None, 7, 2, 3)],
    "a lost update": [
        op("write", 1, None, 0, 1), op("write", 2, None, 2, 3), op("read", None, 1, 4, 5),
    ],
    "both of two compare-and-sets win": [
        op("cas", (0, 1), True, 0, 5), op("cas", (0, 2), True, 0, 5),
    ],
    "a compare-and-set that fails for no reason": [op("cas", (0, 1), False, 0, 1)],
    "an unanswered write undone": [
        op("write", 1, UNKNOWN, 0), op("read", None, 1, 5, 6), op("read", None, 0, 7, 8),
    ],
    "two readers disagree on the order of two writes": [
        op("write", 1, None, 0, 10), op("write", 2, None, 0, 10),
        op("read", None, 1, 11, 12), op("read", None, 2, 13, 14),
    ],
    "an operation before its call": [op("read", None, 1, 0, 1), op("write", 1, None, 2, 3)],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_one_order_explains_is_linearizable(name: str) -> None:
    verdict = check(REGISTER, GOOD[name])
    assert verdict.linearizable
    assert len(verdict.order) >= sum(operation.returned < NEVER for operation in GOOD[name])


@pytest.mark.parametrize("name", BAD)
def test_what_no_order_explains_is_refused(name: str) -> None:
    verdict = check(REGISTER, BAD[name])
    assert not verdict.linearizable
    assert verdict.stuck, "it says where it is stuck"


def test_objects_are_looked_at_one_by_one() -> None:
    """Together 40 writes side by side would be 40! orders."""
    model = Model(0, _register, key=lambda operation: operation.client)
    history = [op("write", n, None, 0, 100, client=f"c{n}") for n in range(40)]
    history += [op("read", None, n, 200, 201, client=f"c{n}") for n in range(40)]
    assert check(model, history).linearizable
    history[-1] = op("read", None, -1, 200, 201, client="c39")
    assert not check(model, history).linearizable


@pytest.mark.parametrize("seed", range(60))
def test_it_agrees_with_trying_every_order(seed: int) -> None:
    r = random.Random(seed)
    history = []
    for n in range(5):
        called = r.randrange(10)
        returned = NEVER if r.random() < 0.2 else called + r.randrange(1, 8)
        name = r.choice(("write", "read", "cas"))
        given = {"write": r.randrange(3), "read": None, "cas": (r.randrange(3), r.randrange(3))}[
            name
        ]
        output = {"write": None, "read": r.randrange(3), "cas": r.random() < 0.5}[name]
        history.append(
            op(name, given, UNKNOWN if returned == NEVER else output, called, returned, f"c{n}")
        )
    assert check(REGISTER, history).linearizable == _by_trying(history)


def _by_trying(history: list[Operation]) -> bool:
    must = [operation for operation in history if operation.returned < NEVER]
    may = [operation for operation in history if operation.returned == NEVER]
    for count in range(len(may) + 1):
        for chosen in itertools.combinations(may, count):
            for order in itertools.permutations([*must, *chosen]):
                in_time = all(a.called <= b.returned for a, b in itertools.combinations(order, 2))
                if in_time and _explains(order):
                    return True
    return False


def _explains(order: Iterable[Operation]) -> bool:
    states = [0]
    for operation in order:
        states = [after for state in states for after in _register(state, operation)]
    return bool(states)
