"""The table of who notices what in ``docs/correctness.md``: written by a run, checked by a test."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from tests.simulation.cluster.safeguards import SAFEGUARDS

ROOT = Path(__file__).resolve().parents[3]
TABLE = ROOT / "docs/correctness.md"
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
    rows = {row.name: row for row in [*read_rows(path), *new]}
    table = "".join(f"{rows[name]}\n" for name in SAFEGUARDS if name in rows)
    Path(path).write_text(before + table + after)


def _parts(path: str | Path) -> tuple[str, str, str]:
    """What stands before the rows (their head included), the rows, and what follows."""
    before, head, rest = Path(path).read_text().partition(HEAD)
    if not head:
        raise ValueError(f"{path} holds no table that begins with {HEAD.splitlines()[0]}")
    table = "" if rest.startswith("\n") else rest[: rest.index("\n\n") + 1]
    return before + head, table, rest[len(table) :]
