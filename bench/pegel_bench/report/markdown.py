"""Goals and tables as Markdown, to be put into a document."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pegel_bench.report import costs, goals
from pegel_bench.report.table import ratio_rows, summary_rows
from pegel_bench.result import Report
from pegel_bench.verdict import judge


def write(report: Report, path: str) -> None:
    """Raises OSError."""
    Path(path).write_text(markdown(report), encoding="utf-8")


def markdown(report: Report) -> str:
    """The goals, then each workload's table, then the ratios."""
    e = report.environment
    parts = [
        f"`{report.command}`",
        f"{e['at']}; {e['cpu']}, {e['cores']} cores, {e['memory_gib']} GiB (copied at "
        f"{e['copy_gb_per_s']} GB/s), {e['system']}, Python {e['python']}; "
        + "; ".join(f"{name}: {t['version']}" for name, t in report.targets.items()) + ".",
    ]  # fmt: skip
    verdicts = judge(report)
    if verdicts:
        parts += [f"{goals.tally(verdicts)}.", _table(goals.HEADINGS, goals.lines(verdicts))]
    for workload, headings, lines in summary_rows(report):
        parts += [f"### {workload}", _table(headings, lines)]
    for title, headings, lines in costs.tables(report):
        parts += [f"### {title}", _table(headings, lines)]
    ratios = ratio_rows(report)
    if ratios:
        heads = ("workload", "case", "figure", "targets", "median", "range", "rounds", "")
        parts += ["### ratios, round by round", _table(heads, ratios)]
    parts += [f"- {note}" for note in report.notes]
    parts += [f"- **FAILED**: {failure}" for failure in report.failures]
    return "\n\n".join(parts) + "\n"


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
                     for row in rows)  # fmt: skip
