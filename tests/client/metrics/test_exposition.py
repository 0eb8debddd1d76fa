"""Declarations, histograms and the two text formats."""

from __future__ import annotations

import random

import pytest
from prometheus_client import Histogram as TheirHistogram
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_client.registry import Collector

from pegel.metrics import Catalogue, Column, Histogram
from pegel.metrics.exposition import COLUMN_GAIN, SLICE, Writer, families, render, wants_openmetrics
from pegel.metrics.histogram import SECONDS


def _catalogue() -> Catalogue:
    made = Catalogue("pegel_")
    made.begin("test")
    return made


def test_a_histogram_counts_as_prometheus_client_does() -> None:
    seeded = random.Random(7)
    ours = Histogram(SECONDS)
    theirs = TheirHistogram("t", "T.", buckets=SECONDS, registry=None)
    values = [seeded.expovariate(20) for _ in range(2_000)] + list(SECONDS) + [0.0, 99.0]
    for value in values:
        ours.observe(value)
        theirs.observe(value)
    samples = {
        s.labels["le"]: s.value for m in theirs.collect() for s in m.samples if "le" in s.labels
    }
    running = 0
    for bound, count in zip((*SECONDS, float("inf")), ours.counts, strict=True):
        running += count
        assert samples["+Inf" if bound == float("inf") else repr(float(bound))] == running
    assert ours.count == len(values)
    assert ours.total == pytest.approx(sum(values))


@pytest.mark.parametrize("openmetrics", [False, True])
def test_both_formats_read_back(openmetrics: bool) -> None:
    metrics = _catalogue()
    size = metrics.gauge("size_bytes", 'With "quotes" and a \\.', "topic")
    total = metrics.counter("events_total", "Events.")
    taken = metrics.histogram("taken_seconds", "Taken.", SECONDS, "api")
    histogram = Histogram(SECONDS)
    histogram.observe(0.001)
    histogram.observe(30.0)
    odd = 'a"b\\c\nd'
    kind, body = render(
        [(size, [((odd,), 3)]), (total, [((), 7)]), (taken, [(("Produce",), histogram)])],
        openmetrics_format=openmetrics,
    )
    assert ("openmetrics" in kind) is openmetrics
    read = read_openmetrics if openmetrics else read_text
    samples = [s for family in read(body.decode()) for s in family.samples]
    found = {(s.name, s.labels.get("le", s.labels.get("topic", ""))): s.value for s in samples}
    assert found["pegel_size_bytes", odd] == 3
    assert found["pegel_events_total", ""] == 7
    assert found["pegel_taken_seconds_bucket", "0.001"] == 1
    assert found["pegel_taken_seconds_bucket", "+Inf"] == 2
    assert found["pegel_taken_seconds_count", ""] == 2
    assert found["pegel_taken_seconds_sum", ""] == pytest.approx(30.001)


def test_the_writer_gives_way_and_makes_no_sample_ahead() -> None:
    metrics = _catalogue()
    gauge = metrics.gauge("x", "X.", "n")
    made, most, pauses = 0, 0, 0

    def points():  # type: ignore[no-untyped-def]
        nonlocal made, most
        for n in range(10_000):
            made += 1
            most = max(most, made)
            yield (str(n),), n

    def pause() -> None:
        nonlocal made, pauses
        made, pauses = 0, pauses + 1

    render([(gauge, points())], pause=pause)
    assert most <= SLICE
    assert pauses == 10_000 // SLICE + 1  # and one before what others have collected


@pytest.mark.parametrize("openmetrics", [False, True])
def test_it_writes_what_prometheus_client_would(openmetrics: bool) -> None:
    """Line by line, once the library's own form of whole numbers is put aside."""
    metrics = _catalogue()
    taken = metrics.histogram("taken_seconds", 'Taken, "so" \\ so.', SECONDS, "api")
    histogram = Histogram(SECONDS)
    histogram.observe(0.5)
    values = [0, 12, 0.25, 1e-7, 1e21, float("inf"), float("-inf"), True]
    readings = [
        (metrics.gauge("odd", "Odd.", "n"), [((str(n),), v) for n, v in enumerate(values)]),
        (metrics.counter("events_total", "Events."), [((), 7)]),
        (taken, [(("Produce",), histogram)]),
    ]

    class Theirs(Collector):
        def collect(self):  # type: ignore[no-untyped-def]
            yield from families(readings)

    ours = render(readings, openmetrics_format=openmetrics)[1].decode()
    write = generate_openmetrics if openmetrics else generate_latest
    theirs = write(Theirs()).decode()  # type: ignore[no-untyped-call]

    def lines(text: str) -> list[str]:
        found = []
        for line in text.splitlines():
            before, _, value = line.rpartition(" ")
            found.append(line if line.startswith("#") else f"{before} {float(value)}")
        return found

    assert lines(ours) == lines(theirs)


def test_a_column_is_written_as_its_points_would_be() -> None:
    metrics = _catalogue()
    gauge = metrics.gauge("x", "X.", "topic", "partition")
    writer = Writer()
    for names in (["a", "b"], ["a", "b"], ["b"], [], ["c", 'd"']):
        labels = tuple((name, "0") for name in names)
        column = Column(labels, tuple(range(len(labels))))
        assert writer.page([(gauge, column)]) == render([(gauge, list(column))])


def test_a_column_however_long_is_written_in_slices() -> None:
    """Between two pauses: so many known lines, and no more than a slice of lines that are new."""
    metrics = _catalogue()
    gauge = metrics.gauge("x", "X.", "topic", "partition")
    rows = 50_000
    labels = [(f"t{n // 100}%d", str(n)) for n in range(rows)]
    pauses = 0

    def pause() -> None:
        nonlocal pauses
        pauses += 1

    writer = Writer(pause=pause)
    written = []
    for wanted in (rows // SLICE * (1 + 1 / COLUMN_GAIN), rows // SLICE / COLUMN_GAIN):
        pauses = 0
        written.append(writer.page([(gauge, Column(labels, range(rows)))])[1])
        assert pauses >= wanted * 0.9
    assert written[0] == written[1]
    assert b'pegel_x{topic="t499%d",partition="49999"} 49999\n' in written[0]


def test_what_stands_before_a_value_is_forgotten_with_its_topic() -> None:
    metrics = _catalogue()
    gauge = metrics.gauge("x", "X.", "topic")
    writer = Writer()
    for turn in range(50):
        writer.page([(gauge, [((f"{turn}-{n}",), n) for n in range(200)])])
        assert len(writer._prefixes["pegel_x"]) <= 3 * 200 + 100
    _, page = writer.page([(gauge, [(("49-3",), 5)])])
    assert b'pegel_x{topic="49-3"} 5' in page


def test_openmetrics_is_spoken_when_asked_for() -> None:
    assert wants_openmetrics("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert not wants_openmetrics("text/plain;version=0.0.4")
    assert not wants_openmetrics("")


def test_a_name_is_declared_once_and_by_the_rules() -> None:
    metrics = _catalogue()
    metrics.gauge("once", "Once.")
    with pytest.raises(AssertionError, match="declared twice"):
        metrics.gauge("once", "Twice.")
    with pytest.raises(AssertionError, match="_total"):
        metrics.counter("events", "Events.")
    with pytest.raises(AssertionError, match="rise"):
        metrics.histogram("taken_seconds", "Taken.", (1.0, 0.5))
    with pytest.raises(AssertionError, match="sentence"):
        metrics.gauge("other", "no sentence")
