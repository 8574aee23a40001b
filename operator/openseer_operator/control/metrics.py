"""What Prometheus reads. The metrics of jobs are made when they are collected, and go with the job."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openseer_core.plan.backlog import Backlog
from openseer_core.plan.observation import GpuSeconds
from openseer_core.queue.messages import BatchProgress
from openseer_operator.objects.reading import JobKey

RECONCILE_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Seconds."""
WAIT_BUCKETS = (*RECONCILE_BUCKETS, 60.0, 120.0, 300.0, 600.0, 1200.0)
"""Seconds. Of many jobs that come at once, the last waits long."""


@dataclass(frozen=True, slots=True)
class JobMetrics:
    """Of one job. `inflight`: requests that workers run; `tokens`: generated so far, also in batches that are gone;
    `backlog`: what waits, and the workers that it needs."""

    progress: BatchProgress
    workers: Mapping[str, int | str]
    inflight: int
    tokens_per_second: float | None
    tokens: int
    backlog: Backlog = field(default_factory=Backlog)
    gpu_seconds: GpuSeconds = field(default_factory=GpuSeconds)

    @property
    def unfinished(self) -> int:
        return self.progress.requests - self.progress.closed


@dataclass(slots=True)
class OperatorState:
    """What the metrics are made from, filled by the operator's other parts. `lag` and `depth` are those of the loop."""

    jobs: dict[JobKey, JobMetrics] = field(default_factory=dict[JobKey, JobMetrics])
    calls: Counter[tuple[str, str, int]] = field(default_factory=Counter[tuple[str, str, int]])
    leads: Callable[[], bool] = lambda: False
    depth: Callable[[], float] = lambda: 0.0
    lag: Callable[[], float] = lambda: 0.0


class Metrics:
    """The registry, and what the loop reports to it."""

    def __init__(self, state: OperatorState) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "openseer_reconcile_seconds",
            "Duration of a look at one job",
            buckets=RECONCILE_BUCKETS,
            registry=self.registry,
        )
        self._waits = Histogram(
            "openseer_reconcile_wait_seconds",
            "How long a job waited for its look",
            buckets=WAIT_BUCKETS,
            registry=self.registry,
        )
        self._failures = PrometheusCounter(
            "openseer_reconcile_errors", "Looks that failed and are repeated", registry=self.registry
        )
        self.registry.register(_JobCollector(state))

    def reconciled(self, wait: float, seconds: float, failed: bool) -> None:
        """After every reconcile step."""
        self._waits.observe(wait)
        self._seconds.observe(seconds)
        if failed:
            self._failures.inc()


class _JobCollector(Collector):
    """Runs in a thread of its own: what it reads, it copies first."""

    def __init__(self, state: OperatorState) -> None:
        self._state = state

    def collect(self) -> Iterable[Metric]:
        yield from self._operator()
        yield from self._requests()
        yield from self._tokens()
        yield self._workers()
        yield self._gpu_seconds()

    def _operator(self) -> Iterable[Metric]:
        state = self._state
        yield GaugeMetricFamily("openseer_operator_leader", "1 while this replica leads", value=float(state.leads()))
        yield GaugeMetricFamily("openseer_operator_queue", "Jobs that wait for a look", value=state.depth())
        yield GaugeMetricFamily("openseer_operator_lag_seconds", "Age of the oldest wait or look", value=state.lag())
        yield GaugeMetricFamily("openseer_operator_jobs", "Jobs that are looked after", value=len(state.jobs))
        calls = CounterMetricFamily(
            "openseer_operator_api_calls",
            "Calls to the Kubernetes API, beside watches; code 0: no answer",
            labels=("verb", "kind", "code"),
        )
        for (verb, kind, code), count in list(state.calls.items()):
            calls.add_metric((verb, kind, str(code)), count)
        yield calls

    def _requests(self) -> Iterable[Metric]:
        requests = _gauge("requests", "Requests of the batch, by what became of them", "state")
        queued = _gauge("queue_depth", "Requests that wait for a worker")
        for key, metrics in list(self._state.jobs.items()):
            counts = metrics.progress
            for state, count in (
                ("ok", counts.ok),
                ("aborted", counts.aborted),
                ("failed", counts.infra_failed),
                ("unfinished", metrics.unfinished),
            ):
                requests.add_metric((*key, state), count)
            queued.add_metric(key, max(0, metrics.unfinished - metrics.inflight))
        yield requests
        yield queued

    def _tokens(self) -> Iterable[Metric]:
        tokens = CounterMetricFamily("openseer_job_tokens", "Tokens generated so far", labels=("namespace", "job"))
        speed = _gauge("tokens_per_second", "Tokens generated per second of late")
        backlog = _gauge("backlog_tokens", "Tokens to come: unfinished requests at the mean length of a response")
        for key, metrics in list(self._state.jobs.items()):
            tokens.add_metric(key, metrics.tokens)
            if metrics.tokens_per_second is not None:
                speed.add_metric(key, metrics.tokens_per_second)
            backlog.add_metric(key, metrics.backlog.tokens)
        yield tokens
        yield speed
        yield backlog

    def _workers(self) -> Metric:
        workers = _gauge("workers", "Workers, by state", "state")
        for key, metrics in list(self._state.jobs.items()):
            for state in ("desired", "current", "ready", "busy"):
                workers.add_metric((*key, state), float(metrics.workers[state]))
            workers.add_metric((*key, "recommended"), metrics.backlog.workers)
        return workers

    def _gpu_seconds(self) -> Metric:
        spent = CounterMetricFamily(
            "openseer_job_gpu_seconds",
            "GPU time of awake workers, summed over GPUs, by whether they ran something",
            labels=("namespace", "job", "state"),
        )
        for key, metrics in list(self._state.jobs.items()):
            spent.add_metric((*key, "idle"), metrics.gpu_seconds.idle)
            spent.add_metric((*key, "busy"), metrics.gpu_seconds.busy)
        return spent


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"openseer_job_{name}", text, labels=("namespace", "job", *labels))
