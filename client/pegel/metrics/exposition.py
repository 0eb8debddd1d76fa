"""Prometheus' text formats from readings of plain numbers, written in small slices.

A page of ten thousand lines is asked for every few seconds for as long as a node lives, so it is
written for speed: what stands before a sample's value is made once and kept, and whole columns of
numbers are put into lines that are there already (``prometheus_client`` takes thirty times as
long). The thread that writes gives way to the others every ``SLICE`` samples, so that a long page
holds up an event loop no longer than a short one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import accumulate
from typing import NamedTuple

from prometheus_client import metrics_core
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from pegel.metrics.declaration import COUNTER, Column, Metric, Point, Reading
from pegel.metrics.histogram import Histogram

# So many points are written without giving way: about half a millisecond of work.
SLICE = 500
# How many samples of a column are as much work as one other.
COLUMN_GAIN = 10
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
        # By metric's name and labels: the text before the value. Of a histogram, a page of its
        # lines with holes for the numbers; none has labels that come and go.
        self._prefixes: dict[str, dict[Labels, str]] = {}
        self._histograms: dict[str, dict[Labels, str]] = {}
        # By name of a metric that comes as a column: its lines the last time, with holes.
        self._blocks: dict[str, list[_Block]] = {}
        self._left = SLICE

    def page(
        self, readings: Iterable[Reading], *, openmetrics_format: bool = False
    ) -> tuple[str, bytes]:
        """The content type and the page."""
        page: list[bytes] = []
        self._left = SLICE
        for metric, points in readings:
            page.append(_head(metric, openmetrics_format))
            if isinstance(points, Column):
                self._column(page, metric, points)
            else:
                self._points(page, metric, points)
        self._pause()
        rest = _Others(self._others)
        if openmetrics_format:
            page.append(openmetrics.generate_latest(rest))  # type: ignore[no-untyped-call]
            return openmetrics.CONTENT_TYPE_LATEST, b"".join(page)
        page.append(generate_latest(rest))
        return CONTENT_TYPE_PLAIN_0_0_4, b"".join(page)

    def _points(self, page: list[bytes], metric: Metric, points: Iterable[Point]) -> None:
        prefixes = self._prefixes.setdefault(metric.name, {})
        lines: list[str] = []
        for labels, value in points:
            key = labels if isinstance(labels, tuple) else tuple(labels)
            if isinstance(value, Histogram):
                lines.append(self._histogram(metric, key, value))
                self._spend(len(value.bounds))
                continue
            prefix = prefixes.get(key)
            if prefix is None:
                prefix = prefixes[key] = _prefix(metric.name, metric.labels, key)
            shown = str(value) if value.__class__ is int else number(value)
            lines.append(f"{prefix}{shown}\n")
            self._spend(1)
        page.append("".join(lines).encode())
        if len(prefixes) > 2 * len(lines) + _SPARE:
            prefixes.clear()  # most of them are of topics and groups that are gone

    def _column(self, page: list[bytes], metric: Metric, column: Column) -> None:
        blocks = self._blocks.setdefault(metric.name, [])
        for place, begin in enumerate(range(0, len(column.labels), SLICE)):
            labels = column.labels[begin : begin + SLICE]
            if place == len(blocks) or blocks[place].labels != labels:
                blocks[place : place + 1] = [_block(metric, labels)]
                self._spend(len(labels))
            page.append(blocks[place].lines % tuple(column.values[begin : begin + SLICE]))
            self._spend(len(labels) // COLUMN_GAIN)
        del blocks[-(-len(column.labels) // SLICE) :]

    def _spend(self, samples: int) -> None:
        self._left -= samples
        if self._left <= 0:
            self._left = SLICE
            self._pause()

    def _histogram(self, metric: Metric, labels: Labels, value: Histogram) -> str:
        kept = self._histograms.setdefault(metric.name, {})
        total, counts = value.total, list(value.counts)  # one copy: the writer goes on counting
        lines = kept.get(labels)
        if lines is None:
            lines = kept[labels] = _histogram_lines(metric, labels, value)
        running = list(accumulate(counts))
        return lines % (*running, running[-1], number(total))


class _Block(NamedTuple):
    """Samples one below the other, and their lines with ``%d`` for each value.

    A block is filled in by one call that runs at the speed of C.
    """

    labels: Sequence[Labels]
    lines: bytes


def _block(metric: Metric, labels: Sequence[Labels]) -> _Block:
    prefixes = [_prefix(metric.name, metric.labels, one) for one in labels]
    return _Block(labels, "".join([f"{_literal(prefix)}%d\n" for prefix in prefixes]).encode())


def _histogram_lines(metric: Metric, labels: Labels, value: Histogram) -> str:
    names = (*metric.labels, "le")
    prefixes = [
        _prefix(f"{metric.name}_bucket", names, (*labels, number(float(bound))))
        for bound in (*value.bounds, float("inf"))
    ]
    prefixes.append(_prefix(f"{metric.name}_count", metric.labels, labels))
    lines = "".join([f"{_literal(prefix)}%d\n" for prefix in prefixes])
    return lines + f"{_literal(_prefix(f'{metric.name}_sum', metric.labels, labels))}%s\n"


def _literal(text: str) -> str:
    return text.replace("%", "%%")


@cache
def _head(metric: Metric, openmetrics_format: bool) -> bytes:
    """What precedes the samples of a family."""
    name, text = metric.name, metric.help.replace("\\", r"\\").replace("\n", r"\n")
    if openmetrics_format:
        text = text.replace('"', r"\"")
        name = name.removesuffix("_total") if metric.kind == COUNTER else name
    return f"# HELP {name} {text}\n# TYPE {name} {metric.kind}\n".encode()


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
