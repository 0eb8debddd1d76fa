"""The table of who notices what in ``docs/correctness.md``: written by a run, checked by a test."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.simulation.cluster.safeguard_tests import BY_TESTS
from tests.simulation.cluster.safeguards import SAFEGUARDS

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "docs/correctness.md"
CHANGELOG = ROOT / "CHANGELOG.md"
HEAD = "| safeguard taken away | noticed by the seeds | noticed by the test |\n|---|---|---|\n"


class Row(NamedTuple):
    """``seeds``: "seed 4: doubled", or "none of 40". ``test``: its id, or "" where none does."""

    name: str
    seeds: str
    test: str

    def __str__(self) -> str:
        return f"| {self.name} | {self.seeds} | {self.test.removeprefix('tests/')} |"

    @property
    def noticed(self) -> bool:
        return self.seeds.startswith("seed ") or bool(self.test)


def read_rows(path: str | Path = TABLE) -> list[Row]:
    """The rows below the head of the table; none where it is not there."""
    rows = []
    for line in _parts(path)[1].splitlines():
        name, seeds, test = (cell.strip() for cell in line.strip().strip("|").split("|"))
        rows.append(Row(name, seeds, f"tests/{test}" if test else ""))
    return rows


def write_rows(path: str | Path, new: Iterable[Row]) -> None:
    """Replace or add rows; the order is the registry's, what is not in it goes."""
    before, _, after = _parts(path)
    by_name = {row.name: row for row in [*read_rows(path), *new]}
    rows = [by_name[name] for name in SAFEGUARDS if name in by_name]
    table = "".join(f"{row}\n" for row in rows)
    Path(path).write_text(before + table + "\n" + summary(rows) + _after_summary(after))


def summary(rows: Sequence[Row]) -> str:
    """The paragraph below the table: counted from it, and what of it each ``make test`` repeats."""
    seeds = sum(row.seeds.startswith("seed ") for row in rows)
    tests = sum(bool(row.test) for row in rows)
    both = sum(row.seeds.startswith("seed ") and bool(row.test) for row in rows)
    repeated = sum(row.name in BY_TESTS for row in rows)
    return (
        f"Of {len(rows)}, {sum(row.noticed for row in rows)} are noticed: {seeds} by the seeds "
        f"that were asked, {tests} by a test, {both} of them by both.\n"
        f"`make test` takes each away again: {repeated} from the test of the last column, "
        f"{len(rows) - repeated} from seeds (which seed notices may have moved).\n"
        f"What stands under the seeds of those {repeated} is of their last `make sensitivity`: "
        "a change of the code moves it, and no other run asks.\n"
    )


def _after_summary(after: str) -> str:
    """``after`` (it begins behind the table's last row) without the paragraph of ``summary``."""
    rest = after.removeprefix("\n")
    if not rest.startswith("Of "):
        return after
    _, blank, rest = rest.partition("\n\n")
    return "\n" + rest if blank else ""


def read_summary(path: str | Path = TABLE) -> str:
    """The paragraph below the table."""
    return _parts(path)[2].removeprefix("\n").partition("\n\n")[0] + "\n"


def _parts(path: str | Path) -> tuple[str, str, str]:
    """What stands before the rows (their head included), the rows, and what follows."""
    before, head, rest = Path(path).read_text().partition(HEAD)
    if not head:
        raise ValueError(f"{path} holds no table that begins with {HEAD.splitlines()[0]}")
    table = "" if rest.startswith("\n") else rest[: rest.index("\n\n") + 1]
    return before + head, table, rest[len(table) :]
