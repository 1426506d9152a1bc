"""Dashboards as Grafana loads them: rows of panels, each of which draws some queries of Prometheus.

Knows Grafana's JSON and nothing of what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Json = dict[str, Any]
Kind = Literal["timeseries", "stat", "gauge", "table"]
_COLUMNS = 24
_SCHEMA = 39
"""Of Grafana 10 and later, which bring older ones up to date when they load them."""
_SOURCE: Json = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """PromQL, and how its series are called: text with {{labels}}."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """``width`` in 24ths of the page, ``height`` in Grafana's units. ``decimals`` None: as Grafana
    likes."""

    title: str
    about: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    stacked: bool = False
    most: float | None = None
    decimals: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Panels under a title, from left to right and then down."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A choice that the queries name with $name; its values are those of a label."""

    name: str
    label: str
    values: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """``uid`` is part of its address and never changes."""

    uid: str
    title: str
    about: str
    variables: tuple[Variable, ...]
    rows: tuple[Row, ...]
    last: str = "6h"

    def to_json(self) -> Json:
        """As Grafana exports it."""
        return {
            "uid": self.uid,
            "title": self.title,
            "description": self.about,
            "tags": ["imagemill"],
            "schemaVersion": _SCHEMA,
            "version": 1,
            "editable": True,
            "graphTooltip": 1,
            "timezone": "browser",
            "refresh": "30s",
            "time": {"from": f"now-{self.last}", "to": "now"},
            "annotations": {"list": []},
            "links": [],
            "templating": {"list": [_datasource(), *map(_variable, self.variables)]},
            "panels": list(_placed(self.rows)),
        }


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
    }


def _variable(variable: Variable) -> Json:
    return {
        "name": variable.name,
        "label": variable.label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": variable.values,
        "query": {"query": variable.values, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _placed(rows: Sequence[Row]) -> Iterator[Json]:
    number, top = 0, 0
    for row in rows:
        number += 1
        yield {
            "id": number,
            "type": "row",
            "title": row.title,
            "collapsed": False,
            "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": top},
            "panels": [],
        }
        top += 1
        left, height = 0, 0
        for panel in row.panels:
            if left + panel.width > _COLUMNS:
                left, top, height = 0, top + height, 0
            number += 1
            yield {
                "id": number,
                "gridPos": {"h": panel.height, "w": panel.width, "x": left, "y": top},
                **_panel(panel),
            }
            left += panel.width
            height = max(height, panel.height)
        top += height


def _panel(panel: Panel) -> Json:
    at_once = panel.kind != "timeseries"
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": _SOURCE,
        "targets": [
            _target(query, chr(ord("A") + n), at_once=at_once, table=panel.kind == "table")
            for n, query in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel.kind),
    }


def _target(query: Query, ref: str, *, at_once: bool, table: bool) -> Json:
    return {
        "refId": ref,
        "datasource": _SOURCE,
        "editorMode": "code",
        "expr": query.expr,
        "legendFormat": query.legend or "__auto",
        "instant": at_once,
        "range": not at_once,
        "format": "table" if table else "time_series",
    }


def _defaults(panel: Panel) -> Json:
    found: Json = {"unit": panel.unit, "min": 0}
    if panel.most is not None:
        found["max"] = panel.most
    if panel.decimals is not None:
        found["decimals"] = panel.decimals
    if panel.kind == "timeseries":
        mode = "normal" if panel.stacked else "none"
        found["custom"] = {
            "drawStyle": "line",
            "lineWidth": 1,
            "fillOpacity": 20 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": mode, "group": "A"},
        }
    return found


def _options(kind: Kind) -> Json:
    if kind == "timeseries":
        return {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    if kind == "table":
        return {"showHeader": True}
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
