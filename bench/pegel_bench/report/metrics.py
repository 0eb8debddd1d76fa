"""The bench metrics for Prometheus, served while a run goes on (names as in the dashboards)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from pegel_bench.load.latencies import BUCKETS
from pegel_bench.result import Row


class Metrics(Collector):
    """Totals over the run: what finished, and what the load that is running has told so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = {"sent": 0.0, "acknowledged": 0.0, "lost": 0.0, "duplicated": 0.0}
        self._running: dict[str, float] = {}
        # acks → counts by bucket, sum of seconds
        self._acks: dict[str, tuple[list[int], float]] = {}
        self._now: tuple[str, list[int], float] | None = None
        self._end_to_end: dict[str, list[tuple[float, float]]] = {}
        self._target_rate = 0.0

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

    def update(self, text: str, phase: str, workers: list[dict[str, Any]]) -> None:
        """The latest progress of the running load."""
        if phase not in {"warm-up", "measure"}:
            return
        with self._lock:
            self._running = {
                name: sum(w.get(name, 0) for w in workers) for name in ("sent", "acknowledged")
            }
            buckets = [w["buckets"] for w in workers if w.get("buckets")]
            if buckets:
                acks = "1" if "acks 1" in text else "all"
                total = [sum(column) for column in zip(*buckets, strict=True)]
                self._now = (acks, total, sum(w.get("latency_sum", 0.0) for w in workers))

    def done(self, row: Row) -> None:
        """A measurement is over."""
        with self._lock:
            for name in ("sent", "acknowledged", "lost"):
                self._done[name] += row.figures.get(name, 0)
            self._done["duplicated"] += row.figures.get("doubled", 0)
            self._running = {}
            if self._now is not None:
                acks, buckets, seconds = self._now
                before, total = self._acks.get(acks, ([0] * len(buckets), 0.0))
                self._acks[acks] = (
                    [a + b for a, b in zip(before, buckets, strict=True)], total + seconds
                )  # fmt: skip
                self._now = None

    def set_target_rate(self, rate: float) -> None:
        with self._lock:
            self._target_rate = rate

    def collect(self) -> Iterator[Any]:
        with self._lock:
            totals = {k: v + self._running.get(k, 0) for k, v in self._done.items()}
            acks = {k: (list(b), s) for k, (b, s) in self._acks.items()}
            if self._now is not None:
                name, buckets, seconds = self._now
                before, total = acks.get(name, ([0] * len(buckets), 0.0))
                acks[name] = (
                    [a + b for a, b in zip(before, buckets, strict=True)], total + seconds
                )  # fmt: skip
            rate = self._target_rate
        for metric, key, text in (
            ("sent", "sent", "Records sent."),
            ("acked", "acknowledged", "Records acknowledged."),
            ("lost", "lost", "Records acknowledged and not found in the log."),
            ("duplicated", "duplicated", "Offsets acknowledged twice."),
        ):
            family = CounterMetricFamily(f"pegel_bench_records_{metric}", text)
            family.add_metric([], totals[key])
            yield family
        yield GaugeMetricFamily(
            "pegel_bench_target_rate", "Requests a second that are due (0: closed loop).", rate
        )
        histogram = HistogramMetricFamily(
            "pegel_bench_ack_duration_seconds",
            "From the intended send time to the acknowledgement.", labels=["acks"],
        )  # fmt: skip
        for name, (buckets, seconds) in sorted(acks.items()):
            histogram.add_metric([name], _cumulative(buckets), seconds)
        yield histogram


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    found, total = [], 0
    for bound, count in zip([*map(str, BUCKETS), "+Inf"], buckets, strict=True):
        total += count
        found.append((bound, float(total)))
    return found
