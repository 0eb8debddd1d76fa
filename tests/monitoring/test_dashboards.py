"""The dashboards: up to date, described, of known metrics, and what Grafana's own types say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grafana.boards import BOARDS
from grafana.generate import files
from grafana.panels import Dashboard, Panel
from pegel.exporter.declared import EXPORTER
from pegel.metrics.clients import CLIENTS
from pegel_bench.report.declared import BENCH
from pegel_broker.metrics.declared import BROKER
from tests.monitoring.tools import ROOT

UNITS = {
    "short", "s", "bytes", "Bps", "cps", "reqps", "percentunit",
}  # fmt: skip
# What no declaration of ours holds: Prometheus' own, and its client library's.
OTHERS = re.compile(r"up|time|(process|python)_\w+")


def _panels() -> Iterator[tuple[Dashboard, Panel]]:
    for board in BOARDS:
        for panel in board.panels:
            if isinstance(panel, Panel):
                yield board, panel


def test_the_committed_files_are_what_the_script_writes() -> None:
    """``python -m grafana.generate`` writes them anew."""
    wanted = files()
    found = set((ROOT / "grafana" / "dashboards").glob("*.json"))
    assert found == set(wanted)
    for path, text in wanted.items():
        assert path.read_text() == text, path.name


def test_every_panel_says_what_is_normal_and_what_to_do() -> None:
    for board, panel in _panels():
        where = f"{board.title}: {panel.title}"
        assert len(panel.normal) > 1, where
        assert len(panel.act) > 3, where
        assert panel.normal[-1] == ".", where
        assert panel.unit in UNITS, where
        assert panel.width <= 24, where


def _units(expr: str) -> set[str]:
    """What the figures of an expression may be shown in, by the names of its metrics."""
    name = next(n for n in re.findall(r"([a-z_0-9]+)\{", expr))
    if " / " in expr:
        return {"percentunit", "s"}
    if "increase(" in expr and "histogram_quantile" not in expr:
        return {"short"}
    if "histogram_quantile" not in expr and "rate(" in expr:
        if name.endswith("_bytes_total"):
            return {"Bps"}
        return {"percentunit"} if name.endswith("_seconds_total") else {"cps", "reqps"}
    for part, unit in (("_seconds", "s"), ("_bytes", "bytes"), ("_imbalance", "percentunit"),
                       ("_rate", "reqps")):  # fmt: skip
        if part in name:
            return {unit}
    return {"short"}


def test_units_are_those_of_the_metrics() -> None:
    for board, panel in _panels():
        for query in panel.queries:
            assert panel.unit in _units(query.expr), f"{board.title}: {panel.title}: {query.expr}"


def test_legends_tell_series_apart() -> None:
    """Lines of one panel have different names, with every label by which they are grouped."""
    for board, panel in _panels():
        where = f"{board.title}: {panel.title}"
        if panel.kind == "table":  # its columns are the labels
            continue
        assert len({query.legend for query in panel.queries}) == len(panel.queries), where
        for query in panel.queries:
            grouped = re.findall(r"\bby ?\(([^)]*)\)", query.expr)
            labels = {label.strip() for group in grouped for label in group.split(",")}
            shown = set(re.findall(r"\{\{(\w+)\}\}", query.legend))
            if grouped:
                assert labels - {"le", "cluster", "job"} == shown, f"{where}: {query.legend}"


def test_limits_rise_and_shares_begin_at_nothing() -> None:
    for board, panel in _panels():
        values = [value for value, _ in panel.limits]
        assert values == sorted(set(values)), f"{board.title}: {panel.title}"
        if panel.unit == "percentunit":
            assert panel.minimum == 0, f"{board.title}: {panel.title}"


def test_titles_and_ids_are_unique() -> None:
    assert len({board.uid for board in BOARDS}) == len(BOARDS)
    for text in files().values():
        panels = json.loads(text)["panels"]
        assert len({p["id"] for p in panels}) == len(panels)
        titles = [p["title"] for p in panels]
        assert len(set(titles)) == len(titles), titles


def test_no_panels_overlap() -> None:
    for path, text in files().items():
        taken: dict[tuple[int, int], str] = {}
        for panel in json.loads(text)["panels"]:
            at = panel["gridPos"]
            for x in range(at["x"], at["x"] + at["w"]):
                for y in range(at["y"], at["y"] + at["h"]):
                    assert x < 24, f"{path.name}: {panel['title']}"
                    assert (x, y) not in taken, f"{path.name}: {panel['title']}, {taken[x, y]}"
                    taken[x, y] = panel["title"]


def _known() -> set[str]:
    names: set[str] = set()
    for catalogue in (BROKER, EXPORTER, CLIENTS, BENCH):
        for metric in catalogue:
            names.add(metric.name)
            if metric.kind == "histogram":
                names |= {f"{metric.name}_{suffix}" for suffix in ("bucket", "count", "sum")}
    return names


def test_every_metric_in_an_expression_is_declared() -> None:
    known = _known()
    for board, panel in _panels():
        for query in panel.queries:
            names = set(re.findall(r"\b[a-z]+_[a-z0-9_]+(?=\{)", query.expr))
            assert names or "up{" in query.expr, query.expr
            unknown = {n for n in names if n not in known and not OTHERS.fullmatch(n)}
            assert not unknown, f"{board.title}: {panel.title}: {unknown}"


def test_every_selector_is_narrowed_by_the_variables() -> None:
    for board, panel in _panels():
        variables = {"cluster", "job", "instance", *(name for name, _, _ in board.extra)}
        for query in panel.queries:
            for selector in re.findall(r"\b[a-z]+(?:_[a-z0-9_]+)?\{([^}]*)\}", query.expr):
                assert 'job=~"$job"' in selector, f"{board.title}: {panel.title}"
                assert 'cluster=~"$cluster"' in selector, f"{board.title}: {panel.title}"
            used = set(re.findall(r"\$(\w+)", query.expr)) - {"__rate_interval"}
            assert used <= variables, f"{board.title}: {panel.title}: {used - variables}"


# -- Grafana's own types

_KINDS = {
    "timeseries": ("timeseries", "TimeSeriesPanelCfg"),
    "stat": ("stat", "StatPanelCfg"),
    "table": ("table", "TablePanelCfg"),
}


def _schema(directory: Path) -> Path:
    """``@grafana/schema`` and ``typescript``; skips where they may not be fetched."""
    named = os.environ.get("PEGEL_GRAFANA_SCHEMA")
    if named:
        return Path(named)
    if not os.environ.get("PEGEL_FETCH_MONITORING_TOOLS"):
        pytest.skip("make check-monitoring fetches @grafana/schema (needs npm)")
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    (directory / "package.json").write_text("{}")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"]
    subprocess.run(
        [*command, "@grafana/schema@13", "typescript@5"], cwd=directory, check=True, timeout=300,
        capture_output=True,
    )  # fmt: skip
    return directory


def _typescript(number: int, dashboard: dict[str, Any]) -> str:
    """A program that compiles only if the dashboard, its options and its fields fit the types."""
    lines = [
        'import type { Dashboard, Panel, RowPanel } from "@grafana/schema";',
        # JSON holds the values of enumerations as plain strings.
        (
            "type Json<T> = T extends string ? `${T}`"
            " : T extends number | boolean | null | undefined"
            " ? T : T extends (infer U)[] ? Json<U>[] : T extends object"
            " ? { [K in keyof T]: Json<T[K]> } : T;"
        ),
    ]
    for kind, (folder, name) in _KINDS.items():
        path = f"@grafana/schema/dist/esm/raw/composable/{folder}/panelcfg/x/{name}_types.gen"
        lines.append(f'import type * as {kind} from "{path}";')
    bare = {k: v for k, v in dashboard.items() if k != "panels"}
    lines.append(f"export const board{number}: Json<Dashboard> = {json.dumps(bare)};")
    for panel in dashboard["panels"]:
        name = f"panel{number}_{panel['id']}"
        if panel["type"] == "row":
            lines.append(f"export const {name}: Json<RowPanel> = {json.dumps(panel)};")
            continue
        lines.append(f"export const {name}: Json<Panel> = {json.dumps(panel)};")
        kind = panel["type"]
        options = json.dumps(panel["options"])
        lines.append(f"export const {name}_options: Json<Partial<{kind}.Options>> = {options};")
        custom = panel["fieldConfig"]["defaults"]["custom"]
        if kind == "timeseries":
            lines.append(
                f"export const {name}_fields: Json<Partial<{kind}.FieldConfig>> = "
                f"{json.dumps(custom)};"
            )
    return "\n".join(lines) + "\n"


@pytest.mark.timeout(300)
def test_grafanas_own_types_accept_every_dashboard(tmp_path: Path) -> None:
    home = _schema(tmp_path)
    folder = home / "check"
    folder.mkdir(exist_ok=True)
    for number, text in enumerate(files().values()):
        program = _typescript(number, json.loads(text))
        (folder / f"board{number}.ts").write_text(program)
    (folder / "tsconfig.json").write_text(json.dumps({
        "compilerOptions": {
            "noEmit": True, "strict": True, "skipLibCheck": True, "module": "esnext",
            "moduleResolution": "bundler", "target": "es2022", "types": [],
        },
        "include": ["*.ts"],
    }))  # fmt: skip
    compiler = home / "node_modules" / ".bin" / "tsc"

    def compiled() -> subprocess.CompletedProcess[str]:
        command = [str(compiler), "-p", str(folder)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    done = compiled()
    assert done.returncode == 0, done.stdout[-4000:]
    # The check is able to fail.
    board = folder / "board0.ts"
    board.write_text(board.read_text().replace('"drawStyle": "line"', '"drawStyle": "lines"'))
    assert "is not assignable to type" in compiled().stdout
