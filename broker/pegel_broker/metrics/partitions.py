"""Readings of topics, replication and partitions: one pass over what this broker hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pegel.metrics import Column, Metric, Reading
from pegel_broker.metrics import declared as d
from pegel_broker.metrics.stats import TopicStats
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.manager import ReplicaManager
from pegel_broker.replication.partition import Leader

NOT_LEADING = -1
SLICE = 400


class Facts(NamedTuple):
    """One replica at one moment. ``isr_size`` and ``lag`` are -1 where another broker leads."""

    key: tuple[str, str]
    log_start: int
    high_watermark: int
    log_end: int
    size: int
    segments: int
    replicas: int
    isr_size: int
    min_isr: int
    lag: int
    offline: bool
    is_leader: int


def facts(hosted: HostedPartition) -> Facts:
    """Read in an order that keeps log start <= high watermark <= log end, whatever goes on."""
    core, log = hosted.core, hosted.log
    state = core.state
    log_start = log.log_start_offset
    high_watermark = core.high_watermark
    log_end = log.log_end_offset
    segments = log.segments.copy()
    replicas, isr_size, lag, is_leader = 0, NOT_LEADING, NOT_LEADING, 0
    if isinstance(state, Leader):
        replicas, isr_size, is_leader = state.replication_factor, len(state.isr), 1
        ends = [progress.log_end_offset for progress in list(state.followers.values())]
        lag = max(log_end - max(min(ends), 0), 0) if ends else 0
    return Facts(
        (core.topic, str(core.partition)), log_start, high_watermark, log_end,
        segments[0].size if len(segments) == 1 else sum([segment.size for segment in segments]),
        len(segments), replicas, isr_size, min(hosted.min_insync_replicas, replicas or 1), lag,
        log.offline is not None, is_leader,
    )  # fmt: skip


def series_dropped(replicas: ReplicaManager) -> int:
    """Series that are left out of the page."""
    dropped = 0
    count = len(replicas.unsorted())
    if count > d.MAX_PARTITION_SERIES_REPLICAS:
        dropped += count * (len(_OF_REPLICAS) + len(_OF_LEADERS))
    topics = len(replicas.topic_stats)
    return dropped + max(0, topics - d.MAX_TOPIC_SERIES) * _SERIES_PER_TOPIC


def readings(replicas: ReplicaManager, pause: Callable[[], None]) -> Iterator[Reading]:
    """The families of a topic, then of replication, then of each partition.

    ``pause`` is called every ``SLICE`` replicas.
    """
    stats = replicas.stats
    topics = sorted(replicas.topic_stats.copy().items())[: d.MAX_TOPIC_SERIES]
    for metric, value in _PER_TOPIC:
        yield metric, [((name,), value(topic)) for name, topic in topics]
    yield (
        d.topic_produce_requests,
        [
            ((name, acks), topic.produced[number])
            for name, topic in topics
            for number, acks in enumerate(d.ACKS)
        ],
    )
    found: list[Facts] = []
    for number, hosted in enumerate(replicas.unsorted(), 1):
        found.append(facts(hosted))
        if number % SLICE == 0:
            pause()
    found.sort()
    led = [f for f in found if f.isr_size >= 0]
    for metric, number in (
        (d.leader_partitions, len(led)),
        (d.replica_partitions, len(found)),
        (d.under_replicated, sum(f.isr_size < f.replicas for f in led)),
        (d.under_min_isr, sum(f.isr_size < f.min_isr for f in led)),
        (d.at_min_isr, sum(f.isr_size == f.min_isr < f.replicas for f in led)),
        (d.offline_replicas, sum(f.offline for f in found)),
        (d.isr_shrinks, stats.isr_shrinks),
        (d.isr_expands, stats.isr_expands),
        (d.high_watermark_backwards, stats.high_watermark_backwards),
        (d.replication_received, stats.received_bytes),
        (d.replication_sent, stats.sent_bytes),
        (d.lag_max, max((f.lag for f in led), default=0)),
    ):
        yield metric, [((), number)]
    if len(found) <= d.MAX_PARTITION_SERIES_REPLICAS:
        yield from _columns(found, _OF_REPLICAS)
        yield from _columns(led, _OF_LEADERS)


def _columns(found: Sequence[Facts], shown: Sequence[tuple[Metric, str]]) -> Iterator[Reading]:
    columns = dict(zip(Facts._fields, zip(*found, strict=True), strict=True)) if found else {}
    keys = columns.get("key", ())
    for metric, field in shown:
        yield metric, Column(keys, columns.get(field, ()))


_PER_TOPIC: Sequence[tuple[Metric, Callable[[TopicStats], int]]] = (
    (d.topic_received_bytes, lambda t: t.received_bytes),
    (d.topic_sent_bytes, lambda t: t.sent_bytes),
    (d.topic_received_records, lambda t: t.received_records),
    (d.topic_failed_produce, lambda t: t.failed_produce),
    (d.topic_failed_fetch, lambda t: t.failed_fetch),
)
_SERIES_PER_TOPIC = len(_PER_TOPIC) + len(d.ACKS)
_OF_REPLICAS = (
    (d.partition_log_start, "log_start"),
    (d.partition_log_end, "log_end"),
    (d.partition_high_watermark, "high_watermark"),
    (d.partition_size, "size"),
    (d.partition_segments, "segments"),
    (d.partition_is_leader, "is_leader"),
)
_OF_LEADERS = ((d.partition_isr_size, "isr_size"), (d.replica_lag, "lag"))
