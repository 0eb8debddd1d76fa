"""Lag in seconds and the time to catch up, against a log that is written at a known speed."""

from __future__ import annotations

import random

import pytest

from pegel.exporter.lag import MAX_LOOKS, TREND_LOOKS, EndHistory, LagClock, LagTrend


def test_the_time_of_a_record_is_interpolated_between_two_looks() -> None:
    ends = EndHistory()
    for look in range(10):  # a hundred records a second, looked at every ten seconds
        ends.note(1_000 * look, 100.0 + 10 * look)
    for offset in random.Random(3).sample(range(9_000), 200):
        assert ends.written_at(offset) == pytest.approx(100.0 + offset / 100)


def test_what_was_there_before_the_first_look_or_is_yet_to_come_is_not_known() -> None:
    ends = EndHistory()
    assert ends.written_at(0) is None
    ends.note(500, 10.0)
    assert ends.written_at(499) is None
    assert ends.written_at(500) is None
    ends.note(600, 20.0)
    assert ends.written_at(499) is None
    assert ends.written_at(500) == 10.0
    assert ends.written_at(600) is None


def test_a_pause_between_two_bursts_counts_for_the_second() -> None:
    """Nothing was written for an hour: a record of the second burst is as old as that burst."""
    ends = EndHistory()
    for look in range(361):
        ends.note(100, 10.0 * look)
    ends.note(200, 3_610.0)
    written = ends.written_at(100)
    assert written is not None
    assert written >= 3_600.0


def test_a_log_end_that_falls_starts_anew() -> None:
    ends = EndHistory()
    ends.note(100, 10.0)
    ends.note(200, 20.0)
    ends.note(50, 30.0)
    assert ends.written_at(150) is None
    ends.note(60, 40.0)
    assert ends.written_at(55) == 35.0


def test_the_looks_that_are_remembered_are_bounded() -> None:
    ends = EndHistory()
    for look in range(3 * MAX_LOOKS):
        ends.note(look, float(look))
    assert len(ends._ends) == len(ends._times) == MAX_LOOKS
    assert ends.written_at(0) is None


def test_the_time_to_catch_up_is_that_of_the_present_speed() -> None:
    trend = LagTrend()
    assert trend.catch_up_seconds() is None
    for look in range(20):  # 1,000 behind, 40 fewer each second
        trend.note(1_000 - 40 * look, float(look))
    assert trend.catch_up_seconds() == pytest.approx((1_000 - 40 * 19) / 40)
    trend.note(2_000, 20.0)
    assert trend.catch_up_seconds() is None
    for look in range(TREND_LOOKS):
        trend.note(0, 21.0 + look)
    assert trend.catch_up_seconds() == 0.0


def test_a_lag_that_stands_still_is_never_caught_up() -> None:
    trend = LagTrend()
    for look in range(5):
        trend.note(10, float(look))
    assert trend.catch_up_seconds() is None


def test_a_timestamp_is_asked_for_once_and_forgotten_with_its_group() -> None:
    clock = LagClock()
    assert clock.written_at("billing", "orders", 0, 7) is None
    clock.note_timestamp("billing", "orders", 0, 7, 123.0)
    assert clock.written_at("billing", "orders", 0, 7) == 123.0
    assert clock.written_at("billing", "orders", 0, 8) is None
    clock.keep({("orders", 0)}, {"billing"})
    assert clock.written_at("billing", "orders", 0, 7) == 123.0
    clock.keep({("orders", 0)}, set())
    assert clock.written_at("billing", "orders", 0, 7) is None
