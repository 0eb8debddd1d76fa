"""What producers and consumers of this process count, and a collector for ``prometheus_client``.

Counting is always on (a few additions for each batch). To serve it, register the collector::

    import prometheus_client
    from pegel.metrics.clients import ClientCollector

    prometheus_client.REGISTRY.register(ClientCollector())
    prometheus_client.start_http_server(9311)
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pegel.metrics.declaration import Catalogue, Reading
from pegel.metrics.histogram import SECONDS, Histogram

if TYPE_CHECKING:
    from prometheus_client.core import Metric as TheirMetric

    from pegel.consumer.consumer import Consumer
    from pegel.record.decode import RecordColumns

BYTES = (256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0)
# Partitions whose lag is shown one by one.
MAX_LAG_SERIES = 1_000

CLIENTS = Catalogue("pegel_")
CLIENTS.begin("producers")
producer_records = CLIENTS.counter("producer_records_total", "Records acknowledged.")
producer_errors = CLIENTS.counter(
    "producer_errors_total", "Records that failed, by the error's name.", "error"
)
producer_ack = CLIENTS.histogram(
    "producer_ack_duration_seconds",
    "From the first record of a batch to its acknowledgement, linger included.",
    SECONDS,
)
producer_bytes = CLIENTS.histogram(
    "producer_batch_bytes", "Sizes of acknowledged batches, before compression.", BYTES
)
CLIENTS.begin("consumers")
consumer_records = CLIENTS.counter("consumer_records_total", "Records handed out.")
consumer_end_to_end = CLIENTS.histogram(
    "consumer_end_to_end_duration_seconds",
    "From the timestamp of a batch's last record until it was handed out; needs clocks that agree.",
    SECONDS,
)
consumer_lag = CLIENTS.gauge(
    "consumer_lag_records", "Records behind the end of the partition.", "topic", "partition"
)
consumer_rebalances = CLIENTS.counter(
    "consumer_rebalances_total", "Times that a group gave a consumer its partitions."
)


class ProducerStats:
    """One producer's numbers, written on its event loop."""

    __slots__ = ("acknowledged", "batch_bytes", "errors", "records")

    def __init__(self) -> None:
        self.records = 0
        self.errors: dict[str, int] = {}
        self.acknowledged = Histogram(SECONDS)
        self.batch_bytes = Histogram(BYTES)

    def on_acknowledged(self, records: int, size: int, seconds: float) -> None:
        self.records += records
        self.acknowledged.observe(seconds)
        self.batch_bytes.observe(size)

    def on_failed(self, records: int, error: BaseException) -> None:
        code = getattr(error, "code", None)
        name = getattr(code, "name", None) or type(error).__name__
        self.errors[name] = self.errors.get(name, 0) + records

    def add(self, other: ProducerStats) -> None:
        self.records += other.records
        for name, count in list(other.errors.items()):
            self.errors[name] = self.errors.get(name, 0) + count
        _merge(self.acknowledged, other.acknowledged)
        _merge(self.batch_bytes, other.batch_bytes)


class ConsumerStats:
    """One consumer's numbers, written on its event loop."""

    __slots__ = ("consumer", "end_to_end", "rebalances", "records")

    def __init__(self, consumer: Consumer | None = None) -> None:
        self.consumer = weakref.ref(consumer) if consumer is not None else lambda: None
        self.records = 0
        self.rebalances = 0
        self.end_to_end = Histogram(SECONDS)

    def on_batch(self, columns: RecordColumns, now_ms: int) -> None:
        self.records += len(columns)
        if columns.timestamps:
            self.end_to_end.observe(max(0, now_ms - columns.timestamps[-1]) / 1000)

    def add(self, other: ConsumerStats) -> None:
        self.records += other.records
        self.rebalances += other.rebalances
        _merge(self.end_to_end, other.end_to_end)


def _merge(into: Histogram, other: Histogram) -> None:
    into.counts = [a + b for a, b in zip(into.counts, other.counts, strict=True)]
    into.total += other.total


class _Process:
    """All producers and consumers of this process; those that were closed are added up."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.producers: dict[ProducerStats, None] = {}
        self.consumers: dict[ConsumerStats, None] = {}
        self.closed_producers = ProducerStats()
        self.closed_consumers = ConsumerStats()

    def producer_totals(self) -> ProducerStats:
        with self.lock:
            total = ProducerStats()
            for stats in (self.closed_producers, *self.producers):
                total.add(stats)
            return total

    def consumer_totals(self) -> ConsumerStats:
        with self.lock:
            total = ConsumerStats()
            for stats in (self.closed_consumers, *self.consumers):
                total.add(stats)
            return total

    def open_consumers(self) -> list[Consumer]:
        with self.lock:
            found = [stats.consumer() for stats in self.consumers]
        return [consumer for consumer in found if consumer is not None]


_process = _Process()


def watch_producer() -> ProducerStats:
    """Numbers for a new producer; ``retire`` them when it is closed."""
    stats = ProducerStats()
    with _process.lock:
        _process.producers[stats] = None
    return stats


def watch_consumer(consumer: Consumer) -> ConsumerStats:
    """Numbers for a new consumer; ``retire`` them when it is closed."""
    stats = ConsumerStats(consumer)
    with _process.lock:
        _process.consumers[stats] = None
    return stats


def retire(stats: ProducerStats | ConsumerStats) -> None:
    """Its owner is closed; what it counted stays in the totals. Safe to call twice."""
    with _process.lock:
        if isinstance(stats, ProducerStats):
            if _process.producers.pop(stats, 0) is None:
                _process.closed_producers.add(stats)
        elif _process.consumers.pop(stats, 0) is None:
            _process.closed_consumers.add(stats)


def readings() -> Iterator[Reading]:
    """Everything that this process's clients have counted."""
    produced, consumed = _process.producer_totals(), _process.consumer_totals()
    yield producer_records, [((), produced.records)]
    yield producer_errors, [((name,), count) for name, count in sorted(produced.errors.items())]
    yield producer_ack, [((), produced.acknowledged)]
    yield producer_bytes, [((), produced.batch_bytes)]
    yield consumer_records, [((), consumed.records)]
    yield consumer_end_to_end, [((), consumed.end_to_end)]
    yield consumer_lag, _lags()
    yield consumer_rebalances, [((), consumed.rebalances)]


def _lags() -> list[tuple[tuple[str, str], float]]:
    """Two consumers may read the same partition: the larger lag is shown."""
    found: dict[tuple[str, str], float] = {}
    for consumer in _process.open_consumers():
        for topic, partition in consumer.assignment:
            try:
                lag = consumer.lag((topic, partition))
            except KeyError:  # taken away meanwhile
                continue
            if lag is not None and len(found) < MAX_LAG_SERIES:
                key = (topic, str(partition))
                found[key] = max(found.get(key, 0), lag)
    return sorted(found.items())


class ClientCollector:
    """A collector for ``prometheus_client``'s registries; it counts for the whole process."""

    def collect(self) -> Iterable[TheirMetric]:
        from pegel.metrics.exposition import families

        return families(readings())
