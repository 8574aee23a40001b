"""Every metric that a process of openseer exports, in one table: code, docs/metrics.md and the chart's dashboards and
alerts are held to it.

Names follow Prometheus: base units, `_total` for what only grows. A label has few values, and each says how many.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

MetricKind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricLabel:
    """A label of a metric. `values`: which it has, and how many at most."""

    name: str
    values: str


@dataclass(frozen=True, slots=True)
class ExportedMetric:
    """A metric by the name that Prometheus knows it under. `unit`: of its value; 1 stands for yes or no."""

    name: str
    kind: MetricKind
    unit: str
    text: str
    labels: tuple[MetricLabel, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """In their order; a histogram's `le` is not among them."""
        return tuple(label.name for label in self.labels)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """The names of its samples."""
        ends = ("_bucket", "_count", "_sum") if self.kind == "histogram" else ("",)
        return tuple(self.name + end for end in ends)


JOB = (
    MetricLabel("namespace", "namespaces with jobs"),
    MetricLabel("job", "jobs that there are"),
)
"""Whose metric it is, where a process tells of several jobs."""


def _of_job(*metrics: ExportedMetric) -> tuple[ExportedMetric, ...]:
    return tuple(replace(metric, labels=(*JOB, *metric.labels)) for metric in metrics)


def _states(text: str) -> tuple[MetricLabel, ...]:
    return (MetricLabel("state", text),)


_GPU = (MetricLabel("gpu", "GPUs of the worker, by number"),)
_ORIGIN = (MetricLabel("source", "4: own, siblings, earlier, prompt"),)
_CORPUS = (MetricLabel("references", "6: 0, 1, 2, 4, 8, 16; each up to the next"),)
_WORKER_STATES = "starting, idle, busy, draining, sick"

OPERATOR = (
    ExportedMetric("openseer_operator_leader", "gauge", "1", "1 while this replica leads."),
    ExportedMetric("openseer_operator_jobs", "gauge", "jobs", "Jobs that are looked after."),
    ExportedMetric("openseer_operator_queue", "gauge", "jobs", "Jobs that wait for a look."),
    ExportedMetric("openseer_operator_lag_seconds", "gauge", "seconds", "Age of the oldest wait or look."),
    ExportedMetric(
        "openseer_operator_api_calls_total",
        "counter",
        "calls",
        "Calls to the Kubernetes API, beside watches.",
        (
            MetricLabel("verb", "6: GET, LIST, POST, PUT, PATCH, DELETE"),
            MetricLabel("kind", "15: kinds of objects that it works with"),
            MetricLabel("code", "about 15: HTTP statuses; 0: no answer"),
        ),
    ),
    ExportedMetric("openseer_reconcile_seconds", "histogram", "seconds", "How long a look at one job took."),
    ExportedMetric("openseer_reconcile_wait_seconds", "histogram", "seconds", "How long a job waited for its look."),
    ExportedMetric("openseer_reconcile_errors_total", "counter", "looks", "Looks that failed and are repeated."),
    *_of_job(
        ExportedMetric(
            "openseer_job_requests",
            "gauge",
            "requests",
            "Requests of the batches that are there, by what became of them.",
            _states("4: ok, aborted, failed, unfinished"),
        ),
        ExportedMetric("openseer_job_queue_depth", "gauge", "requests", "Requests that wait for a worker."),
        ExportedMetric("openseer_job_tokens_total", "counter", "tokens", "Tokens generated so far."),
        ExportedMetric("openseer_job_tokens_per_second", "gauge", "tokens/s", "Tokens generated per second of late."),
        ExportedMetric(
            "openseer_job_backlog_tokens",
            "gauge",
            "tokens",
            "Tokens to come: unfinished requests at the mean length of a response.",
        ),
        ExportedMetric(
            "openseer_job_workers",
            "gauge",
            "workers",
            "Workers by state; desired: asked for, recommended: what the backlog needs.",
            _states("5: desired, current, ready, busy, recommended"),
        ),
        ExportedMetric(
            "openseer_job_ended_members_total",
            "counter",
            "ends",
            "Ends of workers, and of the driver, that nobody asked for.",
            (MetricLabel("component", "2: worker, driver"),),
        ),
        ExportedMetric(
            "openseer_job_gpu_seconds_total",
            "counter",
            "seconds",
            "GPU time of awake workers, summed over GPUs, by whether they ran something.",
            _states("2: busy, idle"),
        ),
        ExportedMetric("openseer_job_store_up", "gauge", "1", "1 while the job's store answers the operator."),
        ExportedMetric(
            "openseer_job_store_read_seconds", "gauge", "seconds", "How long the latest reading of the store took."
        ),
        ExportedMetric("openseer_job_store_memory_used_bytes", "gauge", "bytes", "Memory that the store uses."),
        ExportedMetric(
            "openseer_job_store_memory_limit_bytes",
            "gauge",
            "bytes",
            "Memory that it may use at most; missing where it has no limit of its own.",
        ),
        ExportedMetric(
            "openseer_job_weights_transaction_seconds",
            "gauge",
            "seconds",
            "How long the weights transaction that is on has taken so far; 0 without one.",
        ),
    ),
)
"""Those of jobs only from the replica that leads."""

