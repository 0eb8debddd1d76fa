from __future__ import annotations

from pegel_bench.workloads.failover import longest_gap


def _acknowledged(*times: float) -> list[tuple[float, float]]:
    return [(t, 1.0) for t in times]


def test_the_gap_around_the_failure() -> None:
    assert longest_gap(_acknowledged(0.0, 0.9, 1.4, 1.5), at=1.0, end=1.6) == (0.9, 1.4)


def test_a_gap_before_the_failure_is_not_its_doing() -> None:
    assert longest_gap(_acknowledged(0.0, 0.9, 1.1, 1.2), at=1.0, end=1.3) == (0.9, 1.1)


def test_who_never_hears_again_is_counted_to_the_end() -> None:
    assert longest_gap(_acknowledged(0.0, 0.5, 0.9), at=1.0, end=5.0) == (0.9, 5.0)
    assert longest_gap([], at=1.0, end=5.0) == (1.0, 5.0)
