"""Defines the chart's Grafana dashboards; `python charts/dashboards.py` writes their files.

Each panel asks one question, and its queries answer it. Gauges of the operator are aggregated by their maximum, since
two replicas may report the same job for a short time after a change of the leader.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "openseer" / "files" / "dashboards"
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH, _HEIGHT, _COLUMNS = 12, 8, 2
_OF = '{namespace=~"$namespace",job=~"$job"}'


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. `answer`: description of its values; `unit`: in Grafana's names; `queries`: PromQL by legend."""

    question: str
    answer: str
    unit: str
    queries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard. `of_job`: has variables, with which the user selects namespace and job."""

    name: str
    panels: tuple[Panel, ...]
    of_job: bool = False


def _rate(metric: str, by: str = "") -> str:
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}[$__rate_interval]))"


FLEET = Dashboard(
    "fleet",
    (
        Panel(
            "Is the fleet used?",
            "GPUs of awake workers: busy, or idle without requests.",
            "short",
            {"{{state}}": _rate("openseer_job_gpu_seconds_total", "state")},
        ),
        Panel(
            "Which job wastes GPUs?",
            "Idle GPUs of the ten jobs with the most.",
            "short",
            {
                "{{namespace}}/{{job}}": "topk(10, "
                + _rate('openseer_job_gpu_seconds_total{state="idle"}', "namespace, job")
                + ")"
            },
        ),
        Panel(
            "How fast do jobs generate?",
            "Tokens per second.",
            "short",
            {"{{namespace}}/{{job}}": _rate("openseer_job_tokens_total", "namespace, job")},
        ),
        Panel(
            "How many tokens are left?",
            "Expected remaining tokens, at the mean length of the responses so far.",
            "short",
            {"{{namespace}}/{{job}}": "max by (namespace, job) (openseer_job_backlog_tokens)"},
        ),
        Panel(
            "Which jobs lack workers?",
            "Desired workers that are not ready.",
            "short",
            {
                "{{namespace}}/{{job}}": 'max by (namespace, job) (openseer_job_workers{state="desired"})'
                ' - max by (namespace, job) (openseer_job_workers{state="ready"})'
            },
        ),
        Panel(
            "How busy are the GPUs themselves?",
            "Share of the time in which a kernel ran, by NVML.",
            "percentunit",
            {"{{namespace}}/{{job}}": "avg by (namespace, job) (openseer_worker_gpu_utilisation_ratio)"},
        ),
    ),
)

JOB = Dashboard(
    "job",
    (
        Panel(
            "How far is it?",
            "Requests of the present batches, by state.",
            "short",
            {"{{state}}": f"max by (state) (openseer_job_requests{_OF})"},
        ),
        Panel("How fast is it?", "Tokens per second.", "short", {"tokens/s": _rate(f"openseer_job_tokens_total{_OF}")}),
        Panel(
            "Which workers delay the batch?",
            "Responses that each worker holds; in the tail, workers that still hold responses delay the batch.",
            "short",
            {"worker {{worker}}": f"sum by (worker) (openseer_worker_inflight{_OF})"},
        ),
        Panel(
            "Which worker is slow?",
            "Tokens per second of one running response, by worker.",
            "short",
            {
                "worker {{worker}}": _rate(f"openseer_worker_tokens_total{_OF}", "worker")
                + f" / (sum by (worker) (avg_over_time(openseer_worker_running{_OF}[$__rate_interval])) > 0)"
            },
        ),
        Panel(
            "Is the KV cache the limit?",
            "Reserved share of the KV cache; near 100 % a worker claims no further request.",
            "percentunit",
            {"worker {{worker}}": f"max by (worker) (openseer_worker_kv_reserved_ratio{_OF})"},
        ),
        Panel(
            "Do drafts pay?",
            "Acceptance length: mean tokens per request and step; 1 without drafts.",
            "short",
            {
                "worker {{worker}}": _rate(f"openseer_worker_row_tokens_total{_OF}", "worker")
                + " / "
                + _rate(f"openseer_worker_row_steps_total{_OF}", "worker")
            },
        ),
        Panel(
            "What is computed twice?",
            "Context tokens computed per second: all, and those of responses that ran before.",
            "short",
            {
                "computed": _rate(f"openseer_worker_computed_tokens_total{_OF}"),
                "of responses that ran before": _rate(f"openseer_worker_recomputed_tokens_total{_OF}"),
            },
        ),
        Panel(
            "Are its GPUs idle?",
            "GPUs of awake workers: busy or idle.",
            "short",
            {"{{state}}": _rate(f"openseer_job_gpu_seconds_total{_OF}", "state")},
        ),
        Panel(
            "Are new weights late?",
            "Age of the active weights transaction.",
            "s",
            {"transaction": f"max(openseer_job_weights_transaction_seconds{_OF})"},
        ),
        Panel(
            "Do workers or driver fail?",
            "Ends without a deletion of the pod, within an hour, by component.",
            "short",
            {"{{component}}": f"sum by (component) (increase(openseer_job_ended_members_total{_OF}[1h]))"},
        ),
    ),
    of_job=True,
)

OPERATOR = Dashboard(
    "operator",
    (
        Panel("Does a replica lead?", "1 while one leads.", "short", {"leaders": "sum(openseer_operator_leader)"}),
        Panel(
            "Does it keep up?",
            "Longest present wait for a reconcile step, or duration of the longest running one.",
            "s",
            {"lag": "max(openseer_operator_lag_seconds)"},
        ),
        Panel(
            "How long does a reconcile step take?",
            "95th percentiles of the duration of one job's step, and of the job's wait for it.",
            "s",
            {
                "step": f"histogram_quantile(0.95, {_rate('openseer_reconcile_seconds_bucket', 'le')})",
                "wait": f"histogram_quantile(0.95, {_rate('openseer_reconcile_wait_seconds_bucket', 'le')})",
            },
        ),
        Panel(
            "Do reconcile steps fail?",
            "Failed steps per second; they are repeated.",
            "short",
            {"failed steps": _rate("openseer_reconcile_errors_total")},
        ),
        Panel(
            "Which calls does it make?",
            "Calls of the Kubernetes API per second, without watches.",
            "reqps",
            {"{{verb}}": _rate("openseer_operator_api_calls_total", "verb")},
        ),
        Panel(
            "Which calls does Kubernetes refuse?",
            "Failed calls per second; 404 and 409 are normal; 0: no answer.",
            "reqps",
            {"{{kind}} {{code}}": _rate('openseer_operator_api_calls_total{code!~"2.."}', "kind, code")},
        ),
    ),
)

API = Dashboard(
    "api",
    (
        Panel(
            "Which answers do callers get?",
            "Answers per second, by HTTP status.",
            "reqps",
            {"{{code}}": _rate("openseer_api_calls_total", "code")},
        ),
        Panel(
            "Which jobs' calls are refused, or fail?",
            "4xx: errors of the caller; 429 and 503: repeat the call; other 5xx: errors of openseer.",
            "reqps",
            {
                "{{namespace}}/{{job}} {{code}}": _rate(
                    'openseer_api_calls_total{code=~"4..|5.."}', "namespace, job, code"
                )
            },
        ),
        Panel(
            "Which jobs have most calls?",
            "Answers per second.",
            "reqps",
            {"{{namespace}}/{{job}}": _rate("openseer_api_calls_total", "namespace, job")},
        ),
        Panel(
            "Do requests of compatible clients find their groups?",
            "Requests per second of the compatible routes: all, and those that joined a group.",
            "reqps",
            {
                "requests": _rate("openseer_api_compatible_requests_total"),
                "in groups": _rate("openseer_api_compatible_grouped_total"),
            },
        ),
    ),
)

STORE = Dashboard(
    "store",
    (
        Panel(
            "Does every store answer?",
            "1 while a job's store answers the operator.",
            "short",
            {"{{namespace}}/{{job}}": "max by (namespace, job) (openseer_job_store_up)"},
        ),
        Panel(
            "Is a store slow?",
            "Duration of the operator's latest read, which takes a few calls.",
            "s",
            {"{{namespace}}/{{job}}": "max by (namespace, job) (openseer_job_store_read_seconds)"},
        ),
        Panel(
            "Is a store nearly full?",
            "Used share of the memory limit; at the limit no request is leased.",
            "percentunit",
            {
                "{{namespace}}/{{job}}": "max by (namespace, job) (openseer_job_store_memory_used_bytes)"
                " / max by (namespace, job) (openseer_job_store_memory_limit_bytes)"
            },
        ),
        Panel(
            "How much do stores hold?",
            "Memory in use.",
            "bytes",
            {"{{namespace}}/{{job}}": "max by (namespace, job) (openseer_job_store_memory_used_bytes)"},
        ),
        Panel(
            "Do workers write checkpoints less often?",
            "Interval of checkpoints; it grows with the store's latency and the size of the fleet, up to 2 s.",
            "s",
            {"{{namespace}}/{{job}}": "max by (namespace, job) (openseer_worker_checkpoint_interval_seconds)"},
        ),
        Panel(
            "Does the KV pool fail?",
            "Failed fetches, and blocks that were not written, per second; contexts are computed instead.",
            "short",
            {
                "failed fetches": _rate("openseer_worker_kv_pool_failed_loads_total"),
                "blocks not written": _rate("openseer_worker_kv_pool_unsaved_blocks_total"),
            },
        ),
    ),
)

DASHBOARDS = (FLEET, JOB, OPERATOR, API, STORE)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """Returns a dashboard in Grafana's JSON format."""
    return {
        "uid": f"openseer-{dashboard.name}",
        "title": f"openseer / {dashboard.name}",
        "tags": ["openseer"],
        "schemaVersion": 38,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "links": [{"type": "dashboards", "title": "openseer", "tags": ["openseer"], "keepTime": True}],
        "templating": {"list": list(_variables(dashboard))},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _variables(dashboard: Dashboard) -> Iterator[dict[str, Any]]:
    yield {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"}
    if dashboard.of_job:
        yield _variable("namespace", "label_values(openseer_job_requests, namespace)")
        yield _variable("job", 'label_values(openseer_job_requests{namespace="$namespace"}, job)')


def _variable(name: str, query: str) -> dict[str, Any]:
    return {"type": "query", "name": name, "datasource": _SOURCE, "query": query, "refresh": 2, "sort": 1}


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    row, column = divmod(number, _COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.question,
        "description": panel.answer,
        "datasource": _SOURCE,
        "gridPos": {"h": _HEIGHT, "w": _WIDTH, "x": column * _WIDTH, "y": row * _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [
            {"refId": chr(ord("A") + place), "datasource": _SOURCE, "expr": expression, "legendFormat": legend}
            for place, (legend, expression) in enumerate(panel.queries.items())
        ],
    }


def text_of(dashboard: Dashboard) -> str:
    """Returns the text of a dashboard's file."""
    return json.dumps(document(dashboard), indent=2) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each.name}.json").write_text(text_of(each), encoding="utf-8")
