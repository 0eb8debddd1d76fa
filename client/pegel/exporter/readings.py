"""One look at a cluster as readings of the declared metrics."""

from __future__ import annotations

from collections.abc import Iterator

from pegel.exporter import declared as d
from pegel.exporter.collect import GroupLag, PartitionFacts, Snapshot
from pegel.metrics import Point, Reading


def readings(found: Snapshot) -> Iterator[Reading]:
    """Everything but what the exporter tells of itself."""
    yield d.brokers, [((), len(found.brokers))]
    yield d.broker_info, [((str(i), address), 1) for i, address in sorted(found.brokers.items())]
    yield d.partitions, [((topic,), len(facts)) for topic, facts in found.topics.items()]
    for metric, read in (
        (d.current_offset, lambda p: p.newest),
        (d.oldest_offset, lambda p: p.oldest),
        (d.leader, lambda p: None if p.leader < 0 else p.leader),
        (d.replicas, lambda p: len(p.replicas)),
        (d.in_sync, lambda p: len(p.in_sync)),
        (d.preferred, lambda p: int(p.leader == p.replicas[0] if p.replicas else False)),
        (d.under_replicated, lambda p: int(len(p.in_sync) < len(p.replicas))),
    ):
        yield (
            metric,
            [
                ((topic, str(number)), value)
                for topic, number, facts in _partitions(found)
                if (value := read(facts)) is not None
            ],
        )
    yield from _groups(found)


def _partitions(found: Snapshot) -> Iterator[tuple[str, int, PartitionFacts]]:
    for topic, facts in found.topics.items():
        for number, one in facts.items():
            yield topic, number, one


def _lags(found: Snapshot) -> Iterator[tuple[tuple[str, str, str], GroupLag]]:
    for (group, topic), lags in sorted(found.lags.items()):
        for number, lag in lags.items():
            yield (group, topic, str(number)), lag


def _groups(found: Snapshot) -> Iterator[Reading]:
    yield d.members, [((group,), count) for group, count in sorted(found.members.items())]
    yield d.group_offset, [(labels, lag.committed) for labels, lag in _lags(found)]
    yield d.group_lag, [(labels, lag.lag) for labels, lag in _lags(found)]
    sums = sorted(found.lags.items())
    yield (
        d.group_offset_sum,
        [(key, sum(one.committed for one in lags.values())) for key, lags in sums],
    )
    yield (
        d.group_lag_sum,
        [(key, sum(max(0, one.lag) for one in lags.values())) for key, lags in sums],
    )
    yield (
        d.group_lag_seconds,
        [(labels, lag.seconds) for labels, lag in _lags(found) if lag.seconds is not None],
    )
    longest: list[Point] = []
    for key, lags in sums:
        known = [lag.seconds for lag in lags.values() if lag.seconds is not None]
        if known:
            longest.append((key, max(known)))
    yield d.group_lag_seconds_max, longest
    yield d.group_catch_up, sorted(found.catch_up.items())
