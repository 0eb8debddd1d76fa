"""``docs/metrics.md``, from the declarations: ``python -m grafana.document``."""

from __future__ import annotations

import math

from prometheus_client import CollectorRegistry, GCCollector, ProcessCollector

from pegel.exporter.declared import EXPORTER
from pegel.metrics.clients import CLIENTS
from pegel.metrics.declaration import HISTOGRAM, Metric
from pegel_bench.report.declared import BENCH
from pegel_broker.metrics.declared import (
    BROKER,
    LABELS,
    MAX_PARTITION_SERIES_REPLICAS,
    MAX_TOPIC_SERIES,
)
from pegel_broker.metrics.group_lag import MAX_SERIES

_HEAD = """\
# Metrics

Written by `python -m grafana.document` from the declarations; a test holds the two
together. `pegel server --list-metrics` prints the first part.

Every node serves these at `http://HOST:9644/metrics`, in Prometheus' text format or in OpenMetrics,
whichever is asked for. `cluster`, `job` and `instance` come from the scrape configuration.

## A node
"""


_MEASURED = """\
What is beyond a limit is left out and counted in `pegel_metrics_series_dropped`; the sums stay.

A node with 1,000 replicas, a third of them led, shows 7,138 series: 410 kB, 31 kB compressed. A
scrape took 5.0 ms of CPU under load (95 %: 3.8 to 6.9) and 5.6 ms on an idle node (4.7 to 5.9),
sockets and compression included: with one each second of each of three nodes on two cores, 0.75 %
of them. A page is written on a thread, in pieces between which the event loop has its turn: the
longest took 1.5 ms, and the loop was held for 1.8 ms at most with scrapes (1.5 to 2.0) and 0.7
without (0.6 to 1.8), by the clock; once, when the first page loads what pages are written with,
for 4.5 ms. What the loop does itself is one answer in each of its turns, however many have asked.
Records a second with scrapes by those without: 0.995, with an interval of 0.84 to 1.16, on a busy
machine; the CPU, of a machine with nothing else to do, is the figure to trust. All by `python -m
tests.monitoring.measure_scrape`, which takes turns with and without scrapes.
"""

# Labels that grow with what a node hosts, and how many of their combinations are shown.
_GROWING = (
    (("topic", "partition"), "replica", MAX_PARTITION_SERIES_REPLICAS),
    (("topic",), "topic", MAX_TOPIC_SERIES),
    (("group", "topic"), "topic of a group that this node coordinates", MAX_SERIES),
    (("api",), "API that was asked for", LABELS["api"][1]),
    (("api", "error"), "error of an API that has occurred",
     LABELS["api"][1] * LABELS["error"][1]),
)  # fmt: skip
# Labels with few values, which only multiply.
_FEW = ("acks", "phase")


def series_of(metric: Metric) -> int:
    """Series of one combination of its labels' values."""
    return len(metric.buckets) + 3 if metric.kind == HISTOGRAM else 1


def growing() -> list[tuple[str, int, int]]:
    """(what each is of, series for each, at most how many of them), from the declarations."""
    found = []
    for labels, what, most in _GROWING:
        each = 0
        for metric in BROKER:
            if set(labels) == set(metric.labels) - set(_FEW):
                few = [LABELS[label][1] for label in metric.labels if label in _FEW]
                each += series_of(metric) * math.prod(few)
        found.append((what, each, most))
    return found


def fixed() -> int:
    """Series at most of what does not grow with what a node hosts and is asked for."""
    total = 0
    for metric in BROKER:
        if not {"topic", "api", "error"} & set(metric.labels):
            count = series_of(metric)
            for label in metric.labels:
                count *= LABELS[label][1]
            total += count
    return total


def _cost() -> list[str]:
    rows = [f"| each {what} | {each} | {most:,} | {each * most:,} |"
            for what, each, most in growing()]  # fmt: skip
    return [
        "### How many series, and what a scrape costs",
        "",
        "| for | series | at most so many | at most |",
        "|---|---|---|---|",
        *rows,
        f"| the node itself | | | {fixed():,} |",
        "",
        _MEASURED.rstrip(),
    ]


def _runtime() -> list[str]:
    """What the client library tells of the process, as its collectors describe it."""
    # Its own registry: what else this process has registered is none of a node's.
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    rows = []
    for family in registry.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = sorted({label for sample in family.samples for label in sample.labels})
        told = ", ".join(f"`{label}`" for label in labels)
        rows.append(f"| `{name}` | {family.type} | {told} | {family.documentation} |")
    return [
        "### The process, by prometheus_client", "",
        "The `process_` metrics are there on Linux only, `python_gc_` in CPython only.", "",
        "| metric | type | labels | meaning |", "|---|---|---|---|", *sorted(rows), "",
    ]  # fmt: skip


def document() -> str:
    """The page as Markdown."""
    lines = [_HEAD, BROKER.markdown(), *_runtime(), "### Labels", ""]
    lines += ["No label holds what a client chose but the names of topics: no client ids, no",
              "addresses, no group with a partition.", "", "| label | values | at most |",
              "|---|---|---|"]  # fmt: skip
    lines += [f"| `{name}` | {text} | {bound:,} |" for name, (text, bound) in LABELS.items()]
    lines += ["", *_cost()]
    lines += ["", "## `pegel exporter`", "",
              "Topics and consumer groups of any Kafka-compatible cluster, at `:9308/metrics`.", "",
              EXPORTER.markdown()]  # fmt: skip
    lines += ["## Clients", "",
              "What producers and consumers of a process count: see `pegel.metrics.clients`.", "",
              CLIENTS.markdown()]  # fmt: skip
    lines += ["## `pegel bench --prometheus PORT`", "",
              "While a run goes on. Latencies count from the moment at which something was to be",
              "sent.", "", BENCH.markdown()]  # fmt: skip
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(document(), end="")
