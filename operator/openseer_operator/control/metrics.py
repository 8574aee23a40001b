"""The operator's Prometheus metrics. A job's metrics are computed at each scrape, and disappear with the job."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import Metric

from openseer_core.plan.backlog import Backlog
from openseer_core.queue.messages import BatchProgress
from openseer_core.queue.store_memory import StoreMemory
from openseer_operator.control.counters import JobCounters
from openseer_operator.objects.reading import JobKey
from openseer_process.families import Collected, Families
from openseer_process.metric_table import BY_NAME

RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Buckets of the durations of reconcile steps, in seconds."""
WAIT_BUCKETS = (*RECONCILE_BUCKETS, 60.0, 120.0, 300.0, 600.0, 1200.0)
"""Buckets of waits for a reconcile step, in seconds. Of many jobs created at once the last one waits for minutes."""


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """The values behind one job's metrics. `workers`: numbers of workers by state, as in the status; `inflight`: number
    of running requests; `backlog`: the unfinished requests and the workers that they need; `needs_store`: whether the
    job runs, so that its store must answer."""

    progress: BatchProgress
    workers: Mapping[str, int | str]
    inflight: int
    tokens_per_second: float | None
    counters: JobCounters
    backlog: Backlog = field(default_factory=Backlog)
    needs_store: bool = False

    @property
    def unfinished(self) -> int:
        return self.progress.requests - self.progress.closed


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """The health of a job's store. `up`: whether it answered the latest reading. At the last answer: `memory`: use of
    its memory; `read_seconds`: duration of the reading; `publishing_seconds`: age of the active weights transaction, 0
    without one."""

    up: bool
    memory: StoreMemory = field(default_factory=StoreMemory)
    read_seconds: float = 0.0
    publishing_seconds: float = 0.0


@dataclass(slots=True)
class OperatorState:
    """The data of the metrics, set by the operator's other parts. `calls`: number of API calls by verb, kind and
    status; `leads`: whether this replica leads; `depth`, `lag`: those of the loop; `store`: returns the health of a
    job's store, None if the operator does not read it."""

    jobs: dict[JobKey, JobMetrics] = field(default_factory=dict[JobKey, JobMetrics])
    calls: Counter[tuple[str, str, int]] = field(default_factory=Counter[tuple[str, str, int]])
    leads: Callable[[], bool] = lambda: False
    depth: Callable[[], float] = lambda: 0.0
    lag: Callable[[], float] = lambda: 0.0
    store: Callable[[JobKey], StoreHealth | None] = lambda _: None


class Metrics:
    """The Prometheus registry, with the histograms of reconcile steps."""

    def __init__(self, state: OperatorState) -> None:
        self.registry = CollectorRegistry()
        self._seconds = self._histogram("openseer_reconcile_seconds", RECONCILE_BUCKETS)
        self._waits = self._histogram("openseer_reconcile_wait_seconds", WAIT_BUCKETS)
        failures = BY_NAME["openseer_reconcile_errors_total"]
        self._failures = PrometheusCounter(failures.name, failures.text, registry=self.registry)
        self.registry.register(Collected(lambda: _collected(state)))

    def reconciled(self, wait: float, seconds: float, failed: bool) -> None:
        """Records a reconcile step: the job's wait and the duration, in seconds, and whether the step failed."""
        self._waits.observe(wait)
        self._seconds.observe(seconds)
        if failed:
            self._failures.inc()

    def _histogram(self, name: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, BY_NAME[name].text, buckets=buckets, registry=self.registry)


def _collected(state: OperatorState) -> Iterable[Metric]:
    """All metrics at a scrape. Runs in a separate thread, so it copies collections before it iterates over them."""
    families = Families()
    families.add("openseer_operator_leader", float(state.leads()))
    families.add("openseer_operator_queue", state.depth())
    families.add("openseer_operator_lag_seconds", state.lag())
    families.add("openseer_operator_jobs", len(state.jobs))
    for (verb, kind, code), count in list(state.calls.items()):
        families.add("openseer_operator_api_calls_total", count, verb=verb, kind=kind, code=str(code))
    for (namespace, job), metrics in list(state.jobs.items()):
        _tell_job(families, metrics, namespace=namespace, job=job)
        health = state.store((namespace, job))
        if health is None and metrics.needs_store:
            health = StoreHealth(up=False)  # its managed Redis has no ready pod, so the operator does not read it
        if health is not None:
            _tell_store(families, health, namespace=namespace, job=job)
    return families


def _tell_job(families: Families, metrics: JobMetrics, **key: str) -> None:
    counts, backlog, counters = metrics.progress, metrics.backlog, metrics.counters
    requests = {
        "ok": counts.ok,
        "aborted": counts.aborted,
        "failed": counts.infra_failed,
        "unfinished": metrics.unfinished,
    }
    for state, count in requests.items():
        families.add("openseer_job_requests", count, state=state, **key)
    families.add("openseer_job_queue_depth", max(0, metrics.unfinished - metrics.inflight), **key)
    families.add("openseer_job_tokens_total", counters.tokens, **key)
    if metrics.tokens_per_second is not None:
        families.add("openseer_job_tokens_per_second", metrics.tokens_per_second, **key)
    families.add("openseer_job_backlog_tokens", backlog.tokens, **key)
    for state in ("desired", "current", "ready", "busy"):
        families.add("openseer_job_workers", float(metrics.workers[state]), state=state, **key)
    families.add("openseer_job_workers", backlog.workers, state="recommended", **key)
    for component in ("worker", "driver"):
        families.add("openseer_job_ended_members_total", counters.ended[component], component=component, **key)
    families.add("openseer_job_gpu_seconds_total", counters.gpu_seconds.idle, state="idle", **key)
    families.add("openseer_job_gpu_seconds_total", counters.gpu_seconds.busy, state="busy", **key)


def _tell_store(families: Families, health: StoreHealth, **key: str) -> None:
    """Adds a store's metrics. For a store that does not answer only openseer_job_store_up: the others would be
    outdated."""
    families.add("openseer_job_store_up", float(health.up), **key)
    if not health.up:
        return
    families.add("openseer_job_store_read_seconds", health.read_seconds, **key)
    families.add("openseer_job_store_memory_used_bytes", health.memory.used, **key)
    if health.memory.limit:
        families.add("openseer_job_store_memory_limit_bytes", health.memory.limit, **key)
    families.add("openseer_job_weights_transaction_seconds", health.publishing_seconds, **key)
