"""Readings of topics, replication and partitions: one pass over what this broker hosts.

Attribute by attribute, not replica by replica: a thousand replicas are read in a fifth of the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pegel.metrics import Column, Metric, Reading
from pegel_broker.metrics import declared as d
from pegel_broker.metrics.stats import TopicStats
from pegel_broker.replication.hosted import HostedPartition
from pegel_broker.replication.manager import ReplicaManager
from pegel_broker.replication.partition import Leader

# So many replicas are read without giving way: half a millisecond.
SLICE = 250

Labels = tuple[str, str]


@dataclass(slots=True)
class Columns:
    """Replicas at one moment each, side by side; those that are led here once more by themselves.

    ``min_isr`` is never more than the replicas that a partition has.
    """

    log_start: list[int] = field(default_factory=list)
    high_watermark: list[int] = field(default_factory=list)
    log_end: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    is_leader: list[int] = field(default_factory=list)
    offline: int = 0
    producers: int = 0
    led: list[int] = field(default_factory=list)  # their places among the replicas
    replicas: list[int] = field(default_factory=list)
    isr_size: list[int] = field(default_factory=list)
    min_isr: list[int] = field(default_factory=list)
    lag: list[int] = field(default_factory=list)

    def add(self, hosted: Sequence[HostedPartition]) -> None:
        """Read in an order that keeps log start <= high watermark <= log end, whatever goes on."""
        before = len(self.log_end)
        cores = [h.core for h in hosted]
        logs = [h.log for h in hosted]
        self.log_start += [log.log_start_offset for log in logs]
        self.high_watermark += [core.high_watermark for core in cores]
        self.log_end += [log.log_end_offset for log in logs]
        segments = [log.segments.copy() for log in logs]
        self.segments += map(len, segments)
        self.size += [s[0].size if len(s) == 1 else sum([x.size for x in s]) for s in segments]
        self.offline += sum([log.offline is not None for log in logs])
        self.producers += sum([len(log.producers) for log in logs])
        states = [core.state for core in cores]
        self.is_leader += [1 if isinstance(state, Leader) else 0 for state in states]
        for place, state in enumerate(states):
            if isinstance(state, Leader):
                self._add_led(before + place, hosted[place], state)

    def _add_led(self, place: int, hosted: HostedPartition, state: Leader) -> None:
        self.led.append(place)
        self.replicas.append(state.replication_factor)
        self.isr_size.append(len(state.isr))
        self.min_isr.append(min(hosted.min_insync_replicas, state.replication_factor or 1))
        ends = [progress.log_end_offset for progress in list(state.followers.values())]
        self.lag.append(max(self.log_end[place] - max(min(ends), 0), 0) if ends else 0)


def series_dropped(replicas: ReplicaManager) -> int:
    """Series that are left out of the page."""
    dropped = 0
    count = len(replicas.unsorted())
    if count > d.MAX_PARTITION_SERIES_REPLICAS:
        dropped += count * (len(_OF_REPLICAS) + len(_OF_LEADERS))
    topics = len(replicas.topic_stats)
    return dropped + max(0, topics - d.MAX_TOPIC_SERIES) * _SERIES_PER_TOPIC


class PartitionReadings:
    """One page after another, for one thread at a time.

    ``pause`` is called before the first replica and every ``SLICE`` of them.
    """

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        self.producers = 0  # that all replicas together remember, as of the last page
        # What was hosted at the last page, and then: whose turn it is, with which labels.
        self._names: list[tuple[str, int]] = []
        self._order: list[int] = []
        self._labels: list[Labels] = []

    def readings(self, replicas: ReplicaManager) -> Iterator[Reading]:
        """The families of a topic, then of replication, then of each partition."""
        yield from _topics(replicas)
        hosted = replicas.unsorted()
        shown = len(hosted) <= d.MAX_PARTITION_SERIES_REPLICAS
        if shown:
            hosted = self._in_order(hosted)
        columns = Columns()
        self._pause()
        for begin in range(0, len(hosted), SLICE):
            columns.add(hosted[begin : begin + SLICE])
            self._pause()
        self.producers = columns.producers
        yield from _replication(replicas, columns)
        if shown:
            for metric, attribute in _OF_REPLICAS:
                yield metric, Column(self._labels, getattr(columns, attribute))
            led = [self._labels[place] for place in columns.led]
            for metric, attribute in _OF_LEADERS:
                yield metric, Column(led, getattr(columns, attribute))

    def _in_order(self, hosted: list[HostedPartition]) -> list[HostedPartition]:
        names = [(h.core.topic, h.core.partition) for h in hosted]
        if names != self._names:
            self._names = names
            self._order = sorted(range(len(names)), key=names.__getitem__)
            self._labels = [(names[place][0], str(names[place][1])) for place in self._order]
        return [hosted[place] for place in self._order]


def _topics(replicas: ReplicaManager) -> Iterator[Reading]:
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


def _replication(replicas: ReplicaManager, columns: Columns) -> Iterator[Reading]:
    stats = replicas.stats
    led = list(zip(columns.isr_size, columns.min_isr, columns.replicas, strict=True))
    for metric, number in (
        (d.leader_partitions, len(led)),
        (d.replica_partitions, len(columns.log_end)),
        (d.under_replicated, sum([isr < wanted for isr, _, wanted in led])),
        (d.under_min_isr, sum([isr < least for isr, least, _ in led])),
        (d.at_min_isr, sum([isr == least < wanted for isr, least, wanted in led])),
        (d.offline_replicas, columns.offline),
        (d.isr_shrinks, stats.isr_shrinks),
        (d.isr_expands, stats.isr_expands),
        (d.high_watermark_backwards, stats.high_watermark_backwards),
        (d.replication_received, stats.received_bytes),
        (d.replication_sent, stats.sent_bytes),
        (d.lag_max, max(columns.lag, default=0)),
    ):
        yield metric, [((), number)]


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
