"""The dashboards load, and every query draws something that is exported."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard as Model

from cluster.series import HISTOGRAM, JOB_LABELS, RUN_SERIES, WORKER_SERIES
from k8s.monitoring.__main__ import DASHBOARDS, FOLDER, path_of, text_of
from k8s.monitoring.grafana import Dashboard
from k8s.monitoring.operations import RAY_SERIES

MONITORING = Path(__file__).parents[2] / "k8s" / "monitoring"
SERIES = (*RUN_SERIES, *WORKER_SERIES)
OURS = {one.exported: one for one in SERIES if one.kind != HISTOGRAM} | {
    f"{one.exported}_{part}": one
    for one in SERIES
    if one.kind == HISTOGRAM
    for part in ("bucket", "count", "sum")
}
OF_RAY = {"NodeAddress", "le"}
"""Labels that Ray and Prometheus put on our series."""


def loaded(dashboard: Dashboard) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path_of(dashboard).read_text())
    return found


def expressions(dashboard: Dashboard) -> Iterator[tuple[str, str]]:
    """(panel, PromQL) as Prometheus gets it."""
    for panel in loaded(dashboard)["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", "5m").replace("$__range", "6h")
            yield panel["title"], text.replace("$project", ".*").replace("$job_name", ".*")


def alert_expressions() -> Iterator[str]:
    rule = yaml.safe_load((MONITORING / "prometheus-rule.yaml").read_text())
    for group in rule["spec"]["groups"]:
        yield from (one["expr"] for one in group["rules"])


def names(expr: str) -> set[str]:
    """The metrics of an expression."""
    found: set[str] = set()

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        return True

    promql_parser.walk(promql_parser.parse(expr), visit)
    return found


QUERIES = [
    pytest.param(expr, id=f"{dashboard.uid}: {title}")
    for dashboard in DASHBOARDS
    for title, expr in expressions(dashboard)
]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_the_file_is_what_the_module_writes(dashboard: Dashboard) -> None:
    assert path_of(dashboard).read_text() == text_of(dashboard), (
        f"{path_of(dashboard)} is stale: run python -m k8s.monitoring"
    )


def test_every_file_is_a_dashboard_and_is_shipped() -> None:
    files = {path_of(dashboard) for dashboard in DASHBOARDS}
    assert {*FOLDER.iterdir()} == files
    kustomization = yaml.safe_load((MONITORING / "kustomization.yaml").read_text())
    shipped = kustomization["configMapGenerator"][0]["files"]
    assert {MONITORING / one for one in shipped} == files


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_grafanas_own_model_of_dashboards_reads_all_of_it(dashboard: Dashboard) -> None:
    model = Model.from_json(loaded(dashboard))
    assert model.uid == dashboard.uid
    assert [panel.title for panel in model.panels or ()] == [
        title for row in dashboard.rows for title in (row.title, *(p.title for p in row.panels))
    ]
    assert model.templating is not None
    chosen = [variable.name for variable in model.templating.list_val or ()]
    assert chosen == ["datasource", "project", "job_name"]


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_panels_lie_beside_each_other_and_not_on_each_other(dashboard: Dashboard) -> None:
    taken: set[tuple[int, int]] = set()
    ids: set[int] = set()
    for panel in loaded(dashboard)["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not taken & cells, panel["title"]
        taken |= cells
        assert panel["id"] not in ids
        ids.add(panel["id"])


@pytest.mark.parametrize("expr", QUERIES)
def test_the_query_parses_and_asks_for_what_is_exported(expr: str) -> None:
    assert names(expr) <= OURS.keys() | {*RAY_SERIES}, expr


@pytest.mark.parametrize("expr", [*alert_expressions()])
def test_the_alert_asks_for_our_own_metrics_alone(expr: str) -> None:
    assert names(expr)
    assert names(expr) <= OURS.keys(), expr


def test_only_labels_that_are_there_are_asked_for() -> None:
    known = {*OF_RAY, *JOB_LABELS}.union(*(one.labels for one in SERIES))

    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            asked.update(node.modifier.labels)
        if isinstance(node, promql_parser.VectorSelector) and node.name in OURS:
            given = {matcher.name for matcher in node.matchers.matchers}
            assert given <= {*JOB_LABELS, *OURS[node.name].labels}, str(node)
        return True

    asked: set[str] = set()
    ours = [*alert_expressions()]
    ours += [expr for d in DASHBOARDS for _, expr in expressions(d) if "ray_node" not in expr]
    for expr in ours:
        promql_parser.walk(promql_parser.parse(expr), visit)
    assert asked <= known


def test_every_metric_of_ours_is_drawn_or_watched_and_so_is_each_of_rays() -> None:
    used = {name for d in DASHBOARDS for _, expr in expressions(d) for name in names(expr)}
    used |= {name for expr in alert_expressions() for name in names(expr)}
    base = {OURS[name].exported for name in used if name in OURS}
    assert {one.exported for one in SERIES} - base == set()
    assert {*RAY_SERIES} - used == set()


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda one: one.uid)
def test_amounts_of_different_currencies_are_never_added_up(dashboard: Dashboard) -> None:
    def visit(node: promql_parser.Expr) -> bool:
        if isinstance(node, promql_parser.AggregateExpr) and node.modifier is not None:
            money = [name for name in names(str(node.expr)) if name in in_currency]
            assert not money or "currency" in node.modifier.labels, str(node)
        elif isinstance(node, promql_parser.AggregateExpr):
            assert not in_currency & names(str(node.expr)), str(node)
        return True

    in_currency = {name for name, one in OURS.items() if "currency" in one.labels}
    assert in_currency
    for _, expr in expressions(dashboard):
        promql_parser.walk(promql_parser.parse(expr), visit)


def test_every_panel_says_what_it_shows() -> None:
    for dashboard in DASHBOARDS:
        for panel in loaded(dashboard)["panels"]:
            if panel["type"] != "row":
                assert panel["description"].endswith("."), panel["title"]
