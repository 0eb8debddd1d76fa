"""The time line is read from the logs: it must not take an earlier event for the failover's."""

from __future__ import annotations

from pegel_bench.demo.timeline import failover

LOG_1 = """\
2026-01-01T00:00:00.100 INFO pegel.controller elected partition=t-0 epoch=0 leader=2 reason=x at_ms=100
2026-01-01T00:00:01.007 INFO pegel.controller noticed broker=2 what=connection_lost at_ms=1007
2026-01-01T00:00:01.012 INFO pegel.controller fenced broker=2 reason=killed at_ms=1012
2026-01-01T00:00:01.012 INFO pegel.controller elected partition=t-10 epoch=1 leader=3 reason=killed at_ms=1011
2026-01-01T00:00:01.012 INFO pegel.controller elected partition=t-0 epoch=1 leader=3 reason=killed at_ms=1012
"""  # noqa: E501
LOG_2 = "2026-01-01T00:00:01.005 INFO pegel.controller noticed controller=2 what=gone at_ms=1005\n"


def test_the_first_event_of_each_kind_since_the_kill_counts() -> None:
    moments = failover(
        [LOG_1, LOG_2], topic="t", partition=0, broker=2, killed_ms=1_000, acknowledged_ms=1_040
    )
    assert [(m.name, m.at_ms) for m in moments] == [
        ("killed", 1_000),
        ("noticed", 1_005),
        ("fenced", 1_012),
        ("elected", 1_012),
        ("acknowledged", 1_040),
    ]


def test_what_no_log_tells_is_left_open() -> None:
    moments = failover(
        [LOG_2], topic="t", partition=0, broker=3, killed_ms=1_000, acknowledged_ms=None
    )
    assert [m.at_ms for m in moments] == [1_000, None, None, None, None]
