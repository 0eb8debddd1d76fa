"""The demo's judge must see each kind of damage: a demo that cannot fail shows nothing."""

from __future__ import annotations

import pytest

from pegel_bench.demo.corpus import standard_library
from pegel_bench.demo.verdict import compare

LINES = [b"a", b"", b"b", b"", b"c", b"d"]


def _judge(got: list[bytes]) -> tuple[int, int, int, bool]:
    verdict = compare({b"f.py": LINES, b"g.py": [b"x"]}, {b"f.py": got, b"g.py": [b"x"]})
    return verdict.lost, verdict.doubled, verdict.out_of_order, verdict.clean


@pytest.mark.parametrize(
    ("got", "expected"),
    [
        (LINES, (0, 0, 0, True)),
        (LINES[:-1], (1, 0, 0, False)),
        (LINES[1:], (1, 0, 0, False)),
        ([*LINES, b"d"], (0, 1, 0, False)),
        ([b"a", *LINES], (0, 1, 0, False)),
        ([b"b", b"a", b"", b"", b"c", b"d"], (0, 0, 1, False)),
        ([b"d", b"c", b"", b"b", b"", b"a"], (0, 0, 3, False)),
        ([*LINES, b"never sent"], (0, 1, 0, False)),
        ([], (6, 0, 0, False)),
    ],
)
def test_each_kind_of_damage_is_counted(
    got: list[bytes], expected: tuple[int, int, int, bool]
) -> None:
    assert _judge(got) == expected


def test_a_file_that_was_never_sent_is_not_clean() -> None:
    verdict = compare({}, {b"h.py": [b"x"]})
    assert verdict.wrong_files == ["h.py"]
    assert verdict.doubled == 1


def test_a_file_that_was_not_read_is_lost() -> None:
    assert compare({b"h.py": [b"x", b"y"]}, {}).lost == 2


def test_the_corpus_is_the_library_and_stops_where_told() -> None:
    files = list(standard_library(limit_lines=5_000))
    assert sum(len(f.lines) for f in files) == 5_000
    assert all(b"\n" not in line for f in files for line in f.lines)
    keys = [f.key for f in files]
    assert keys == sorted(set(keys), key=lambda k: k.split(b"/"))
