"""Prometheus' text formats from readings of plain numbers, written in small slices.

A page of ten thousand lines is asked for every few seconds for as long as a node lives, so it is
written for speed: what stands before a sample's value is made once and kept, and a line costs a
look-up and a join (``prometheus_client`` takes twenty times as long). The thread that writes gives
way to the others every ``SLICE`` samples, so that a long page holds up an event loop no longer than
a short one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import add

from prometheus_client import metrics_core
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from pegel.metrics.declaration import COUNTER, Column, Metric, Point, Reading
from pegel.metrics.histogram import Histogram

# So many points are written without giving way: about half a millisecond of work.
SLICE = 1_000
# How much less of it a point of a column is.
_COLUMN_GAIN = 4
# Prefixes of one metric that are kept beyond twice those of its last page.
_SPARE = 100

Labels = tuple[str, ...]


def _nothing() -> None: ...


def wants_openmetrics(accept: str) -> bool:
    """Whether an ``Accept`` header asks for OpenMetrics, as Prometheus' does."""
    return any(
        part.split(";")[0].strip() == "application/openmetrics-text" for part in accept.split(",")
    )


class Writer:
    """Writes one page after another, for one thread at a time.

    ``others`` are collectors of ``prometheus_client``, whose samples follow ours. ``pause`` is
    called every ``SLICE`` samples.
    """

    def __init__(
        self, others: Sequence[Collector] = (), pause: Callable[[], None] = _nothing
    ) -> None:
        self._others = others
        self._pause = pause
        # By metric's name and labels: the text before the value. Of a histogram, all of them: none
        # has labels that come and go.
        self._prefixes: dict[str, dict[Labels, str]] = {}
        self._bounds: dict[str, dict[Labels, list[str]]] = {}
        # By name of a metric that comes as a column: its labels the last time, and what precedes.
        self._columns: dict[str, tuple[Sequence[Labels], list[str]]] = {}
        self._left = SLICE

    def page(
        self, readings: Iterable[Reading], *, openmetrics_format: bool = False
    ) -> tuple[str, bytes]:
        """The content type and the page."""
        lines: list[str] = []
        self._left = SLICE
        for metric, points in readings:
            self._family(lines, metric, points, openmetrics_format)
        lines.append("")
        text = "\n".join(lines).encode()
        self._pause()
        rest = _Others(self._others)
        if openmetrics_format:
            end = bytes(openmetrics.generate_latest(rest))  # type: ignore[no-untyped-call]
            return openmetrics.CONTENT_TYPE_LATEST, text + end
        return CONTENT_TYPE_PLAIN_0_0_4, text + generate_latest(rest)

    def _family(
        self, lines: list[str], metric: Metric, points: Iterable[Point], openmetrics_format: bool
    ) -> None:
        name, text = metric.name, metric.help.replace("\\", r"\\").replace("\n", r"\n")
        if openmetrics_format:
            text = text.replace('"', r"\"")
            name = name.removesuffix("_total") if metric.kind == COUNTER else name
        lines += (f"# HELP {name} {text}", f"# TYPE {name} {metric.kind}")
        if isinstance(points, Column):
            self._column(lines, metric, points)
            return
        prefixes = self._prefixes.setdefault(metric.name, {})
        before, left = len(lines), self._left
        for labels, value in points:
            if isinstance(value, Histogram):
                self._histogram(lines, metric, tuple(labels), value)
                left -= len(value.bounds)
            else:
                key = labels if isinstance(labels, tuple) else tuple(labels)
                prefix = prefixes.get(key)
                if prefix is None:
                    prefix = prefixes[key] = _prefix(metric.name, metric.labels, key)
                lines.append(prefix + (str(value) if value.__class__ is int else number(value)))
            left -= 1
            if left <= 0:
                left = SLICE
                self._pause()
        self._left = left
        if len(prefixes) > 2 * (len(lines) - before) + _SPARE:
            prefixes.clear()  # most of them are of topics and groups that are gone

    def _column(self, lines: list[str], metric: Metric, column: Column) -> None:
        labels, prefixes = self._columns.get(metric.name, ((), []))
        if labels is not column.labels and labels != column.labels:
            prefixes = [_prefix(metric.name, metric.labels, one) for one in column.labels]
        self._columns[metric.name] = column.labels, prefixes
        lines += map(add, prefixes, map(str, column.values))
        self._left -= len(prefixes) // _COLUMN_GAIN
        if self._left <= 0:
            self._left = SLICE
            self._pause()

    def _histogram(
        self, lines: list[str], metric: Metric, labels: Labels, value: Histogram
    ) -> None:
        kept = self._bounds.setdefault(metric.name, {})
        total, counts = value.total, list(value.counts)  # one copy: the writer goes on counting
        prefixes = kept.get(labels)
        if prefixes is None:
            names = (*metric.labels, "le")
            prefixes = kept[labels] = [
                _prefix(f"{metric.name}_bucket", names, (*labels, number(float(bound))))
                for bound in (*value.bounds, float("inf"))
            ]
            prefixes += [
                _prefix(f"{metric.name}_{suffix}", metric.labels, labels)
                for suffix in ("count", "sum")
            ]
        running = 0
        for prefix, count in zip(prefixes, counts, strict=False):
            running += count
            lines.append(f"{prefix}{running}")
        lines += (f"{prefixes[-2]}{running}", prefixes[-1] + number(total))


def render(
    readings: Iterable[Reading],
    *,
    openmetrics_format: bool = False,
    others: Sequence[Collector] = (),
    pause: Callable[[], None] = _nothing,
) -> tuple[str, bytes]:
    """One page by a ``Writer`` of its own: the content type and the page."""
    return Writer(others, pause).page(readings, openmetrics_format=openmetrics_format)


def number(value: float) -> str:
    """As both formats have it."""
    value = float(value)
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _prefix(name: str, names: Sequence[str], labels: Sequence[str]) -> str:
    """Everything of a line before its value."""
    if not names:
        return f"{name} "
    pairs = ",".join(
        f'{label}="{_escaped(text)}"' for label, text in zip(names, labels, strict=True)
    )
    return f"{name}{{{pairs}}} "


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


class _Others(Collector):
    def __init__(self, others: Sequence[Collector]) -> None:
        self._others = others

    def collect(self) -> Iterator[metrics_core.Metric]:
        for other in self._others:
            yield from other.collect()


def families(readings: Iterable[Reading]) -> Iterator[metrics_core.Metric]:
    """Readings as a collector of ``prometheus_client`` has to return them."""
    for metric, points in readings:
        # The library puts the suffix of a counter back.
        name = metric.name.removesuffix("_total") if metric.kind == COUNTER else metric.name
        family = metrics_core.Metric(name, metric.help, metric.kind)
        for values, value in points:
            labels = dict(zip(metric.labels, values, strict=True))
            if isinstance(value, Histogram):
                family.samples += _histogram(metric.name, labels, value)
            else:
                family.samples.append(Sample(metric.name, labels, value))
        yield family


def _histogram(name: str, labels: dict[str, str], value: Histogram) -> Iterator[Sample]:
    total, counts = value.total, list(value.counts)
    running = 0
    for bound, count in zip((*value.bounds, float("inf")), counts, strict=True):
        running += count
        yield Sample(f"{name}_bucket", {**labels, "le": number(float(bound))}, running)
    yield Sample(f"{name}_count", labels, running)
    yield Sample(f"{name}_sum", labels, total)
