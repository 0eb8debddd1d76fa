"""Panels and dashboards in Grafana's classic JSON, from a few words each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
DATASOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}
# What the variables of every dashboard select.
NODES = 'cluster=~"$cluster",job=~"$job",instance=~"$instance"'
CLUSTER = 'cluster=~"$cluster",job=~"$job"'
RATE = "[$__rate_interval]"
WIDTH = 24


@dataclass(frozen=True)
class Query:
    """``silent``: why it returns nothing while all is well; empty where it always has data."""

    expr: str
    legend: str = ""
    silent: str = ""


@dataclass(frozen=True)
class Panel:
    """``normal`` and ``act`` become the description: what is usual, and what to do if it is not.

    ``limits`` are (value, colour) from which the colour holds, beginning with green.
    """

    title: str
    queries: tuple[Query, ...]
    unit: str
    normal: str
    act: str
    kind: str = "timeseries"
    width: int = 8
    height: int = 7
    limits: tuple[tuple[float, str], ...] = ()
    minimum: float | None = 0
    maximum: float | None = None
    stack: bool = False
    decimals: int | None = None

    @property
    def description(self) -> str:
        return f"Normal: {self.normal}\n\nIf not: {self.act}"


@dataclass(frozen=True)
class Row:
    title: str


@dataclass(frozen=True)
class Dashboard:
    """``variables`` are (name, label, query); they narrow each other from left to right."""

    uid: str
    title: str
    about: str
    job: str
    panels: tuple[Panel | Row, ...]
    probe: str  # the metric that every instance of the job has
    extra: tuple[tuple[str, str, str], ...] = ()
    tags: tuple[str, ...] = field(default=("pegel",))


def q(expr: str, legend: str = "", silent: str = "") -> Query:
    return Query(expr, legend, silent)


def _thresholds(limits: tuple[tuple[float, str], ...]) -> Json:
    steps: list[Json] = [{"value": None, "color": "green"}]
    steps += [{"value": value, "color": colour} for value, colour in limits]
    return {"mode": "absolute", "steps": steps}


def _custom(panel: Panel) -> Json:
    if panel.kind != "timeseries":
        return {}
    shown = "off" if not panel.limits else "dashed"
    return {
        "drawStyle": "line",
        "lineInterpolation": "linear",
        "lineWidth": 1,
        "fillOpacity": 25 if panel.stack else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"mode": "normal" if panel.stack else "none", "group": "A"},
        "thresholdsStyle": {"mode": shown},
    }


def _options(panel: Panel) -> Json:
    if panel.kind == "timeseries":
        return {
            "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True,
                       "calcs": ["lastNotNull", "max"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }  # fmt: skip
    if panel.kind == "stat":
        return {
            "colorMode": "background" if panel.limits else "value",
            "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
            "wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard",
            "reduceOptions": {"calcs": ["lastNotNull"], "values": False},
        }  # fmt: skip
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm", "sortBy": []}
    raise ValueError(panel.kind)


def panel_json(panel: Panel, number: int, x: int, y: int) -> Json:
    targets = []
    for letter, query in zip("ABCDEFGHIJ", panel.queries, strict=False):
        table = panel.kind == "table"
        targets.append({
            "refId": letter, "datasource": DATASOURCE, "expr": query.expr,
            "legendFormat": query.legend or "__auto", "range": not table, "instant": table,
            "format": "table" if table else "time_series", "editorMode": "code",
        })  # fmt: skip
    defaults: Json = {
        "unit": panel.unit,
        "thresholds": _thresholds(panel.limits),
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "custom": _custom(panel),
        "mappings": [],
    }
    for name, value in (
        ("min", panel.minimum), ("max", panel.maximum), ("decimals", panel.decimals),
    ):  # fmt: skip
        if value is not None:
            defaults[name] = value
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "targets": targets,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "transformations": _table_columns() if panel.kind == "table" else [],
    }


def _table_columns() -> list[Json]:
    hidden = {"Time": True, "__name__": True, "cluster": True, "job": True}
    return [{"id": "organize", "options": {"excludeByName": hidden}}]


def _variable(name: str, label: str, query: str, *, all_by_default: bool = True) -> Json:
    chosen = {"text": ["All"], "value": ["$__all"]} if all_by_default else {}
    return {
        "type": "query",
        "name": name,
        "label": label,
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": f"variable-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".+",
        "current": {"selected": True, **chosen},
        "hide": 0,
        "options": [],
        "regex": "",
    }


def dashboard_json(board: Dashboard) -> Json:
    panels: list[Json] = []
    x = y = height = 0
    for number, item in enumerate(board.panels, 1):
        if isinstance(item, Row):
            y, x, height = y + height, 0, 0
            panels.append({
                "id": number, "type": "row", "title": item.title, "collapsed": False,
                "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}, "panels": [],
            })  # fmt: skip
            y += 1
            continue
        if x + item.width > WIDTH:
            y, x, height = y + height, 0, 0
        panels.append(panel_json(item, number, x, y))
        x, height = x + item.width, max(height, item.height)
    by_job = f'{board.probe}{{cluster=~"$cluster",job=~"$job"}}'
    variables = [
        {
            "type": "datasource", "name": "datasource", "label": "Prometheus",
            "query": "prometheus", "hide": 0, "includeAll": False, "multi": False, "options": [],
            "current": {"selected": False, "text": "default", "value": "default"},
            "refresh": 1, "regex": "",
        },
        _variable("cluster", "Cluster", f"label_values({board.probe}, cluster)"),
        _variable("job", "Job", f'label_values({board.probe}{{cluster=~"$cluster"}}, job)'),
        _variable("instance", "Instance", f"label_values({by_job}, instance)"),
        *(_variable(*one) for one in board.extra),
    ]  # fmt: skip
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.about,
        "tags": list(board.tags),
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "timepicker": {},
        "annotations": {"list": []},
        "links": [{
            "type": "dashboards", "title": "Pegel", "tags": ["pegel"], "asDropdown": True,
            "includeVars": True, "keepTime": True, "icon": "external link", "targetBlank": False,
            "tooltip": "", "url": "",
        }],
        "templating": {"list": variables},
        "panels": panels,
    }  # fmt: skip
