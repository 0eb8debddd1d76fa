"""Latency figures, ratios and pages from known numbers."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree

from rich.console import Console

from pegel_bench.fleet import add_up
from pegel_bench.load.latencies import Latencies, curve_ms, merge, percentiles_ms
from pegel_bench.load.spec import LoadResult, LoadSpec
from pegel_bench.report.metrics import Metrics
from pegel_bench.report.page import page
from pegel_bench.report.table import ratio_rows, show
from pegel_bench.result import Report, Row


def row(target: str, number: int, rate: float, **more: object) -> Row:
    return Row(
        target=target, workload="throughput", case={"acks": "all"}, round=number,
        figures={"mb_per_s": rate, "records_per_s": rate * 1e4, "p50_ms": 1.0, "p99_ms": 2.0},
        curve=[(0.0, 0.5), (50.0, 1.0), (99.0, 2.0)], verified=True, **more,  # type: ignore[arg-type]
    )  # fmt: skip


def report(*rows: Row) -> Report:
    return Report(
        command="pegel bench <test>",
        environment={"at": "now", "cpu": "a & b", "cores": 2, "memory_gib": 1.0,
                     "copy_gb_per_s": 9.5, "system": "s", "python": "3", "packages": {}},
        setup={"seed": 0},
        targets={name: {"version": "1"} for name in dict.fromkeys(r.target for r in rows)},
        rows=list(rows),
    )  # fmt: skip


def test_percentiles_hold_three_digits() -> None:
    latencies = Latencies()
    for i in range(1, 1001):
        latencies.add(i / 1000)
    found = percentiles_ms(latencies.histogram)
    for name, wanted in (("p50", 500), ("p90", 900), ("p99", 990), ("p99.9", 999), ("max", 1000)):
        assert abs(found[name] / wanted - 1) < 0.002, name
    assert sum(latencies.buckets) == 1000
    assert curve_ms(latencies.histogram)[0][0] == 0.0


def test_histograms_of_several_processes_add_up() -> None:
    slow, quick = Latencies(), Latencies()
    for _ in range(99):
        quick.add(0.001)
    slow.add(5.0)
    results = [LoadResult(histogram=x.encode(), seconds=1.0, sent=n, verified=True)
               for x, n in ((slow, 1), (quick, 99))]  # fmt: skip
    total = add_up(results)
    found = percentiles_ms(merge([total.histogram]))
    assert total.sent == 100
    assert abs(found["p50"] - 1.0) < 0.01
    assert abs(found["max"] / 5000 - 1) < 0.002


def test_ratios_are_taken_round_by_round() -> None:
    lines = ratio_rows(report(
        row("pegel", 1, 100), row("kafka", 1, 50), row("kafka", 2, 100), row("pegel", 2, 150),
        row("pegel", 3, 90), row("kafka", 3, 100),
    ))  # fmt: skip
    assert lines == [
        ["throughput", "acks all", "MB/s", "pegel / kafka", "1.50", "0.90-2.00", "3", "better"]
    ]


def test_a_lost_record_is_in_every_report() -> None:
    lost = row("pegel", 1, 100, ok=False)
    lost.figures["lost"] = 7
    found = report(lost)
    assert not found.ok
    text = io.StringIO()
    show(Console(file=text, width=120), found)
    assert "FAILED: pegel, acks all: 7 acknowledged records lost" in text.getvalue()
    assert "7 acknowledged records lost" in page(found)


def test_every_plot_is_well_formed_and_escaped() -> None:
    rows = [row("pegel", 1, 100), row("k<afka", 1, 50)]
    failed = Row(target="pegel", workload="failover", case={"how": "kill", "client": "prober"},
                 figures={"gap_ms": 50.0}, series=[(-10.0, 1.0), (40.0, 1.0)],
                 events=[(0.0, "SIGKILL"), (40.0, "acknowledged again")])  # fmt: skip
    grown = [
        Row(target="pegel", workload="sweep", case={"partitions": n},
            figures={"cpu_us_per_request": 100.0 + n, "p50_ms": 1.0, "p99_ms": 2.0})
        for n in (1, 1000)
    ]  # fmt: skip
    text = page(report(*rows, failed, *grown))
    plots = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(plots) == 2 + 1 + 3
    for plot in plots:
        ElementTree.fromstring(plot)
    assert "k<afka" not in text
    assert "pegel bench &lt;test&gt;" in text


def _samples(metrics: Metrics) -> dict[tuple[str, str, str], float]:
    return {
        (s.name.removeprefix("pegel_bench_"), s.labels.get("acks", ""), s.labels.get("le", "")):
        s.value
        for family in metrics.collect()
        for s in family.samples
    }  # fmt: skip


def _load(acks: int = -1, rate: float = 0.0) -> LoadSpec:
    return LoadSpec(bootstrap="", topic="t", acks=acks, rate=rate)


def test_metrics_count_what_is_running_and_what_is_done() -> None:
    metrics = Metrics()
    metrics.begin([_load()])
    buckets = [0] * 17
    buckets[3] = 5
    running = {"sent": 6, "acknowledged": 5, "buckets": buckets, "latency_sum": 0.01}
    metrics.update("pegel, acks all", "measure", [running])
    metrics.update("pegel, acks all", "verify", [{"checked": 5}])
    finished = row("pegel", 1, 1.0)
    finished.figures |= {"sent": 6, "acknowledged": 5, "lost": 1}
    for step in (False, True):
        if step:
            metrics.begin([])
            metrics.done(finished)
        samples = _samples(metrics)
        assert samples["records_sent_total", "", ""] == 6
        assert samples["records_acked_total", "", ""] == 5
        assert samples["records_lost_total", "", ""] == step
        assert samples["ack_duration_seconds_count", "all", ""] == 5
        assert samples["ack_duration_seconds_sum", "all", ""] == 0.01
        assert samples["ack_duration_seconds_bucket", "all", "0.001"] == 0
        assert samples["ack_duration_seconds_bucket", "all", "0.002"] == 5


def test_times_are_told_by_acknowledgement_and_by_what_ended_them() -> None:
    metrics = Metrics()
    buckets = [1] * 17
    told = {"buckets": buckets, "latency_sum": 1.0, "end_to_end_buckets": buckets,
            "end_to_end_sum": 2.0}  # fmt: skip
    for acks in (1, -1):
        metrics.begin([_load(acks)])
        metrics.update("", "measure", [told, told])
        metrics.begin([])
        metrics.done(row("pegel", 1, 1.0))
    samples = _samples(metrics)
    for name in ("1", "all"):
        assert samples["ack_duration_seconds_count", name, ""] == 34
        assert samples["end_to_end_duration_seconds_count", name, ""] == 34
        assert samples["end_to_end_duration_seconds_sum", name, ""] == 4.0


def test_the_rate_that_is_asked_for_is_that_of_the_running_loads() -> None:
    metrics = Metrics()
    assert _samples(metrics)["target_rate", "", ""] == 0
    metrics.begin([_load(rate=100.0), _load(rate=50.0)])
    assert _samples(metrics)["target_rate", "", ""] == 150
    metrics.begin([])
    assert _samples(metrics)["target_rate", "", ""] == 0


def test_totals_never_go_back_between_rows_of_loads_that_ran_together() -> None:
    metrics = Metrics()
    metrics.update("", "measure", [{"sent": 6, "acknowledged": 6}, {"sent": 4, "acknowledged": 4}])
    seen = [_samples(metrics)["records_sent_total", "", ""]]
    for sent in (6, 4):
        one = row("pegel", 1, 1.0)
        one.figures |= {"sent": sent, "acknowledged": sent}
        metrics.done(one)
        seen.append(_samples(metrics)["records_sent_total", "", ""])
    assert seen == [10, 10, 10]
