"""The bench metrics for Prometheus, served while a run goes on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from pegel.metrics import Histogram, Metric, Reading
from pegel.metrics.exposition import families
from pegel_bench.load.latencies import BUCKETS
from pegel_bench.load.spec import LoadSpec
from pegel_bench.report import declared as d
from pegel_bench.result import Row

_ACKS = {0: "0", 1: "1", -1: "all"}
# Metric, and what its figure is called in progress and in rows.
_COUNTED = (
    (d.sent, "sent"), (d.acknowledged, "acknowledged"), (d.lost, "lost"), (d.duplicated, "doubled"),
)  # fmt: skip
# Metric, and where a worker's progress has its counts by bucket and its sum.
_TIMED = (
    (d.ack_duration, "buckets", "latency_sum"),
    (d.end_to_end_duration, "end_to_end_buckets", "end_to_end_sum"),
)


class Metrics(Collector):
    """Totals over the run: what finished, and what the load that is running has told so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done: dict[str, float] = dict.fromkeys((key for _, key in _COUNTED), 0.0)
        self._running: dict[str, float] = {}
        self._shown = dict(self._done)
        self._acks = "all"
        self._rate = 0.0
        # By metric and acks; of the running load by metric alone.
        self._times: dict[Metric, dict[str, Histogram]] = {metric: {} for metric, *_ in _TIMED}
        self._now: dict[Metric, Histogram] = {}

    @contextlib.contextmanager
    def serving(self, port: int) -> Iterator[int]:
        """Serve on loopback; the port bound. Raises OSError."""
        registry = CollectorRegistry()
        registry.register(self)
        server, thread = start_http_server(port, addr="127.0.0.1", registry=registry)
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join(5.0)

    def begin(self, specs: list[LoadSpec]) -> None:
        """Loads that are about to run together; none: what ran is over."""
        with self._lock:
            self._keep()
            self._acks = _ACKS[specs[0].acks] if specs else self._acks
            self._rate = sum(spec.rate for spec in specs)

    def update(self, text: str, phase: str, workers: list[dict[str, Any]]) -> None:
        """The latest progress of the running load."""
        if phase != "measure":
            return
        with self._lock:
            self._running = {
                name: sum(w.get(name, 0) for w in workers) for name in ("sent", "acknowledged")
            }
            for metric, buckets, total in _TIMED:
                told = [(w[buckets], w[total]) for w in workers if w.get(buckets)]
                if told:
                    self._now[metric] = _histogram(told)

    def done(self, row: Row) -> None:
        """A measurement is over."""
        with self._lock:
            for name in self._done:
                self._done[name] += row.figures.get(name, 0)
            self._running = {}
            self._keep()

    def _keep(self) -> None:
        """Add the times of the load that was running to what is done."""
        for metric, now in self._now.items():
            self._times[metric][self._acks] = self._total(metric, self._acks, now)
        self._now = {}

    def _total(self, metric: Metric, acks: str, now: Histogram | None) -> Histogram:
        parts = [part for part in (self._times[metric].get(acks), now) if part is not None]
        return _histogram([(part.counts, part.total) for part in parts])

    def _readings(self) -> list[Reading]:
        with self._lock:
            found: list[Reading] = []
            for metric, key in _COUNTED:
                # Rows of loads that ran together come one by one: a total never goes back.
                now = self._done[key] + self._running.get(key, 0)
                self._shown[key] = max(self._shown[key], now)
                found.append((metric, [((), self._shown[key])]))
            for metric, *_ in _TIMED:
                names = set(self._times[metric])
                if metric in self._now:
                    names.add(self._acks)
                found.append((metric, [
                    ((acks,), self._total(
                        metric, acks, self._now.get(metric) if acks == self._acks else None
                    ))
                    for acks in sorted(names)
                ]))  # fmt: skip
            found.append((d.target_rate, [((), self._rate)]))
            return found

    def collect(self) -> Iterator[Any]:
        yield from families(self._readings())


def _histogram(parts: list[tuple[list[int], float]]) -> Histogram:
    """The sum of (counts by bucket, sum of seconds)."""
    made = Histogram(BUCKETS)
    made.counts = [sum(column) for column in zip(*(counts for counts, _ in parts), strict=True)]
    made.total = sum(total for _, total in parts)
    return made
