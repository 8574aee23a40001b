"""Dashboards and alerts query existing metrics, and each alert fires only for its cause."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from charts.dashboards import DASHBOARDS, FOLDER, text_of
from openseer_process.metric_table import BY_NAME
from tests.charts.rendering import CHART, HELM, VARIANTS, program, template
from tests.repository import ROOT

ALERTS = CHART / "files" / "alerts.yaml"
PROMTOOL = program("promtool")
OF_TARGETS = {"namespace", "job", "worker", "pod", "le"}
"""Labels that a target gives its metrics, and that of a histogram's buckets."""
SAMPLES = {sample: metric for metric in BY_NAME.values() for sample in metric.sample_names}

needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool: make prometheus-prepare gets it from Debian")
needs_helm = pytest.mark.skipif(HELM is None, reason="no helm: neither on the path nor built by cluster/build.sh")


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    return group["rules"]


def expressions() -> Iterator[tuple[str, str]]:
    """Each query, with the name of its alert or panel before it."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries.values():
                yield f"{dashboard.name}: {panel.question}", query


def test_dashboard_files_equal_their_definitions() -> None:
    for dashboard in DASHBOARDS:
        path = FOLDER / f"{dashboard.name}.json"
        if os.environ.get("OPENSEER_REWRITE"):
            path.write_text(text_of(dashboard), encoding="utf-8")
        assert path.read_text(encoding="utf-8") == text_of(dashboard)
    assert {path.stem for path in FOLDER.iterdir()} == {dashboard.name for dashboard in DASHBOARDS}


@pytest.mark.parametrize(("whose", "query"), tuple(expressions()))
def test_a_query_names_existing_metrics_and_labels(whose: str, query: str) -> None:
    named = re.findall(r"(openseer_\w+)(?:\{([^}]*)\})?", query)
    assert named, whose
    for name, matchers in named:
        assert name in SAMPLES, (whose, name)
        labels = set(re.findall(r"(\w+)\s*[=!]~?\s*\"", matchers))
        assert labels <= {*SAMPLES[name].label_names, *OF_TARGETS}, (whose, name)
    of_all = {label for name, _ in named for label in SAMPLES[name].label_names}
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        assert set(grouped.split(", ")) <= of_all | OF_TARGETS, whose


def test_every_alert_has_texts_and_a_runbook_and_vice_versa() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    linked: set[str] = set()
    for rule in rules():
        assert {"summary", "description", "runbook_url"} == rule["annotations"].keys()
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert page == "docs/runbooks.md"
        assert f"`{rule['alert']}`" in text
        linked.add(anchor)
    assert linked == anchors


def test_a_runbook_names_existing_panels() -> None:
    text = (ROOT / "docs" / "runbooks.md").read_text(encoding="utf-8")
    named = re.findall(r'"([^"]+\?)"', text)
    assert named
    assert set(named) <= {panel.question for dashboard in DASHBOARDS for panel in dashboard.panels}


@needs_promtool
@pytest.mark.parametrize(
    "arguments", [("check", "rules", str(ALERTS)), ("test", "rules", str(ROOT / "tests/charts/alerts_test.yaml"))]
)
def test_rules_are_valid_and_each_alert_fires_only_for_its_cause(arguments: tuple[str, ...]) -> None:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_cause_among_the_tests() -> None:
    text = (ROOT / "tests" / "charts" / "alerts_test.yaml").read_text(encoding="utf-8")
    for rule in rules():
        assert re.search(rf"alertname: {rule['alert']}\n    exp_alerts:\n    - exp_labels", text), rule["alert"]


@needs_helm
def test_the_chart_makes_dashboards_and_alerts_on_request() -> None:
    done = template(VARIANTS["everything on"])
    found = [entry for entry in yaml.safe_load_all(done.stdout) if entry]
    maps = {entry["metadata"]["name"]: entry for entry in found if "-dashboard-" in entry["metadata"]["name"]}
    for dashboard in DASHBOARDS:
        made = maps.pop(f"rel-openseer-dashboard-{dashboard.name}")
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(made["data"][f"openseer-{dashboard.name}.json"])["panels"]
    assert not maps
    (rule,) = (entry for entry in found if entry["kind"] == "PrometheusRule")
    told = rule["spec"]["groups"][0]["rules"]
    assert [each["expr"] for each in told] == [each["expr"] for each in rules()]
    assert told[0]["annotations"]["runbook_url"] == "https://wiki.example/runs#job-stuck"
    assert "{{ $labels.job }}" in told[0]["annotations"]["summary"]


@needs_helm
def test_metrics_of_pods_have_labels_of_job_and_worker() -> None:
    done = template(VARIANTS["everything on"])
    monitors = {
        entry["metadata"]["name"]: entry["spec"]
        for entry in yaml.safe_load_all(done.stdout)
        if entry and entry["kind"] == "PodMonitor"
    }
    jobs, gateway = monitors["rel-openseer-jobs"], monitors["rel-openseer-api"]
    (endpoint,) = jobs["podMetricsEndpoints"]
    assert [each["targetLabel"] for each in endpoint["relabelings"]] == ["job", "worker"]
    assert jobs["namespaceSelector"] == {"any": True}
    (endpoint,) = gateway["podMetricsEndpoints"]
    assert (endpoint["port"], endpoint["honorLabels"]) == ("metrics", True)


@needs_helm
@pytest.mark.parametrize("variant", ["as it is", "namespaced", "everything off"])
def test_monitoring_objects_are_off_by_default(variant: str) -> None:
    done = template(VARIANTS[variant])
    kinds = [entry["kind"] for entry in yaml.safe_load_all(done.stdout) if entry]
    assert not {"PodMonitor", "PrometheusRule", "ServiceMonitor"} & set(kinds)
    assert "-dashboard-" not in done.stdout
