"""What a campaign draws, counts and shows, without a cluster."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from pegel_bench.chaos import page, report
from pegel_bench.chaos.campaign import Campaign, Election, Gap, Options, Outcome, Round, gaps
from pegel_bench.chaos.cli import chaos
from pegel_bench.chaos.faults import FAULTS, Happening
from pegel_bench.chaos.load import Load


def _campaign(**options: object) -> Campaign:
    return Campaign(Options(**options), lambda _: None, lambda _: None)  # type: ignore[arg-type]


def test_a_seed_draws_the_same_faults_for_the_same_people() -> None:
    first, second = _campaign(seed=5), _campaign(seed=5, only=7)
    for number in range(50):
        random, names = first.draw(number)
        again, same = second.draw(number)
        assert names == same
        assert [random.random() for _ in range(9)] == [again.random() for _ in range(9)]
    assert [_campaign(seed=6).draw(n)[1] for n in range(20)] != [
        first.draw(n)[1] for n in range(20)
    ]


def test_every_fault_comes_up() -> None:
    campaign = _campaign()
    drawn = {name for number in range(500) for name in campaign.draw(number)[1]}
    assert drawn == {name for name, fault in FAULTS.items() if not fault.missing}
    assert {n for number in range(50) for n in _campaign(faults=("flapping",)).draw(number)[1]} == {
        "flapping"
    }


def test_the_command_that_repeats_a_round() -> None:
    assert Options(seed=3).repeat(9) == "pegel chaos --seed 3 --only 9"
    options = Options(
        seed=3, brokers=5, faults=("kill-all",), settings={"a.b": "c d"}, topic_config={"x": "1"}
    )
    assert options.repeat(2) == (
        "pegel chaos --seed 3 --only 2 --brokers 5 --faults kill-all --set 'a.b=c d' "
        "--topic-config x=1"
    )
    assert list(Options(only=4).numbers) == [4]


def test_each_fault_of_a_round_with_two_can_be_tried_alone() -> None:
    options = Options(seed=3, rounds=200, brokers=5)
    happened = [Happening(name, name, 0.0) for name in ("kill-all", "flapping")]
    assert options.alone(Round(1, 0.0, faults=happened[:1])) == []
    assert options.alone(Round(1, 0.0, faults=[happened[0], happened[0]])) == []
    assert options.alone(Round(1, 0.0, faults=happened)) == [
        "pegel chaos --seed 3 --rounds 5 --brokers 5 --faults kill-all",
        "pegel chaos --seed 3 --rounds 5 --brokers 5 --faults flapping",
    ]


def test_gaps_are_counted_from_the_fault_on_and_to_the_end() -> None:
    load = Load("nowhere:1", "t", 2, "0")
    load.acknowledged = {0: [1.0, 5.0, 5.01, 8.0], 1: [1.0, 1.01, 9.9]}
    load.ended = 10.0
    found = gaps(load, 6.0)
    assert [(g.partition, g.began, g.ended) for g in found] == [
        (0, 5.01, 8.0), (0, 8.0, 10.0), (1, 1.01, 9.9), (1, 9.9, 10.0),
    ]  # fmt: skip
    assert max(g.ms for g in found) == pytest.approx(8_890)


def _round(number: int, name: str, ms: float, *findings: str) -> Round:
    return Round(
        number, 100.0, [Happening(name, f"{name} happens", 101.0, 103.0)],
        [Election(101.5, 0, 1, 2, "killed")], [Gap(0, 101.0, 101.0 + ms / 1000)], ms,
        list(findings), {}, 10, 10, 12, 0.5, 106.0,
    )  # fmt: skip


def _outcome(*rounds: Round) -> Outcome:
    return Outcome(Options(seed=4), list(rounds), {"disk": "needs <root>"}, "/kept")


GOOD = _outcome(
    _round(0, "kill-leader", 40), _round(1, "kill-leader", 90), _round(2, "flapping", 2_000)
)
BAD = _outcome(_round(0, "kill-leader", 40), _round(1, "flapping", 7, "lost: t-0@5: b'<v>'"))


def test_what_is_said() -> None:
    lines = report.by_fault(GOOD.rounds)
    assert [(x.name, x.rounds, *map(round, (x.low, x.middle, x.high))) for x in lines] == [
        ("flapping", 1, 2_000, 2_000, 2_000), ("kill-leader", 2, 40, 65, 90),
    ]  # fmt: skip
    said = "\n".join(report.words(GOOD))
    assert "3 rounds, 3 faults, 3 elections; 30 of 30 records acknowledged" in said
    assert "0 lost, 0 doubled, 0 reordered, 0 other findings" in said
    bad = "\n".join(report.words(BAD))
    assert "round 1 (flapping): lost: t-0@5" in bad
    assert "to repeat: pegel chaos --seed 4 --only 1" in bad
    assert "1 lost" in bad


def test_the_document_is_whole_and_plain() -> None:
    document = json.loads(json.dumps(report.document(BAD)))
    assert document["ok"] is False
    assert document["unavailable_ms"]["kill-leader"]["median"] == 40
    assert [r["name"] for r in document["rounds"]] == ["kill-leader", "flapping"]
    assert report.document(GOOD)["ok"] is True


def test_the_page_stands_alone() -> None:
    text = page.page(BAD)
    assert "<script" not in text
    assert not re.search(r"(src|href)=", text)
    assert "b&#x27;&lt;v&gt;&#x27;" in text
    assert "needs &lt;root&gt;" in text
    assert text.count("<svg") == text.count("</svg>") == 1 + len(BAD.rounds)
    assert "Nothing lost" in page.page(GOOD)
    assert page.page(_outcome())


def test_options_are_checked() -> None:
    run = CliRunner().invoke
    for arguments, said in (
        (["--faults", "earthquake"], "there is no fault 'earthquake'"),
        (["--set", "nonsense"], "is not KEY=VALUE"),
        (["--replication", "5"], "--replication <= --brokers"),
        (["--min-insync", "4"], "--min-insync <= --replication"),
    ):
        result = run(chaos, arguments)
        assert (result.exit_code, said in result.output) == (2, True), result.output
    listed = run(chaos, ["--list-faults"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in FAULTS)
