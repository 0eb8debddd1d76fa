"""A checker of linearizability (Wing and Gong, 1993; Lowe, 2017, for the memory of states).

A history is linearizable if there is one order of all operations, each at some moment between its
call and its return, that a sequential model allows. An operation whose outcome nobody knows (its
caller timed out, or crashed) may have happened at any moment after its call, or never.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

S = TypeVar("S", bound=Hashable)
NEVER = float("inf")
STEPS_MAX = 1_000_000


class UndecidedError(Exception):
    """The search took more than ``STEPS_MAX`` steps."""


class _Unknown:
    def __repr__(self) -> str:
        return "?"


UNKNOWN = _Unknown()  # the output of an operation that was never answered


@dataclass(frozen=True, slots=True)
class Operation:
    """``called`` and ``returned`` are moments of one clock; ``returned`` is NEVER if unanswered."""

    client: str
    name: str
    input: Any
    output: Any = UNKNOWN
    called: float = 0.0
    returned: float = NEVER

    def __str__(self) -> str:
        return f"{self.client} {self.name}({self.input!r}) -> {self.output!r}"


@dataclass(frozen=True, slots=True)
class Model(Generic[S]):
    """A sequential object.

    ``step(state, operation)`` gives the states that may follow, none if its output is impossible
    in ``state``; for an operation of UNKNOWN output, those of all outputs that change something.
    ``key`` splits a history into objects that do not concern each other.
    """

    initial: S
    step: Callable[[S, Operation], Iterable[S]]
    key: Callable[[Operation], Hashable] = lambda _operation: None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``order`` is one that explains the history, or the longest explanation that was found."""

    linearizable: bool
    order: tuple[Operation, ...] = ()
    stuck: tuple[Operation, ...] = ()  # what could not follow ``order``


def check(model: Model[S], history: Sequence[Operation]) -> Verdict:
    """Whether ``history`` is linearizable.

    Raises:
        UndecidedError: it would take too long to tell.
    """
    parts: dict[Hashable, list[Operation]] = {}
    for operation in history:
        parts.setdefault(model.key(operation), []).append(operation)
    order: list[Operation] = []
    for part in parts.values():
        verdict = _check_one(model, part)
        if not verdict.linearizable:
            return verdict
        order += verdict.order
    return Verdict(True, tuple(order))


def _check_one(model: Model[S], history: list[Operation]) -> Verdict:
    """Depth first: next is any operation that was called before the first of the rest returned."""
    operations = sorted(history, key=lambda operation: (operation.called, operation.returned))
    answered = sum(1 << n for n, operation in enumerate(operations) if operation.returned < NEVER)
    seen: set[tuple[int, S]] = set()
    # (done so far as bits, state, the operation that led here, place of the one before)
    stack: list[tuple[int, S, tuple[int, ...]]] = [(0, model.initial, ())]
    best: tuple[int, ...] = ()
    steps = 0
    while stack:
        done, state, order = stack.pop()
        if done & answered == answered:
            return Verdict(True, tuple(operations[n] for n in order))
        if (done, state) in seen:
            continue
        seen.add((done, state))
        if len(order) > len(best):
            best = order
        for n in reversed(_next(operations, done)):
            steps += 1
            if steps > STEPS_MAX:
                raise UndecidedError(f"{len(operations)} operations, {steps:,} steps")
            for after in model.step(state, operations[n]):
                stack.append((done | 1 << n, after, (*order, n)))
    done = sum(1 << n for n in best)
    stuck = tuple(operations[n] for n in _next(operations, done))
    return Verdict(False, tuple(operations[n] for n in best), stuck)


def _next(operations: list[Operation], done: int) -> list[int]:
    """Those that nothing else must precede: called before any open one has returned."""
    candidates: list[int] = []
    first_return = NEVER
    for n, operation in enumerate(operations):
        if operation.called > first_return:
            break
        if not done >> n & 1:
            candidates.append(n)
            first_return = min(first_return, operation.returned)
    return [n for n in candidates if operations[n].called <= first_return]
