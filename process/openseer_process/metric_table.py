"""The table of all metrics that openseer's processes export. Tests compare it with the processes, docs/metrics.md
and the chart's dashboards and alerts.

Names follow Prometheus: base units, `_total` for counters. Each label states its number of values, which is small.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

MetricKind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricLabel:
    """A label of a metric. `values`: text that lists its values and their largest number."""

    name: str
    values: str


@dataclass(frozen=True, slots=True)
class ExportedMetric:
    """A metric. `name`: in Prometheus; `unit`: of the value; "1": the value is 0 or 1; `text`: the description."""

    name: str
    kind: MetricKind
    unit: str
    text: str
    labels: tuple[MetricLabel, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the labels, in order, without a histogram's `le`."""
        return tuple(label.name for label in self.labels)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Names of the metric's samples."""
        ends = ("_bucket", "_count", "_sum") if self.kind == "histogram" else ("",)
        return tuple(self.name + end for end in ends)


JOB = (
    MetricLabel("namespace", "namespaces with jobs"),
    MetricLabel("job", "existing jobs"),
)
"""Labels of a metric in a process that exports metrics of several jobs."""


def _of_job(*metrics: ExportedMetric) -> tuple[ExportedMetric, ...]:
    return tuple(replace(metric, labels=(*JOB, *metric.labels)) for metric in metrics)


def _states(text: str) -> tuple[MetricLabel, ...]:
    return (MetricLabel("state", text),)


_GPU = (MetricLabel("gpu", "GPUs of the worker, by number"),)
_ORIGIN = (MetricLabel("source", "4: own, siblings, earlier, prompt"),)
_CORPUS = (MetricLabel("references", "6: the number of siblings, rounded down to 0, 1, 2, 4, 8 or 16"),)
_WORKER_STATES = "starting, idle, busy, draining, sick"

OPERATOR = (
    ExportedMetric("openseer_operator_leader", "gauge", "1", "1 while this replica leads."),
    ExportedMetric("openseer_operator_jobs", "gauge", "jobs", "Jobs that the operator reconciles."),
    ExportedMetric("openseer_operator_queue", "gauge", "jobs", "Jobs that wait for a reconcile step."),
    ExportedMetric(
        "openseer_operator_lag_seconds",
        "gauge",
        "seconds",
        "Longest present wait for a reconcile step, or duration of the longest running one.",
    ),
    ExportedMetric(
        "openseer_operator_api_calls_total",
        "counter",
        "calls",
        "Calls to the Kubernetes API, watches excluded.",
        (
            MetricLabel("verb", "6: GET, LIST, POST, PUT, PATCH, DELETE"),
            MetricLabel("kind", "16: kinds of objects that the operator reads or writes"),
            MetricLabel("code", "about 15: HTTP statuses; 0: no answer"),
        ),
    ),
    ExportedMetric("openseer_reconcile_seconds", "histogram", "seconds", "Duration of one reconcile step of a job."),
    ExportedMetric(
        "openseer_reconcile_wait_seconds", "histogram", "seconds", "Time that a job waited for its reconcile step."
    ),
    ExportedMetric(
        "openseer_reconcile_errors_total",
        "counter",
        "steps",
        "Reconcile steps that failed; each is repeated.",
    ),
    *_of_job(
        ExportedMetric(
            "openseer_job_requests",
            "gauge",
            "requests",
            "Requests of the stored batches, by outcome.",
            _states("4: ok, aborted, failed, unfinished"),
        ),
        ExportedMetric("openseer_job_queue_depth", "gauge", "requests", "Requests that wait for a worker."),
        ExportedMetric("openseer_job_tokens_total", "counter", "tokens", "Tokens generated so far."),
        ExportedMetric("openseer_job_tokens_per_second", "gauge", "tokens/s", "Recent rate of generated tokens."),
        ExportedMetric(
            "openseer_job_backlog_tokens",
            "gauge",
            "tokens",
            "Estimate of the tokens still to generate: unfinished requests times the mean length of a response.",
        ),
        ExportedMetric(
            "openseer_job_workers",
            "gauge",
            "workers",
            "Workers by state; desired: number requested, recommended: number for the backlog.",
            _states("5: desired, current, ready, busy, recommended"),
        ),
        ExportedMetric(
            "openseer_job_ended_members_total",
            "counter",
            "ends",
            "Ends of workers and of the driver by themselves, without a deletion of their pods.",
            (MetricLabel("component", "2: worker, driver"),),
        ),
        ExportedMetric(
            "openseer_job_gpu_seconds_total",
            "counter",
            "seconds",
            "GPU time of awake workers, summed over GPUs; busy: the worker ran requests.",
            _states("2: busy, idle"),
        ),
        ExportedMetric(
            "openseer_job_store_up",
            "gauge",
            "1",
            "1 while the job's store answers the operator; 0 also if a running job's managed Redis has no ready pod.",
        ),
        ExportedMetric(
            "openseer_job_store_read_seconds", "gauge", "seconds", "Duration of the latest read of the store."
        ),
        ExportedMetric("openseer_job_store_memory_used_bytes", "gauge", "bytes", "Memory that the store uses."),
        ExportedMetric(
            "openseer_job_store_memory_limit_bytes",
            "gauge",
            "bytes",
            "Memory limit of the store; absent without a limit.",
        ),
        ExportedMetric(
            "openseer_job_weights_transaction_seconds",
            "gauge",
            "seconds",
            "Time since the start of the running weights transaction; 0 without one.",
        ),
    ),
)
"""Metrics of the operator. Only the leading replica exports those of jobs."""

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
        "Workers by the state that they report.",
        _states(f"5: {_WORKER_STATES}"),
    ),
)

