from __future__ import annotations

import random

import pytest

from pegel.seams.beat import EARLY_MAX, last_beat, next_beat


def test_two_timers_of_one_node_meet() -> None:
    rare, often = next_beat(1000.13, 0.4), next_beat(1000.27, 0.2)
    assert rare == pytest.approx(often, abs=1e-9)
    assert rare == pytest.approx(1000.4, abs=1e-9)


def test_a_beat_is_always_ahead_by_an_interval_at_most() -> None:
    draw = random.Random(1)
    for _ in range(2_000):
        interval = draw.choice([0.15, 0.2, 0.3, 0.4, 0.7])
        now = draw.uniform(0.0, 1e6)
        for _ in range(5):
            after = next_beat(now, interval)
            assert 0 < after - now <= interval + EARLY_MAX
            now = after  # due to the very bit: rounding must not bring the same beat again


def test_a_timer_that_fires_early_does_not_beat_twice() -> None:
    beat = next_beat(0.7, 0.4)
    assert next_beat(beat - EARLY_MAX / 2, 0.4) == pytest.approx(beat + 0.4)


def test_a_long_wait_ends_with_its_last_beat_and_one_without_a_beat_is_left_alone() -> None:
    draw = random.Random(2)
    for _ in range(200):
        now = draw.uniform(0.0, 1e6)
        wait = last_beat(now, 2.0, 0.4) - now
        assert 1.6 - 1e-6 <= wait <= 2.0
        assert (now + wait) / 0.4 == pytest.approx(round((now + wait) / 0.4), abs=1e-6)
    assert last_beat(0.1, 0.2, 0.4) == pytest.approx(0.3)
    assert last_beat(0.8, 0.0, 0.4) == pytest.approx(0.8)
