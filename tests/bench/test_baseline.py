"""``pegel bench baseline``: goals, verdicts, and a run of one of its rows."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from pegel_bench.baseline import SECTIONS
from pegel_bench.goals import Against, Goal
from pegel_bench.report import goals as words
from pegel_bench.report.markdown import markdown
from pegel_bench.report.page import page
from pegel_bench.report.table import COLUMNS
from pegel_bench.result import Report, Row
from pegel_bench.verdict import judge
from tests.bench.test_reports import report as report_of
from tests.bench.test_runs import bench, finished, with_brokers
from tests.support.fake_broker import FakeCluster


def row(target: str, number: int, rate: float, **case: object) -> Row:
    return Row(
        target=target, workload="consume", case={"row": "r", **case}, round=number,
        figures={"mb_per_s": rate, "records_per_s": rate},
    )  # fmt: skip


def report(goals: list[Goal], *rows: Row) -> Report:
    made = report_of(*rows)
    made.goals = goals
    return made


def goal(bound: float, *, less: bool = False, **more: object) -> Goal:
    fields: dict[str, object] = {"workload": "consume", "where": {"row": "r", "client": "a"}}
    return Goal(figure="mb_per_s", bound=bound, less=less, **(fields | more))  # type: ignore[arg-type]


ROUNDS = [
    row(target, number, rate, client="a")
    for number, (mine, other) in enumerate([(10, 5), (12, 5), (30, 10)], 1)
    for target, rate in (("pegel", mine), ("kafka", other))
]


@pytest.mark.parametrize(
    ("made", "holds", "median"),
    [
        (goal(2.4), True, 2.4),  # ratios 2.0, 2.4, 3.0: by rounds, and their median
        (goal(2.41), False, 2.4),
        (goal(12.0, less=True, against=Against.NOTHING), True, 12.0),
        (goal(11.9, less=True, against=Against.NOTHING), False, 12.0),
        (goal(1.0, where={"row": "r", "client": "nobody"}), None, None),
    ],
)
def test_a_goal_is_judged_by_the_median_of_the_rounds(
    made: Goal, holds: bool | None, median: float | None
) -> None:
    (verdict,) = judge(report([made], *ROUNDS))
    assert verdict.holds is holds
    assert (None if verdict.found is None else verdict.found.median) == median


def test_two_clients_on_one_cluster_are_compared_with_each_other() -> None:
    rows = [*ROUNDS, *(row("pegel", n, 4.0, client="b") for n in (1, 2, 3))]
    over = {"row": "r", "client": "b"}
    (verdict,) = judge(report([goal(3.0, against=Against.CASE, over=over)], *rows))
    assert verdict.found is not None
    assert verdict.found.median == pytest.approx(3.0)
    assert verdict.holds


def test_an_interrupted_row_is_not_judged_and_a_lone_target_has_no_ratio() -> None:
    broken = row("pegel", 1, 99.0, client="a")
    broken.interrupted = True
    (verdict,) = judge(report([goal(1.0, against=Against.NOTHING)], broken))
    assert verdict.holds is None
    (verdict,) = judge(report([goal(1.0)], row("pegel", 1, 99.0, client="a")))
    assert verdict.holds is None


def test_goals_are_told_in_every_form() -> None:
    made = report([goal(2.0), goal(9.0), goal(1.0, where={"row": "none"})], *ROUNDS)
    assert words.tally(judge(made)).startswith("1 of 2 goals hold; 1 were not measured")
    for text in (markdown(made), page(made)):
        assert "1 of 2 goals hold" in text
        assert "missed" in text
    assert (
        "| r, client a | MB/s of the other's | ≥ 2× | 2.40 | 2.00-3.00 | 3 | holds |"
        in markdown(made)
    )


def test_each_goal_names_a_figure_that_its_workload_shows() -> None:
    assert len({section.name for section in SECTIONS}) == len(SECTIONS)
    for section in SECTIONS:
        assert section.goals
        assert "," not in section.name
        for each in section.goals:
            shown = {column[0] for column in COLUMNS[each.workload]}
            assert each.figure in shown, (section.name, each.figure)


def test_a_row_of_a_cluster_that_is_there_is_measured_and_judged(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster) -> None:
        file = tmp_path / "tables.md"
        code, out, err = await finished(await bench(
            "baseline", "-b", cluster.bootstrap, "--rows", "footprint,one-at-a-time",
            "--rounds", "1", "--seconds", "0.5", "--warm-up", "0", "--json",
            "--markdown", str(file),
        ))  # fmt: skip
        assert code == 0, err
        assert "footprint: left out" in err
        document = json.loads(out)
        assert {r["case"]["row"] for r in document["rows"]} == {"one-at-a-time"}
        assert {r["case"]["acks"] for r in document["rows"]} == {"1", "all"}
        assert {g["holds"] for g in document["goals"]} == {None}  # nothing to compare with
        assert "### latency" in file.read_text()

    with_brokers(body)


def test_an_unknown_row_is_refused_by_name() -> None:
    async def main() -> None:
        code, _, err = await finished(await bench("baseline", "--rows", "fetsch"))
        assert code == 2
        assert "'fetsch' is none of footprint, produce-1mb" in err

    asyncio.run(main())
