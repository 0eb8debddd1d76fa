"""Is the net sensitive? Each safeguard taken away must be noticed.

``make sensitivity`` runs the cluster simulation without each of them; here run those that it
notices within a few seeds, and the suites that notice what a few seeds do not.
"""

from __future__ import annotations

import importlib

import pytest

from tests.simulation.cluster.safeguard_tests import BY_TESTS
from tests.simulation.cluster.safeguards import (
    QUICK,
    SAFEGUARDS,
    SafeguardMovedError,
    without,
)
from tests.simulation.cluster.sensitivity import notice
from tests.support import replicas

SEEDS = 40


def test_there_are_enough_safeguards() -> None:
    assert len(SAFEGUARDS) >= 30
    assert set(SAFEGUARDS) >= QUICK | set(BY_TESTS)


@pytest.mark.parametrize("name", SAFEGUARDS)
def test_each_safeguard_is_still_where_it_was(name: str) -> None:
    """Else the long run would try to take away what is not there."""
    safeguard = SAFEGUARDS[name]
    with without(safeguard):
        pass
    gone = safeguard.__class__(
        safeguard.name, safeguard.module, safeguard.owner, safeguard.function,
        "no such text", "",
    )  # fmt: skip
    with pytest.raises(SafeguardMovedError), without(gone):
        pass


@pytest.mark.parametrize("name", sorted(BY_TESTS))
def test_its_absence_is_noticed_by_a_test(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "WAIT_LIMIT", 5.0)  # some wait for what now never comes
    path, _, test = BY_TESTS[name].partition("::")
    test, *arguments = test.removesuffix("]").split("[")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    with without(SAFEGUARDS[name]), pytest.raises((Exception, pytest.fail.Exception)):
        getattr(module, test)(*arguments)


@pytest.mark.parametrize("name", sorted(QUICK))
def test_its_absence_is_noticed(name: str) -> None:
    found = notice(name, 0, SEEDS)
    assert found.seed is not None, f"{SEEDS} seeds did not miss it"
