"""Is the net sensitive? Each safeguard taken away must be noticed.

``make sensitivity`` runs the cluster simulation without each of them; here run those that it
notices within a few seeds, and the suites that notice what a few seeds do not.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulation.cluster.safeguard_tests import BY_TESTS
from tests.simulation.cluster.safeguards import (
    QUICK,
    SAFEGUARDS,
    SafeguardMovedError,
    without,
)
from tests.simulation.cluster.sensitivity import notice
from tests.simulation.cluster.sensitivity_table import (
    CHANGELOG,
    HEAD,
    Row,
    read_rows,
    read_summary,
    summary,
    write_rows,
)
from tests.support import replicas

SEEDS = 40


def test_there_are_enough_safeguards() -> None:
    assert len(SAFEGUARDS) >= 30
    assert set(SAFEGUARDS) == QUICK.keys() | BY_TESTS.keys(), "each is noticed by every run"


def test_the_table_is_of_this_registry() -> None:
    """Names, tests, and that somebody notices each; ``make sensitivity`` writes it."""
    rows = read_rows()
    assert [row.name for row in rows] == list(SAFEGUARDS)
    for row in rows:
        assert row.noticed, row.name
        if row.name in BY_TESTS:
            assert row.test.split("[")[0] == BY_TESTS[row.name].split("[")[0]
        else:
            assert row.seeds.startswith("seed ")
    assert read_summary() == summary(rows)
    told = re.search(r"takes (\d+) safeguards away", CHANGELOG.read_text())
    assert told is not None
    assert int(told[1]) == len(SAFEGUARDS)


def test_rows_are_replaced_and_kept_in_order(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    table.write_text(f"before\n\n{HEAD}\nafter\n")
    second, first, *_ = reversed(list(SAFEGUARDS)[:2])
    write_rows(
        table, [Row(second, "none of 5", "tests/a.py::test_b[x]"), Row("gone", "seed 1", "")]
    )
    write_rows(table, [Row(first, "seed 3: lost", "")])
    write_rows(table, [Row(second, "seed 4: doubled", "")])
    assert read_rows(table) == [Row(first, "seed 3: lost", ""), Row(second, "seed 4: doubled", "")]
    assert table.read_text().startswith("before\n\n|")
    written = summary(read_rows(table))
    assert written.startswith("Of 2, 2 are noticed: 2 by the seeds that were asked, 0 by a test")
    assert read_summary(table) == written
    assert table.read_text().endswith(f"|\n\n{written}\nafter\n"), "the older one is replaced"


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


@functools.cache
def _passing(test_id: str) -> Callable[[], object]:
    """The test of that id as a call, once it was seen to pass with every safeguard in place: one
    that fails anyhow (arguments that do not fit, say) would notice nothing."""
    path, _, test = test_id.partition("::")
    test, *arguments = test.removesuffix("]").split("[")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    call = functools.partial(getattr(module, test), *arguments)
    call()
    return call


@pytest.mark.parametrize("name", sorted(BY_TESTS, key=lambda name: BY_TESTS[name]))
def test_its_absence_is_noticed_by_a_test(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    test = _passing(BY_TESTS[name])
    monkeypatch.setattr(replicas, "WAIT_LIMIT", 5.0)  # some wait for what now never comes
    with without(SAFEGUARDS[name]), pytest.raises((Exception, pytest.fail.Exception)):
        test()


def test_a_test_that_fails_anyhow_is_not_taken_for_one_that_notices() -> None:
    whole = BY_TESTS["a torn end is cut by its checksum"]
    with pytest.raises(TypeError, match="missing 1 required"):
        _passing(whole.split("[")[0])


@pytest.mark.parametrize("name", sorted(QUICK))
def test_its_absence_is_noticed(name: str) -> None:
    found = notice(name, QUICK[name], SEEDS)
    assert found.seed is not None, f"{SEEDS} seeds did not miss it"