WORKER = (
    ExportedMetric(
        "openseer_worker_state",
        "gauge",
        "1",
        "1 for the worker's current state.",
        _states(f"6, one at a time: {_WORKER_STATES}, following"),
    ),
    ExportedMetric("openseer_worker_inflight", "gauge", "responses", "Responses held."),
    ExportedMetric("openseer_worker_slots", "gauge", "responses", "Limit of responses held at the same time."),
    ExportedMetric("openseer_worker_running", "gauge", "responses", "Responses in the engine's batch."),
    ExportedMetric("openseer_worker_waiting", "gauge", "responses", "Responses in the engine that wait for its batch."),
    ExportedMetric("openseer_worker_tokens_total", "counter", "tokens", "Tokens generated."),
    ExportedMetric("openseer_worker_steps_total", "counter", "steps", "Steps of the engine."),
    ExportedMetric(
        "openseer_worker_preemptions_total",
        "counter",
        "responses",
        "Preemptions of responses by the engine, because KV blocks were missing.",
    ),
    ExportedMetric("openseer_worker_computed_tokens_total", "counter", "tokens", "Tokens of context computed."),
    ExportedMetric(
        "openseer_worker_recomputed_tokens_total",
        "counter",
        "tokens",
        "Tokens of context computed again, of responses that ran before.",
    ),
    ExportedMetric(
        "openseer_worker_cached_tokens_total", "counter", "tokens", "Tokens of context found in the prefix cache."
    ),
    ExportedMetric(
        "openseer_worker_fetched_tokens_total", "counter", "tokens", "Tokens of context loaded from the KV pool."
    ),
    ExportedMetric("openseer_worker_kv_pool_loaded_bytes_total", "counter", "bytes", "KV loaded from the KV pool."),
    ExportedMetric(
        "openseer_worker_kv_pool_load_seconds_total", "counter", "seconds", "Summed time of fetches from the KV pool."
    ),
    ExportedMetric(
        "openseer_worker_kv_pool_failed_loads_total",
        "counter",
        "fetches",
        "Failed fetches from the KV pool; the contexts were computed instead.",
    ),
    ExportedMetric("openseer_worker_kv_pool_saved_bytes_total", "counter", "bytes", "KV written to the KV pool."),
    ExportedMetric(
        "openseer_worker_kv_pool_unsaved_blocks_total", "counter", "blocks", "KV blocks that the KV pool refused."
    ),
    ExportedMetric(
        "openseer_worker_routes_lost_bytes_total", "counter", "bytes", "Bytes of unwritten rows of routed experts."
    ),
    ExportedMetric("openseer_worker_kv_used_ratio", "gauge", "ratio", "Share of the KV cache in use."),
    ExportedMetric("openseer_worker_kv_reserved_ratio", "gauge", "ratio", "Share of the KV cache that is reserved."),
    ExportedMetric("openseer_worker_held_tokens", "gauge", "tokens", "Context tokens of the held responses."),
    ExportedMetric(
        "openseer_worker_checkpoint_interval_seconds",
        "gauge",
        "seconds",
        "Current checkpoint interval: upper bound of the work lost with the worker. Grows with the store's latency.",
    ),
    ExportedMetric("openseer_worker_gpu_memory_used_bytes", "gauge", "bytes", "Memory in use.", _GPU),
    ExportedMetric("openseer_worker_gpu_memory_total_bytes", "gauge", "bytes", "Memory of the GPU.", _GPU),
    ExportedMetric(
        "openseer_worker_gpu_utilisation_ratio", "gauge", "ratio", "Share of the time in which a kernel ran.", _GPU
    ),
    ExportedMetric("openseer_worker_gpu_sm_clock_hertz", "gauge", "hertz", "Clock of the processors.", _GPU),
    ExportedMetric(
        "openseer_worker_gpu_throttled", "gauge", "1", "1 while heat or the power supply throttles the GPU.", _GPU
    ),
    ExportedMetric(
        "openseer_worker_gpu_ecc_uncorrected_errors_total",
        "counter",
        "errors",
        "Uncorrected memory errors since the NVIDIA driver was loaded.",
        _GPU,
    ),
    ExportedMetric("openseer_worker_gpu_xid", "gauge", "Xid", "Number of the last Xid error; 0 for none.", _GPU),
    ExportedMetric(
        "openseer_worker_drafting",
        "gauge",
        "1",
        "1 while the worker drafts, with an empty reason; otherwise 0 and the reason.",
        (MetricLabel("reason", "1 per worker, set at its start"),),
    ),
    ExportedMetric("openseer_worker_drafted_tokens_total", "counter", "tokens", "Tokens drafted.", _ORIGIN),
    ExportedMetric(
        "openseer_worker_accepted_tokens_total", "counter", "tokens", "Drafted tokens that were accepted.", _ORIGIN
    ),
    ExportedMetric(
        "openseer_worker_row_steps_total",
        "counter",
        "request-steps",
        "Request-steps, by the number of siblings available for drafting.",
        _CORPUS,
    ),
    ExportedMetric(
        "openseer_worker_row_tokens_total",
        "counter",
        "tokens",
        "Tokens generated in these request-steps: accepted drafts and the engine's own tokens.",
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
        "Times that a request continued without drafts because the memory for drafting data was full.",
    ),
    ExportedMetric("openseer_worker_draft_groups", "gauge", "groups", "Groups available for drafting."),
    ExportedMetric("openseer_worker_draft_memory_bytes", "gauge", "bytes", "Memory of the drafting data."),
    ExportedMetric(
        "openseer_worker_shared_tokens_total", "counter", "tokens", "Tokens read from siblings on other workers."
    ),
    ExportedMetric("openseer_worker_shared_bytes_total", "counter", "bytes", "Bytes read for these tokens."),
    ExportedMetric(
        "openseer_worker_share_lag_seconds",
        "gauge",
        "seconds",
        "Upper bound of the age of siblings' tokens at the latest read that returned some.",
    ),
)
"""Metrics of a worker. It exports only those of its machine and engine: without a GPU no GPU metrics."""

