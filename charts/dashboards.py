"""The chart's Grafana dashboards, made from a list of questions: `python charts/dashboards.py` writes them anew.

A panel asks one question, and its queries answer it. Gauges of the operator are taken by their maximum: after a change
of its leader two replicas may tell of the same job for a moment.
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
    """`answer`: how to read it; `unit`: as Grafana names it; `queries`: by their legend."""

    question: str
    answer: str
    unit: str
    queries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Dashboard:
    """`of_job`: a job is chosen in it."""

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
            "GPUs of awake workers that run something, and that wait for something to run.",
            "short",
            {"{{state}}": _rate("openseer_job_gpu_seconds_total", "state")},
        ),
        Panel(
            "Which job wastes GPUs?",
            "Idle GPUs of the ten jobs that have most of them.",
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
            "What is left to do?",
            "Tokens to come, at the mean length of the responses so far.",
            "short",
            {"{{namespace}}/{{job}}": "max by (namespace, job) (openseer_job_backlog_tokens)"},
        ),
        Panel(
            "Whose workers are missing?",
            "Workers that are asked for and not ready.",
            "short",
            {
                "{{namespace}}/{{job}}": 'max by (namespace, job) (openseer_job_workers{state="desired"})'
                ' - max by (namespace, job) (openseer_job_workers{state="ready"})'
            },
        ),
        Panel(
            "How busy are the GPUs themselves?",
            "Part of the time in which something ran, as NVML tells.",
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
            "Requests of the batches that are there.",
            "short",
            {"{{state}}": f"max by (state) (openseer_job_requests{_OF})"},
        ),
        Panel("How fast is it?", "Tokens per second.", "short", {"tokens/s": _rate(f"openseer_job_tokens_total{_OF}")}),
        Panel(
            "Who holds the batch up?",
            "Responses that each worker holds: in the tail, those who still hold some hold the batch up.",
            "short",
            {"worker {{worker}}": f"sum by (worker) (openseer_worker_inflight{_OF})"},
        ),
        Panel(
            "Which worker is slow?",
            "Tokens per second that one running response gains at each worker.",
            "short",
            {
                "worker {{worker}}": _rate(f"openseer_worker_tokens_total{_OF}", "worker")
                + f" / (sum by (worker) (avg_over_time(openseer_worker_running{_OF}[$__rate_interval])) > 0)"
            },
        ),
        Panel(
            "Is the KV cache the limit?",
            "Part of the KV cache that is promised: near 100 % no further response is taken.",
            "percentunit",
            {"worker {{worker}}": f"max by (worker) (openseer_worker_kv_reserved_ratio{_OF})"},
        ),
        Panel(
            "Do drafts pay?",
            "Acceptance length: tokens that a request gains in a step; 1 without drafts.",
            "short",
            {
                "worker {{worker}}": _rate(f"openseer_worker_row_tokens_total{_OF}", "worker")
                + " / "
                + _rate(f"openseer_worker_row_steps_total{_OF}", "worker")
            },
        ),
        Panel(
            "What is computed twice?",
            "Tokens of context computed per second, and of these those of responses that ran before.",
            "short",
            {
                "computed": _rate(f"openseer_worker_computed_tokens_total{_OF}"),
                "of responses that ran before": _rate(f"openseer_worker_recomputed_tokens_total{_OF}"),
            },
        ),
        Panel(
            "Are its GPUs idle?",
            "GPUs of awake workers, by whether they run something.",
            "short",
            {"{{state}}": _rate(f"openseer_job_gpu_seconds_total{_OF}", "state")},
        ),
        Panel(
            "Are new weights late?",
            "How long the weights transaction that is on has taken.",
            "s",
            {"transaction": f"max(openseer_job_weights_transaction_seconds{_OF})"},
        ),
        Panel(
            "Do its members come and go?",
            "Ends that nobody asked for, within an hour.",
            "short",
            {"{{component}}": f"sum by (component) (increase(openseer_job_ended_members_total{_OF}[1h]))"},
        ),
    ),
    of_job=True,
)

OPERATOR = Dashboard(
    "operator",
    (
        Panel("Does a replica lead?", "1 while one does.", "short", {"leaders": "sum(openseer_operator_leader)"}),
        Panel(
            "Does it keep up?",
            "Age of the oldest wait or look at a job.",
            "s",
            {"lag": "max(openseer_operator_lag_seconds)"},
        ),
        Panel(
            "How long does a look take?",
            "95th percentiles: of a look at one job, and of a job's wait for it.",
            "s",
            {
                "look": f"histogram_quantile(0.95, {_rate('openseer_reconcile_seconds_bucket', 'le')})",
                "wait": f"histogram_quantile(0.95, {_rate('openseer_reconcile_wait_seconds_bucket', 'le')})",
            },
        ),
        Panel(
            "Do looks fail?",
            "Per second; they are repeated.",
            "short",
            {"failed looks": _rate("openseer_reconcile_errors_total")},
        ),
        Panel(
            "What does it ask of Kubernetes?",
            "Calls per second, beside watches.",
            "reqps",
            {"{{verb}}": _rate("openseer_operator_api_calls_total", "verb")},
        ),
        Panel(
            "What does Kubernetes refuse?",
            "Calls per second without success; 404 and 409 are part of the work, 0 is no answer.",
            "reqps",
            {"{{kind}} {{code}}": _rate('openseer_operator_api_calls_total{code!~"2.."}', "kind, code")},
        ),
    ),
)

API = Dashboard(
    "api",
    (
        Panel(
            "What do callers get?",
            "Answers per second, by HTTP status.",
            "reqps",
            {"{{code}}": _rate("openseer_api_calls_total", "code")},
        ),
        Panel(
            "Whose calls are refused, or fail?",
            "4xx: the call's own fault; 429 and 503: to be repeated; other 5xx: openseer's fault.",
            "reqps",
            {
                "{{namespace}}/{{job}} {{code}}": _rate(
                    'openseer_api_calls_total{code=~"4..|5.."}', "namespace, job, code"
                )
            },
        ),
        Panel(
            "Who calls most?",
            "Answers per second.",
            "reqps",
            {"{{namespace}}/{{job}}": _rate("openseer_api_calls_total", "namespace, job")},
        ),
        Panel(
            "Do requests of compatible clients find their groups?",
            "Requests per second of the compatible routes, and of these those in groups.",
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
            "How long the operator's latest reading took: a handful of calls.",
            "s",
            {"{{namespace}}/{{job}}": "max by (namespace, job) (openseer_job_store_read_seconds)"},
        ),
        Panel(
            "Is a store nearly full?",
            "Used part of the memory that it may use: at the limit nothing is leased.",
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
            "Do workers write less often for it?",
            "Interval of checkpoints: it grows with the store's latency and the size of the fleet, up to 2 s.",
            "s",
            {"{{namespace}}/{{job}}": "max by (namespace, job) (openseer_worker_checkpoint_interval_seconds)"},
        ),
        Panel(
            "Does the KV pool fail?",
            "Fetches that failed, and blocks that were not taken, per second; each costs a context's computation.",
            "short",
            {
                "failed fetches": _rate("openseer_worker_kv_pool_failed_loads_total"),
                "blocks not taken": _rate("openseer_worker_kv_pool_unsaved_blocks_total"),
            },
        ),
    ),
)

DASHBOARDS = (FLEET, JOB, OPERATOR, API, STORE)


def document(dashboard: Dashboard) -> dict[str, Any]:
    """A dashboard as Grafana reads it."""
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
    """The file of a dashboard."""
    return json.dumps(document(dashboard), indent=2) + "\n"


if __name__ == "__main__":
    for each in DASHBOARDS:
        (FOLDER / f"{each.name}.json").write_text(text_of(each), encoding="utf-8")