DRIVER = (
    ExportedMetric(
        "openseer_requests",
        "gauge",
        "requests",
        "Requests of the job by state.",
        _states("3: waiting, inflight, closed"),
    ),
    ExportedMetric("openseer_tokens_total", "counter", "tokens", "Tokens generated so far."),
    ExportedMetric(
        "openseer_workers",
        "gauge",
        "workers",
        "Workers by what they say of themselves.",
        _states(f"5: {_WORKER_STATES}"),
    ),
)

WORKER = (
    ExportedMetric(
        "openseer_worker_state",
        "gauge",
        "1",
        "1 for the state that it is in.",
        _states(f"6, one at a time: {_WORKER_STATES}, following"),
    ),
    ExportedMetric("openseer_worker_inflight", "gauge", "responses", "Responses held."),
    ExportedMetric("openseer_worker_slots", "gauge", "responses", "Responses that may be held at once."),
    ExportedMetric("openseer_worker_running", "gauge", "responses", "Responses in the engine's batch."),
    ExportedMetric("openseer_worker_waiting", "gauge", "responses", "Responses in the engine that wait for its batch."),
    ExportedMetric("openseer_worker_tokens_total", "counter", "tokens", "Tokens generated."),
    ExportedMetric("openseer_worker_steps_total", "counter", "steps", "Steps of the engine."),
    ExportedMetric(
        "openseer_worker_preemptions_total",
        "counter",
        "responses",
        "Responses that the engine had to stop for want of KV blocks.",
    ),
    ExportedMetric("openseer_worker_computed_tokens_total", "counter", "tokens", "Tokens of context computed."),
    ExportedMetric(
        "openseer_worker_recomputed_tokens_total",
        "counter",
        "tokens",
        "Tokens of context computed of responses that ran before.",
    ),
    ExportedMetric(
        "openseer_worker_cached_tokens_total", "counter", "tokens", "Tokens of context found in the prefix cache."
    ),
    ExportedMetric(
        "openseer_worker_fetched_tokens_total", "counter", "tokens", "Tokens of context whose KV came from the KV pool."
    ),
    ExportedMetric("openseer_worker_kv_pool_loaded_bytes_total", "counter", "bytes", "KV that came from the KV pool."),
    ExportedMetric(
        "openseer_worker_kv_pool_load_seconds_total", "counter", "seconds", "Time of all fetches from the KV pool."
    ),
    ExportedMetric(
        "openseer_worker_kv_pool_failed_loads_total",
        "counter",
        "fetches",
        "Fetches from the KV pool that failed, so that contexts were computed.",
    ),
    ExportedMetric("openseer_worker_kv_pool_saved_bytes_total", "counter", "bytes", "KV written to the KV pool."),
    ExportedMetric(
        "openseer_worker_kv_pool_unsaved_blocks_total", "counter", "blocks", "KV blocks that the KV pool did not take."
    ),
    ExportedMetric(
        "openseer_worker_routes_lost_bytes_total", "counter", "bytes", "Rows of routed experts that were not written."
    ),
    ExportedMetric("openseer_worker_kv_used_ratio", "gauge", "ratio", "Part of the KV cache in use."),
    ExportedMetric("openseer_worker_kv_reserved_ratio", "gauge", "ratio", "Part of the KV cache that is promised."),
    ExportedMetric(
        "openseer_worker_held_tokens", "gauge", "tokens", "Tokens of context that are lost with the worker's KV cache."
    ),
    ExportedMetric(
        "openseer_worker_checkpoint_interval_seconds",
        "gauge",
        "seconds",
        "Interval of checkpoints now: what a death costs at most. It grows with the store's latency.",
    ),
    ExportedMetric("openseer_worker_gpu_memory_used_bytes", "gauge", "bytes", "Memory in use.", _GPU),
    ExportedMetric("openseer_worker_gpu_memory_total_bytes", "gauge", "bytes", "Memory that the GPU has.", _GPU),
    ExportedMetric(
        "openseer_worker_gpu_utilisation_ratio", "gauge", "ratio", "Part of the time in which something ran.", _GPU
    ),
    ExportedMetric("openseer_worker_gpu_sm_clock_hertz", "gauge", "hertz", "Clock of the processors.", _GPU),
    ExportedMetric(
        "openseer_worker_gpu_throttled", "gauge", "1", "1 while heat or the power supply slows the GPU.", _GPU
    ),
    ExportedMetric(
        "openseer_worker_gpu_ecc_uncorrected_errors_total",
        "counter",
        "errors",
        "Memory errors since the driver was loaded.",
        _GPU,
    ),
    ExportedMetric("openseer_worker_gpu_xid", "gauge", "Xid", "Number of the last Xid error; 0 for none.", _GPU),
    ExportedMetric(
        "openseer_worker_drafting",
        "gauge",
        "1",
        "1 while it drafts, without a reason; 0 and the reason why not.",
        (MetricLabel("reason", "1 a worker, settled at its start"),),
    ),
    ExportedMetric("openseer_worker_drafted_tokens_total", "counter", "tokens", "Tokens drafted.", _ORIGIN),
    ExportedMetric(
        "openseer_worker_accepted_tokens_total", "counter", "tokens", "Drafted tokens that came true.", _ORIGIN
    ),
    ExportedMetric(
        "openseer_worker_row_steps_total",
        "counter",
        "request-steps",
        "Request-steps, by the number of siblings that could be drafted from.",
        _CORPUS,
    ),
    ExportedMetric(
        "openseer_worker_row_tokens_total",
        "counter",
        "tokens",
        "Tokens gained in them, the engine's own ones included.",
        _CORPUS,
    ),
    ExportedMetric(
        "openseer_worker_draft_row_steps_total", "counter", "request-steps", "Request-steps that carried a draft."
    ),
    ExportedMetric("openseer_worker_draft_seconds_total", "counter", "seconds", "Time spent on drafting."),
    ExportedMetric(
        "openseer_worker_draft_full_total",
        "counter",
        "times",
        "Times that a request went on without drafts for want of memory.",
    ),
    ExportedMetric("openseer_worker_draft_groups", "gauge", "groups", "Groups that can be drafted from."),
    ExportedMetric("openseer_worker_draft_memory_bytes", "gauge", "bytes", "Memory of what is drafted from."),
    ExportedMetric(
        "openseer_worker_shared_tokens_total", "counter", "tokens", "Tokens read of siblings that ran elsewhere."
    ),
    ExportedMetric("openseer_worker_shared_bytes_total", "counter", "bytes", "What was read for them."),
    ExportedMetric(
        "openseer_worker_share_lag_seconds", "gauge", "seconds", "Age of siblings' latest tokens when they came."
    ),
)
"""What a worker has depends on its machine and its engine: no GPU, no metrics of one."""

