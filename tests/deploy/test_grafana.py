"""The dashboard is one that Grafana takes, and reads what a run exports (see also test_ray_metrics.py)."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest
from pydantic import ValidationError
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from tests.conftest import ROOT
from tests.support.grafana import Dashboard, Panel

# A word of PromQL that is no metric: a function, an operator, a label, a variable, a duration.
NO_METRIC = re.compile(r'"[^"]*"|\{[^}]*\}|\[\w+\]|\bby \([^)]*\)|\b(sum|rate|increase|by)\b')


@pytest.fixture(scope="module")
def given() -> Any:
    return json.loads((ROOT / "deploy" / "grafana.json").read_text())


@pytest.fixture(scope="module")
def dashboard(given: Any) -> Dashboard:
    return Dashboard.model_validate(given)


def test_the_dashboard_has_the_fields_that_grafana_knows(given: Any) -> None:
    Dashboard.model_validate(given)
    with pytest.raises(ValidationError, match="schemaVersion"):
        Dashboard.model_validate({**given, "schemaVersion": "39"})
    with pytest.raises(ValidationError, match="pannels"):
        Dashboard.model_validate({**given, "pannels": []})


def test_panels_have_numbers_of_their_own_and_do_not_overlap(dashboard: Dashboard) -> None:
    assert len({panel.id for panel in dashboard.panels}) == len(dashboard.panels)
    assert len({panel.title for panel in dashboard.panels}) == len(dashboard.panels)
    for panel in dashboard.panels:
        assert panel.gridPos.x + panel.gridPos.w <= 24 and panel.gridPos.w and panel.gridPos.h
    for one, other in combinations(dashboard.panels, 2):
        assert not _overlap(one, other), (one.title, other.title)


def _overlap(one: Panel, other: Panel) -> bool:
    a, b = one.gridPos, other.gridPos
    return a.x < b.x + b.w and b.x < a.x + a.w and a.y < b.y + b.h and b.y < a.y + a.h


def test_every_expression_reads_a_metric_of_ours_or_of_ray(dashboard: Dashboard) -> None:
    source = (ROOT / "pipelines" / "engine" / "ray_metrics.py").read_text()
    ours = set()
    for kind, name in re.findall(r'(Gauge|Counter)\(\s*"(interavatar_\w+)"', source):
        ours.add(f"ray_{name}" + ("_total" if kind == "Counter" else ""))
    assert len(ours) == 9
    rays = {f"ray_{name}" for name in METRICS_GAUGES}
    read: set[str] = set()
    for panel in dashboard.panels:
        for target in panel.targets:
            words = set(re.findall(r"[a-z]\w+", NO_METRIC.sub(" ", target.expr)))
            assert words and words <= ours | rays, (panel.title, words - ours - rays)
            assert target.expr.count("(") == target.expr.count(")")
            assert words <= rays or '{pipeline=~"$pipeline",run_id=~"$run_id"' in target.expr
            read |= words
    assert ours <= read | {"ray_interavatar_stage_samples_due"}


def test_every_variable_of_an_expression_is_declared(dashboard: Dashboard) -> None:
    declared = {variable.name for variable in dashboard.templating.all}
    used = {v for panel in dashboard.panels for t in panel.targets for v in re.findall(r"\$(\w+)", t.expr)}
    assert used == {"pipeline", "run_id"} and declared == used | {"datasource"}
    legends = "".join(target.legendFormat for panel in dashboard.panels for target in panel.targets)
    assert set(re.findall(r"\{\{(\w+)\}\}", legends)) == {"outcome", "stage", "ip", "GpuIndex"}
