"""Prometheus' text formats from readings of plain numbers, written in small slices.

The writing is left to ``prometheus_client``. What is ours is that samples come from generators:
they are made one by one while the page is written, and the thread that writes gives way to the
others every few of them, so that a page of ten thousand lines holds up an event loop no longer
than one of a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import metrics_core
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from pegel.metrics.declaration import COUNTER, Metric, Point, Reading
from pegel.metrics.histogram import Histogram

# One thread may read a few points at once: about half a millisecond of work.
SLICE = 48


class _Samples:
    """What stands in for a family's list of samples: made while it is iterated."""

    def __init__(self, metric: Metric, points: Iterable[Point], pause: Callable[[], None]) -> None:
        self._metric = metric
        self._points = points
        self._pause = pause

    def __iter__(self) -> Iterator[Sample]:
        metric, pause = self._metric, self._pause
        names, name = metric.labels, metric.name
        left = SLICE
        for values, value in self._points:
            labels = dict(zip(names, values, strict=True))
            if isinstance(value, Histogram):
                yield from _histogram(name, labels, value)
                left -= len(value.bounds)
            else:
                yield Sample(name, labels, value)
            left -= 1
            if left <= 0:
                left = SLICE
                pause()


def _histogram(name: str, labels: dict[str, str], value: Histogram) -> Iterator[Sample]:
    total, counts = value.total, list(value.counts)  # one copy: the writer goes on counting
    running = 0
    for bound, count in zip((*value.bounds, float("inf")), counts, strict=True):
        running += count
        yield Sample(f"{name}_bucket", {**labels, "le": _bound(bound)}, running)
    yield Sample(f"{name}_count", labels, running)
    yield Sample(f"{name}_sum", labels, total)


def _bound(value: float) -> str:
    return "+Inf" if value == float("inf") else repr(float(value))


class _Family(metrics_core.Metric):
    def __init__(self, metric: Metric, points: Iterable[Point], pause: Callable[[], None]) -> None:
        # The library puts the suffix of a counter back.
        name = metric.name.removesuffix("_total") if metric.kind == COUNTER else metric.name
        super().__init__(name, metric.help, metric.kind)
        self.samples = _Samples(metric, points, pause)  # type: ignore[assignment]


class _Registry(Collector):
    """Our readings, then what other collectors have."""

    def __init__(
        self, readings: Iterable[Reading], others: Sequence[Collector], pause: Callable[[], None]
    ) -> None:
        self._readings = readings
        self._others = others
        self._pause = pause

    def collect(self) -> Iterator[metrics_core.Metric]:
        for metric, points in self._readings:
            yield _Family(metric, points, self._pause)
        for other in self._others:
            yield from other.collect()
            self._pause()


def families(readings: Iterable[Reading]) -> Iterator[metrics_core.Metric]:
    """Readings as a collector of ``prometheus_client`` has to return them."""
    return _Registry(readings, (), lambda: None).collect()


def wants_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header asks for OpenMetrics, as Prometheus' does."""
    return any(
        part.split(";")[0].strip() == "application/openmetrics-text" for part in accept.split(",")
    )


def render(
    readings: Iterable[Reading],
    *,
    openmetrics_format: bool = False,
    others: Sequence[Collector] = (),
    pause: Callable[[], None] = lambda: None,
) -> tuple[str, bytes]:
    """The content type and the page.

    ``others`` are collectors of ``prometheus_client``. ``pause`` is called every ``SLICE`` samples.
    """
    registry = _Registry(readings, others, pause)
    if openmetrics_format:
        return openmetrics.CONTENT_TYPE_LATEST, bytes(openmetrics.generate_latest(registry))  # type: ignore[no-untyped-call]
    return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(registry)
