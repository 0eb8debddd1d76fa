"""What a metric is: declared once; the pages that list them are derived from here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pegel.metrics.histogram import Histogram

COUNTER = "counter"
GAUGE = "gauge"
HISTOGRAM = "histogram"

_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass(frozen=True, slots=True)
class Metric:
    """One family. ``buckets`` are upper bounds, in the unit that the name ends with."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    group: str = ""


# Label values in the order of the metric's labels, and a number or a histogram.
Point = tuple[Sequence[str], float | Histogram]
Reading = tuple[Metric, Iterable[Point]]


@dataclass(frozen=True, slots=True)
class Column:
    """Points of one metric, side by side: many of them are written at the speed of C.

    ``labels`` are tuples in the metric's order; ``values`` are whole numbers.
    """

    labels: Sequence[tuple[str, ...]]
    values: Sequence[int]

    def __iter__(self) -> Iterator[Point]:
        return zip(self.labels, self.values, strict=True)


class Catalogue:
    """The metrics of one kind of process, in the order in which they are shown."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._metrics: dict[str, Metric] = {}
        self._group = ""

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._metrics.values())

    def __len__(self) -> int:
        return len(self._metrics)

    def __getitem__(self, name: str) -> Metric:
        """By full name. Raises KeyError."""
        return self._metrics[name]

    def begin(self, group: str) -> None:
        """What is declared next belongs to ``group``."""
        self._group = group

    def counter(self, name: str, text: str, *labels: str) -> Metric:
        """A total that only grows; ``name`` ends with ``_total``."""
        assert name.endswith("_total"), f"{name}: a counter's name ends with _total"
        return self._add(Metric(self._prefix + name, COUNTER, text, labels, (), self._group))

    def gauge(self, name: str, text: str, *labels: str) -> Metric:
        assert not name.endswith("_total"), f"{name}: only a counter's name ends with _total"
        return self._add(Metric(self._prefix + name, GAUGE, text, labels, (), self._group))

    def histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
        assert list(buckets) == sorted(set(buckets)), f"{name}: buckets must rise"
        return self._add(Metric(self._prefix + name, HISTOGRAM, text, labels, buckets, self._group))

    def _add(self, metric: Metric) -> Metric:
        assert _NAME.match(metric.name), f"{metric.name} is no name"
        assert metric.name not in self._metrics, f"{metric.name} is declared twice"
        assert metric.help.endswith("."), f"{metric.name}: the help is a sentence"
        self._metrics[metric.name] = metric
        return metric

    def markdown(self) -> str:
        """One table for each group: name, type, labels, meaning."""
        lines: list[str] = []
        group = None
        for metric in self:
            if metric.group != group:
                group = metric.group
                lines += ["", f"### {group}", "", "| metric | type | labels | meaning |",
                          "|---|---|---|---|"]  # fmt: skip
            labels = ", ".join(f"`{label}`" for label in metric.labels)
            text = metric.help.replace("|", "\\|")
            lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {text} |")
        return "\n".join(lines[1:]) + "\n"
