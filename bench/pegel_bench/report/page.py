"""One self-contained page with plots and tables: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from pegel_bench.report import costs, goals, svg
from pegel_bench.report.table import COLUMNS, HEADLINE, heading, ratio_rows, summary_rows
from pegel_bench.result import Report, Row, figure_summary, grouped
from pegel_bench.verdict import judge

_COLORS = ("#0f62a8", "#d9730d", "#2f8f5b", "#8a4fbf", "#b3261e", "#5b6b7b", "#a0862b", "#1b9aaa")
_COLORS_DARK = (
    "#5aa9f0", "#f2a154", "#63c48f", "#b98be6", "#ef7b74", "#9fb0c0", "#d3b958", "#63d2df",
)  # fmt: skip


def _css() -> str:
    light = "".join(f"--c{i}:{c};" for i, c in enumerate(_COLORS))
    dark = "".join(f"--c{i}:{c};" for i, c in enumerate(_COLORS_DARK))
    kinds = "".join(
        f"svg .c{i}{{fill:var(--c{i})}}svg .l{i}{{stroke:var(--c{i});fill:none;stroke-width:2}}"
        f"svg .s{i}{{stroke:var(--c{i});stroke-width:1.2}}.k{i}{{background:var(--c{i})}}"
        for i in range(len(_COLORS))
    )
    return (
        ":root{--ink:#1c2733;--dim:#5b6b7b;--line:#dfe5ea;--paper:#fff;--bad:#b3261e;"
        f"--good:#23764a;{light}color-scheme:light dark}}"
        "@media (prefers-color-scheme:dark){:root{--ink:#e6ecf1;--dim:#9fb0c0;--line:#33414e;"
        f"--paper:#161d24;--bad:#ef7b74;--good:#63c48f;{dark}}}}}"
        "body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);"
        "max-width:1000px;margin:2rem auto;padding:0 1.2rem}"
        "h1{font-size:1.5rem;margin:0 0 .2rem}h2{font-size:1.15rem;margin:2.2rem 0 .4rem}"
        "h3{font-size:1rem;font-weight:600;margin:1.2rem 0 .2rem}"
        "code{font:13px ui-monospace,monospace}pre{overflow-x:auto;padding:.6rem .8rem;"
        "border:1px solid var(--line);border-radius:6px}"
        ".scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;"
        "font-size:13.5px}th,td{padding:.22rem .7rem;border-bottom:1px solid var(--line);"
        "text-align:right;white-space:nowrap}th{font-weight:600;color:var(--dim)}"
        "th.t,td.t{text-align:left}.dim{color:var(--dim)}.good{color:var(--good)}"
        ".bad{color:var(--bad);font-weight:600}svg{width:100%;height:auto;display:block}"
        "svg text{font:11.5px system-ui,sans-serif;fill:var(--ink)}svg .dim{fill:var(--dim)}"
        "svg .value{font-size:10.5px;fill:var(--dim)}svg .strong{font-weight:600}"
        "svg .flagtext{font-size:10px}svg .grid{stroke:var(--line)}"
        "svg .whisker{stroke:var(--ink);stroke-width:1.4}svg .flag{stroke:var(--dim)}"
        ".legend{display:flex;gap:1.1rem;flex-wrap:wrap;font-size:13px;margin:.2rem 0}"
        ".legend i{display:inline-block;width:11px;height:11px;border-radius:2px;"
        "margin-right:.4rem}" + kinds
    )


def write(report: Report, path: str) -> None:
    """Raises OSError."""
    Path(path).write_text(page(report), encoding="utf-8")


def page(report: Report) -> str:
    """The whole document."""
    e = report.environment
    names = ", ".join(f"{name} ({t['version']})" for name, t in report.targets.items())
    body = [
        "<h1>Benchmark</h1>",
        (
            f'<p class="dim">{escape(names)}<br>{escape(str(e["at"]))}, {escape(str(e["cpu"]))}, '
            f"{e['cores']} cores, {e['memory_gib']} GiB (copied at "
            f"{e['copy_gb_per_s']} GB/s), {escape(str(e['system']))}, "
            f"Python {escape(str(e['python']))}</p>"
        ),
        f"<pre><code>{escape(report.command)}</code></pre>",
    ]
    if report.failures:
        body += [f'<p class="bad">{escape(text)}</p>' for text in report.failures]
    for workload, headings, lines in summary_rows(report):
        rows = [row for row in report.rows if row.workload == workload]
        body.append(f"<h2>{escape(workload)}</h2>")
        body.append(_plots(workload, rows, list(report.targets)))
        body.append(_table(headings, lines, text_columns=len(headings) - len(_shown(rows)) - 1))
    for title, headings, lines in costs.tables(report):
        body.append(f"<h2>{escape(title.capitalize())}</h2>" + _table(headings, lines, 2))
    ratios = ratio_rows(report)
    if ratios:
        body.append("<h2>Ratios, round by round</h2>")
        heads = ["workload", "case", "figure", "targets", "median", "range", "rounds", ""]
        body.append(_table(heads, ratios, text_columns=4))
    verdicts = judge(report)
    if verdicts:
        body.append(f"<h2>Goals</h2><p>{escape(goals.tally(verdicts))}</p>")
        body.append(_table(goals.HEADINGS, goals.lines(verdicts), text_columns=3))
    if report.notes:
        body.append("<h2>Notes</h2><ul>")
        body += [f"<li>{escape(note)}</li>" for note in report.notes]
        body.append("</ul>")
    body.append("<h2>Setup</h2>" + _setup(report))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Benchmark: {escape(', '.join(report.targets))}</title>"
        f"<style>{_css()}</style><body>{''.join(body)}</body></html>\n"
    )


def _shown(rows: Sequence[Row]) -> list[str]:
    return [c[0] for c in COLUMNS[rows[0].workload] if any(c[0] in r.figures for r in rows)]


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]], text_columns: int) -> str:
    def cell(tag: str, i: int, text: str) -> str:
        kinds = []
        if i < text_columns or text in {
            "all there",
            "better",
            "worse",
            "LOST",
            "interrupted",
            "holds",
            "missed",
            "not measured",
        }:
            kinds.append("t")
        kinds += {"LOST": ["bad"], "better": ["good"], "holds": ["good"]}.get(text, [])
        css = f' class="{" ".join(kinds)}"' if kinds else ""
        return f"<{tag}{css}>{escape(text)}</{tag}>"

    head = "".join(cell("th", i, text) for i, text in enumerate(headings))
    rows = "".join(
        f"<tr>{''.join(cell('td', i, text) for i, text in enumerate(line))}</tr>" for line in lines
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{rows}</table></div>'


def _legend(names: Sequence[str]) -> str:
    items = "".join(
        f'<span><i class="k{i % len(_COLORS)}"></i>{escape(n)}</span>' for i, n in enumerate(names)
    )
    return f'<div class="legend">{items}</div>'


def _plots(workload: str, rows: Sequence[Row], targets: Sequence[str]) -> str:
    sections = dict.fromkeys(row.case.get("row") for row in rows)
    if len(sections) > 1:  # of a run that measures many things: each has its own scale
        return "".join(
            f"<h3>{escape(str(section))}</h3>"
            + _plots(workload, [r for r in rows if r.case.get("row") == section], targets)
            for section in sections
        )
    if workload == "failover":
        return _failover(rows)
    if workload == "sweep":
        return _sweep(rows, targets)
    out = [
        f"<h3>{escape(heading(figure))}</h3>" + _bars(rows, targets, figure)
        for figure in HEADLINE[workload]
        if any(figure in row.figures for row in rows)
    ]
    if any(row.curve for row in rows) and workload in {"latency", "end-to-end", "throughput"}:
        title = "until the consumer has it" if workload == "end-to-end" else "by percentile"
        out.append(f"<h3>Latency {title}</h3>" + _curves(rows))
    return "".join(out)


def _bars(rows: Sequence[Row], targets: Sequence[str], figure: str) -> str:
    cases = {k: v for k, v in grouped(rows).items() if any(figure in r.figures
             for group in v.values() for r in group)}  # fmt: skip
    shown = [t for t in targets if any(t in by_target for by_target in cases.values())]
    series = []
    for target in shown:
        found: list[svg.Bar | None] = []
        for by_target in cases.values():
            summary = figure_summary(by_target.get(target, []), figure)
            found.append(
                None if summary is None else svg.Bar(summary.median, summary.low, summary.high)
            )
        series.append((target, found))
    unit = {"mb_per_s": "MB/s", "ready_s": "s", "resident_mb": "MB", "after_mb": "MB",
            "idle_cpu_percent": "%", "cpu_ms_per_mb": "ms/MB"}.get(figure, "ms")  # fmt: skip
    section = next(iter(rows)).case.get("row")
    names = [label.removeprefix(f"row {section}, ") for _, label in cases]
    return _legend(shown) + svg.bars(names, series, unit)


def _curves(rows: Sequence[Row]) -> str:
    """The first round of each case and target."""
    curves: list[svg.Curve] = []
    for by_target in grouped(rows).values():
        for target, group in by_target.items():
            row = group[len(group) // 2]
            points = row.second_curve or row.curve
            if points:
                name = f"{target}: {row.label}"
                curves.append(svg.Curve(name, points, len(curves) % len(_COLORS)))
    shown = curves[: len(_COLORS)]
    rest = len(curves) - len(shown)
    note = f'<p class="dim">{rest} more curves are in the JSON document.</p>' if rest else ""
    return _legend([c.name for c in shown]) + svg.percentile_curves(shown) + note


def _failover(rows: Sequence[Row]) -> str:
    lanes: list[tuple[str, list[float], list[tuple[float, str]], int]] = []
    for by_target in grouped(rows).values():
        for target, group in by_target.items():
            row = group[0]
            if row.series:
                name = f"{target}, {row.case['how']}, seen by {row.case['client']}"
                lanes.append((name, [t for t, _ in row.series], row.events, len(lanes) % 8))
    text = '<p class="dim">Each stroke is an acknowledged record; first round of each.</p>'
    return text + "".join(svg.timeline([lane]) for lane in lanes)


def _sweep(rows: Sequence[Row], targets: Sequence[str]) -> str:
    out = []
    over = next(iter(rows[0].case))
    shown = [t for t in targets if any(r.target == t for r in rows)]
    for figure, unit in (("cpu_us_per_request", "µs"), ("p50_ms", "ms"), ("p99_ms", "ms")):
        curves = []
        for color, target in enumerate(shown):
            points = []
            for by_target in grouped(rows).values():
                group = by_target.get(target, [])
                summary = figure_summary(group, figure)
                if summary is not None:
                    points.append((float(group[0].case[over]), summary.median))
            curves.append(svg.Curve(target, points, color))
        if any(c.points for c in curves):
            out.append(f"<h3>{escape(heading(figure))}</h3>{_legend(shown)}")
            out.append(svg.growth(curves, unit, over))
    return "".join(out)


def _setup(report: Report) -> str:
    lines = [[str(k), str(v)] for k, v in report.setup.items() if v not in (None, "", [], ())]
    for name, target in report.targets.items():
        lines += [[f"{name}: {k}", str(v)] for k, v in target.items() if v]
    lines += [[f"package {k}", str(v)] for k, v in report.environment["packages"].items()]
    return _table(["", ""], lines, text_columns=2)