_CALLS = _of_job(
    ExportedMetric(
        "openseer_api_calls_total",
        "counter",
        "calls",
        "Answered calls; calls refused before their job was found have empty namespace and job.",
        (MetricLabel("code", "about 15: HTTP statuses"),),
    ),
    ExportedMetric(
        "openseer_api_compatible_requests_total", "counter", "requests", "Requests received on the compatible routes."
    ),
    ExportedMetric(
        "openseer_api_compatible_grouped_total",
        "counter",
        "requests",
        "Requests received on the compatible routes that joined a group: by name, `n`, or version and prompt.",
    ),
    ExportedMetric(
        "openseer_api_compatible_recognised_total",
        "counter",
        "requests",
        "Requests received on the compatible routes that joined a group by version and prompt.",
    ),
)
GATEWAY = _CALLS
"""Metrics of the gateway. Each replica counts the calls that it answered."""

API = (
    *_of_job(
        ExportedMetric("openseer_api_queue_depth", "gauge", "requests", "Requests that wait for a worker."),
        ExportedMetric("openseer_api_running", "gauge", "requests", "Requests that are leased."),
        ExportedMetric("openseer_api_batches", "gauge", "batches", "Batches whose data are stored."),
        ExportedMetric("openseer_api_workers", "gauge", "workers", "Workers that have sent a heartbeat."),
        ExportedMetric("openseer_api_tokens", "gauge", "tokens", "Tokens generated in the stored batches."),
        ExportedMetric("openseer_api_weights_publishing", "gauge", "1", "1 while new weights are being published."),
        ExportedMetric(
            "openseer_api_weights_versions", "gauge", "versions", "Versions published so far, the initial one included."
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
            "Duration of each phase of the latest ended transaction.",
            (MetricLabel("phase", "5: prefetch, quiesce, load, commit, rollback"),),
        ),
        ExportedMetric(
            "openseer_api_weights_waiting", "gauge", "workers", "Workers that the latest transaction waits for."
        ),
        ExportedMetric(
            "openseer_api_weights_replaced",
            "gauge",
            "workers",
            "Workers that left the latest transaction, or did not confirm it in time.",
        ),
        ExportedMetric(
            "openseer_api_drafted_tokens", "gauge", "tokens", "Tokens that the present workers have drafted."
        ),
        ExportedMetric(
            "openseer_api_accepted_tokens",
            "gauge",
            "tokens",
            "Drafted tokens of the present workers that were accepted.",
        ),
        ExportedMetric(
            "openseer_api_acceptance_length", "gauge", "tokens", "Mean number of tokens that a request gains per step."
        ),
    ),
    *_CALLS,
)
"""Metrics of a job's API, read from the job's store at the scrape. Calls: those that the scraped process answered."""

METRICS: Mapping[str, tuple[ExportedMetric, ...]] = {
    "operator": OPERATOR,
    "driver": DRIVER,
    "worker": WORKER,
    "gateway": GATEWAY,
    "api": API,
}
"""The metrics by the process that exports them."""


def _named() -> Iterator[tuple[str, ExportedMetric]]:
    for metrics in METRICS.values():
        for metric in metrics:
            yield metric.name, metric


BY_NAME: Mapping[str, ExportedMetric] = dict(_named())