_CALLS = _of_job(
    ExportedMetric(
        "openseer_api_calls_total",
        "counter",
        "calls",
        "Answered calls; those that were refused before their job was found have neither namespace nor job.",
        (MetricLabel("code", "about 15: HTTP statuses"),),
    ),
    ExportedMetric(
        "openseer_api_compatible_requests_total",
        "counter",
        "requests",
        "Requests that came through the compatible routes.",
    ),
    ExportedMetric(
        "openseer_api_compatible_grouped_total",
        "counter",
        "requests",
        "Of these, those that joined a group: named, or recognised by version and prompt.",
    ),
    ExportedMetric(
        "openseer_api_compatible_recognised_total",
        "counter",
        "requests",
        "Of these, those whose group was recognised without a name.",
    ),
)
GATEWAY = _CALLS
"""Each replica counts the calls that it answered."""

API = (
    *_of_job(
        ExportedMetric("openseer_api_queue_depth", "gauge", "requests", "Requests that wait."),
        ExportedMetric("openseer_api_running", "gauge", "requests", "Requests that are leased."),
        ExportedMetric("openseer_api_batches", "gauge", "batches", "Batches whose data are there."),
        ExportedMetric("openseer_api_workers", "gauge", "workers", "Workers that have said something."),
        ExportedMetric("openseer_api_tokens", "gauge", "tokens", "Tokens generated in the batches that are there."),
        ExportedMetric("openseer_api_weights_publishing", "gauge", "1", "1 while new weights are being published."),
        ExportedMetric(
            "openseer_api_weights_versions",
            "gauge",
            "versions",
            "Versions published so far, the initial one included.",
        ),
        ExportedMetric(
            "openseer_api_weights_transaction",
            "gauge",
            "1",
            "1 for the phase of the latest transaction.",
            (MetricLabel("phase", "7, one at a time: prefetch, quiesce, load, commit, rollback, done, failed"),),
        ),
        ExportedMetric(
            "openseer_api_weights_phase_seconds",
            "gauge",
            "seconds",
            "Time of each phase of the latest transaction that is over.",
            (MetricLabel("phase", "5: prefetch, quiesce, load, commit, rollback"),),
        ),
        ExportedMetric(
            "openseer_api_weights_waiting", "gauge", "workers", "Workers that the latest transaction waits for."
        ),
        ExportedMetric(
            "openseer_api_weights_replaced", "gauge", "workers", "Workers that the latest transaction goes on without."
        ),
        ExportedMetric(
            "openseer_api_drafted_tokens", "gauge", "tokens", "Tokens that the present workers have drafted."
        ),
        ExportedMetric("openseer_api_accepted_tokens", "gauge", "tokens", "Of these, tokens that came true."),
        ExportedMetric(
            "openseer_api_acceptance_length", "gauge", "tokens", "Tokens that a request gains in a step, on average."
        ),
    ),
    *_CALLS,
)
"""Of one job, gathered from its store when it is asked for. Calls are those that the asked process answered."""

METRICS: Mapping[str, tuple[ExportedMetric, ...]] = {
    "operator": OPERATOR,
    "driver": DRIVER,
    "worker": WORKER,
    "gateway": GATEWAY,
    "api": API,
}
"""By the process that exports them."""


def _named() -> Iterator[tuple[str, ExportedMetric]]:
    for metrics in METRICS.values():
        for metric in metrics:
            yield metric.name, metric


BY_NAME: Mapping[str, ExportedMetric] = dict(_named())
