"""The table at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from pegel_bench.result import Report, Row, figure_summary, grouped, ratio, summarize

# Workload → columns: figure, heading, format, whether less is better.
Column = tuple[str, str, str, bool]
_LATENCY: tuple[Column, ...] = (
    ("p50_ms", "p50 ms", "ms", True),
    ("p90_ms", "p90", "ms", True),
    ("p99_ms", "p99", "ms", True),
    ("p99.9_ms", "p99.9", "ms", True),
    ("max_ms", "max", "ms", True),
)
COLUMNS: dict[str, tuple[Column, ...]] = {
    "throughput": (
        ("mb_per_s", "MB/s", "rate", False),
        ("records_per_s", "records/s", "count", False),
        ("p50_ms", "p50 ms", "ms", True),
        ("p99_ms", "p99 ms", "ms", True),
        ("cpu_ms_per_mb", "broker CPU ms/MB", "rate", True),
    ),
    "latency": (
        ("requests_per_s", "requests/s", "count", False),
        *_LATENCY,
        ("cpu_us_per_request", "broker CPU µs/request", "rate", True),
    ),
    "consume": (
        ("mb_per_s", "MB/s", "rate", False),
        ("records_per_s", "records/s", "count", False),
    ),
    "end-to-end": (
        ("consumed_p50_ms", "consumed p50 ms", "ms", True),
        ("consumed_p99_ms", "p99", "ms", True),
        ("consumed_p99.9_ms", "p99.9", "ms", True),
        ("consumed_max_ms", "max", "ms", True),
        ("p50_ms", "acknowledged p50 ms", "ms", True),
        ("p99_ms", "p99", "ms", True),
    ),
    "failover": (
        ("gap_ms", "longest gap ms", "ms", True),
        ("acknowledged", "acknowledged", "count", False),
        ("lost", "lost", "count", True),
        ("doubled", "doubled", "count", True),
    ),
    "footprint": (
        ("ready_s", "ready s", "rate", True),
        ("create_s", "created s", "rate", True),
        ("resident_mb", "MB each", "rate", True),
        ("idle_cpu_percent", "idle CPU % each", "rate", True),
        ("after_mb", "MB after load", "rate", True),
    ),
    "sweep": (
        ("requests_per_s", "requests/s", "count", False),
        ("mb_per_s", "MB/s", "rate", False),
        ("cpu_us_per_request", "broker CPU µs/request", "rate", True),
        ("p50_ms", "p50 ms", "ms", True),
        ("p99_ms", "p99 ms", "ms", True),
    ),
}
# What a ratio is made of, where targets are compared.
HEADLINE = {
    "throughput": ("mb_per_s", "cpu_ms_per_mb"),
    "latency": ("p50_ms", "p99_ms", "p99.9_ms"),
    "consume": ("mb_per_s",),
    "end-to-end": ("consumed_p50_ms", "consumed_p99_ms"),
    "failover": ("gap_ms",),
    "footprint": ("ready_s", "resident_mb", "idle_cpu_percent", "after_mb"),
    "sweep": ("requests_per_s", "cpu_us_per_request"),
}


def number(value: float | None, kind: str) -> str:
    """Three significant digits, or whole numbers with separators."""
    if value is None or math.isnan(value):
        return ""
    if kind == "count":
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def heading(figure: str) -> str:
    for columns in COLUMNS.values():
        for name, title, _, _ in columns:
            if name == figure:
                return title
    return figure


def summary_rows(report: Report) -> list[tuple[str, list[str], list[list[str]]]]:
    """(workload, headings, rows): medians over the rounds, one row for each case and target."""
    tables = []
    workloads = list(dict.fromkeys(row.workload for row in report.rows))
    for workload in workloads:
        rows = [row for row in report.rows if row.workload == workload]
        columns = [c for c in COLUMNS[workload] if any(c[0] in row.figures for row in rows)]
        cases = list(dict.fromkeys(key for row in rows for key in row.case))
        several = len({row.target for row in rows}) > 1
        headings = [*cases, *(["target"] if several else []), *(c[1] for c in columns), "checked"]
        lines = []
        for by_target in grouped(rows).values():
            for target, group in by_target.items():
                case = [str(group[0].case.get(name, "")) for name in cases]
                cells = [_cell(group, c) for c in columns]
                lines.append([*case, *([target] if several else []), *cells, _checked(group)])
        tables.append((workload, headings, lines))
    return tables


def _cell(group: Sequence[Row], column: Column) -> str:
    summary = figure_summary(group, column[0])
    if summary is None:
        return ""
    text = number(summary.median, column[2])
    if summary.rounds > 2 and column[2] != "count":
        text += f" ({number(summary.low, column[2])}-{number(summary.high, column[2])})"
    return text


def _checked(group: Sequence[Row]) -> str:
    if any(not row.ok for row in group):
        return "LOST"
    if any(row.interrupted for row in group):
        return "interrupted"
    return "all there" if all(row.verified for row in group) else "-"


def ratio_rows(report: Report) -> list[list[str]]:
    """[workload, case, figure, ratio, spread, verdict] of the first target over each other one."""
    lines = []
    for (workload, label), by_target in grouped(report.rows).items():
        names = list(by_target)
        for other in names[1:]:
            for figure in HEADLINE[workload]:
                found = ratio(by_target[names[0]], by_target[other], figure)
                if found is None:
                    continue
                less = next((c[3] for c in COLUMNS[workload] if c[0] == figure), False)
                better = found.median < 1 if less else found.median > 1
                lines.append([
                    workload, label, heading(figure), f"{names[0]} / {other}",
                    f"{found.median:.2f}", f"{found.low:.2f}-{found.high:.2f}",
                    str(found.rounds), "better" if better else "worse",
                ])  # fmt: skip
    return lines


def show(console: Console, report: Report) -> None:
    """Tables, ratios, notes and the verdict."""
    if not report.rows:
        console.print("nothing was measured")
        return
    for workload, headings, lines in summary_rows(report):
        rounds = summarize([row.round for row in report.rows if row.workload == workload]).high
        title = workload if rounds < 2 else f"{workload}: median of {rounds:.0f} rounds (range)"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in headings:
            left = any(name in row.case for row in report.rows) or name in {"target", "checked"}
            table.add_column(name, justify="left" if left else "right", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        console.print(table)
    ratios = ratio_rows(report)
    if ratios:
        table = Table(title="ratios, round by round: median and range", title_justify="left",
                      box=box.SIMPLE_HEAD, pad_edge=False)  # fmt: skip
        for name in ("workload", "case", "figure", "targets", "ratio", "range", "rounds", ""):
            right = name in {"ratio", "range", "rounds"}
            table.add_column(name, justify="right" if right else "left")
        for line in ratios:
            style = "green" if line[-1] == "better" else "yellow"
            table.add_row(*line[:-1], f"[{style}]{line[-1]}[/]")
        console.print(table)
    for note in report.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    for failure in report.failures:
        console.print(f"[bold red]FAILED[/]: {failure}", highlight=False, soft_wrap=True)
