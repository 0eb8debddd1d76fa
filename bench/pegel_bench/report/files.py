"""Results for machines: JSON and CSV."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

from pegel_bench.report.table import ratio_rows
from pegel_bench.result import Report
from pegel_bench.verdict import judge


def document(report: Report) -> dict[str, object]:
    """Everything, as plain types."""
    return {
        "command": report.command,
        "environment": report.environment,
        "setup": report.setup,
        "targets": report.targets,
        "ok": report.ok,
        "rows": [asdict(row) for row in report.rows],
        "ratios": [
            dict(zip(("workload", "case", "figure", "targets", "median", "range", "rounds"),
                     line, strict=False))
            for line in ratio_rows(report)
        ],
        "goals": [
            {**asdict(v.goal), "against": v.goal.against.value, "holds": v.holds,
             "found": None if v.found is None else asdict(v.found)}
            for v in judge(report)
        ],
    }  # fmt: skip


def write_json(report: Report, path: str) -> None:
    Path(path).write_text(json.dumps(document(report), indent=1, ensure_ascii=False) + "\n")


def write_csv(report: Report, path: str) -> None:
    with Path(path).open("w", newline="") as file:
        csv_into(report, file)


def csv_into(report: Report, file: TextIO) -> None:
    """One line for each row; case and figures as columns."""
    cases = list(dict.fromkeys(key for row in report.rows for key in row.case))
    figures = list(dict.fromkeys(key for row in report.rows for key in row.figures))
    writer = csv.writer(file)
    setup = report.setup
    same = [setup["replication"], setup["min.insync.replicas"]]
    writer.writerow(["workload", "target", "version", "durability", "replication",
                     "min_insync_replicas", "made_by", "round", *cases, *figures,
                     "verified", "ok", "cpu", "cores", "seed"])  # fmt: skip
    for row in report.rows:
        target = report.targets[row.target]
        writer.writerow([
            row.workload, row.target, target["version"], target["durability"], *same, row.client,
            row.round,
            *(row.case.get(c, "") for c in cases),
            *(f"{row.figures[f]:.6g}" if f in row.figures else "" for f in figures),
            row.verified, row.ok, report.environment["cpu"], report.environment["cores"],
            setup["seed"],
        ])  # fmt: skip
