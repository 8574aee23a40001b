"""The table of metrics has every exported metric, and docs/metrics.md shows the table."""

from collections.abc import Mapping, Sequence

import pytest

from openseer_operator.kube.api import RESOURCES
from openseer_process.metric_table import BY_NAME, METRICS, ExportedMetric
from tests.contract.forms.recorded import load
from tests.contract.pages.marked import holds

HEAD = "| metric | type | unit | further labels | meaning |\n|---|---|---|---|---|\n"
BOUNDS = "| label | metrics | values |\n|---|---|---|\n"
EVERYWHERE = ("namespace", "job")


def recorded(process: str) -> dict[str, list[str]]:
    """The samples that a process exports, as `counter NAME`, with their labels."""
    if process == "worker":
        return {name: labels for part in load("metrics_worker").values() for name, labels in part.items()}
    return load(f"metrics_{process}")


@pytest.mark.parametrize("process", ["operator", "driver", "worker", "api"])
def test_a_process_exports_the_metrics_of_the_table(process: str) -> None:
    labels: dict[str, Sequence[str]] = {}
    for metric in METRICS[process]:
        for sample in metric.sample_names:
            more = ("le",) if sample.endswith("_bucket") else ()
            labels[f"{metric.kind} {sample}"] = sorted((*metric.label_names, *more))
    assert {name: found for name, found in recorded(process).items() if not name.endswith("_created")} == labels


def test_a_metric_is_defined_once_with_unit_and_description() -> None:
    for metrics in METRICS.values():
        assert len({metric.name for metric in metrics}) == len(metrics)
        for metric in metrics:
            assert BY_NAME[metric.name] == metric
            assert metric.unit
            assert metric.text.endswith(".")
            assert all(label.values for label in metric.labels)
            assert (metric.kind == "counter") == metric.name.endswith("_total")


def test_the_label_kind_counts_the_operators_kinds() -> None:
    labels = BY_NAME["openseer_operator_api_calls_total"].labels
    (kind,) = (label.values for label in labels if label.name == "kind")
    assert kind.startswith(f"{len(RESOURCES)}: ")


def test_the_page_shows_the_table() -> None:
    holds("metrics.md", tables())


def tables() -> Mapping[str, str]:
    """The generated tables of the page, by the mark at their beginning."""
    found = {f"metrics: {process}": HEAD + "".join(map(row, metrics)) for process, metrics in METRICS.items()}
    bounds: dict[tuple[str, str], list[str]] = {}
    for metric in BY_NAME.values():
        for label in metric.labels:
            bounds.setdefault((label.name, label.values), []).append(f"`{metric.name}`")
    lines = [
        f"| {name} | {'all metrics of jobs' if name in EVERYWHERE else ', '.join(metrics)} | {values} |\n"
        for (name, values), metrics in bounds.items()
    ]
    return {**found, "labels": BOUNDS + "".join(lines)}


def row(metric: ExportedMetric) -> str:
    labels = ", ".join(name for name in metric.label_names if name not in EVERYWHERE)
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.text} |\n"
