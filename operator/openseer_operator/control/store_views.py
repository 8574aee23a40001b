"""What the operator makes of what a store says: counts, reports of workers, and what of them may call for action."""

from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import islice

from openseer_core.manifest.base import MOST_WORKERS
from openseer_core.manifest.fleet import Workers
from openseer_core.manifest.job import RolloutJob
from openseer_core.plan.actions import Announce
from openseer_core.plan.observation import StoreView, WorkerReport
from openseer_core.queue.messages import BatchProgress
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.loaded import why_not_loaded
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_store.port import Store

MOST_REPORTS = 2 * MOST_WORKERS
"""Of one job, and above their workers' numbers: as many as stay may be leaving."""
LONGEST_UID = 64
"""Of a pod; Kubernetes gives 36 characters."""
LONGEST_REPORT = 256
"""Characters that are kept of what a worker says of itself."""


def weights_event(transaction: WeightsTransaction) -> Announce:
    """How a weights transaction ended, for people."""
    seconds = (transaction.finished_at or transaction.started_at) - transaction.started_at
    detail = f": {transaction.message}" if transaction.message else ""
    adapter = transaction.publish.adapter
    what = f"weights {transaction.publish.version}"
    if adapter is not None:
        what += f" (adapter {adapter.name})"
    if transaction.phase == "done":
        return Announce(False, "WeightsPublished", f"{what} after {seconds:.1f} s{detail}")
    kept = f", the fleet keeps {transaction.previous}" if transaction.previous else ""
    return Announce(True, "WeightsFailed", f"{what} were not published{kept}{detail}")


async def open_batches(store: Store) -> dict[int, BatchProgress]:
    """Of a trainer's batches, those whose data are there."""
    return {batch.number: batch.progress for batch in await store.batches() if not batch.forgotten}


def total_progress(batches: Collection[BatchProgress]) -> BatchProgress:
    """Several batches as one; it has all its groups when each of them has."""
    return BatchProgress(
        groups=sum(progress.groups for progress in batches),
        requests=sum(progress.requests for progress in batches),
        ok=sum(progress.ok for progress in batches),
        aborted=sum(progress.aborted for progress in batches),
        infra_failed=sum(progress.infra_failed for progress in batches),
        carried_over=sum(progress.carried_over for progress in batches),
        tokens=sum(progress.tokens for progress in batches),
        ok_tokens=sum(progress.ok_tokens for progress in batches),
        closed_tokens=sum(progress.closed_tokens for progress in batches),
        open_known=sum(progress.open_known for progress in batches),
        open_expected=sum(progress.open_expected for progress in batches),
        sealed=bool(batches) and all(progress.sealed for progress in batches),
    )


def reports_of(workers: Iterable[WorkerStatus], fleet_spec: FleetSpec) -> dict[str, WorkerReport]:
    """The reports of workers, by the uid of their pods; a worker that runs in no pod is left out. A store may say
    anything: no more is kept of it than a fleet can have."""
    reports: dict[str, WorkerReport] = {}
    for worker in islice(workers, MOST_REPORTS):
        metrics, weights = worker.heartbeat.metrics, worker.heartbeat.weights
        number = worker.name.removeprefix("worker-")
        if 0 < len(metrics.pod) <= LONGEST_UID and number.isdecimal() and int(number) < MOST_REPORTS:
            reports[metrics.pod] = WorkerReport(
                int(number),
                metrics.pod,
                worker.heartbeat.state,
                metrics.held_tokens,
                metrics.sick[:LONGEST_REPORT],
                why_not_loaded(fleet_spec, weights)[:LONGEST_REPORT] if weights is not None else "",
            )
    return reports


def actionable_state(job: RolloutJob | None, view: StoreView) -> object:
    """What of a view may call for action: equal for two views that do not differ in it."""
    counts: BatchProgress = view.progress
    left = counts.requests - counts.closed
    workers_spec = job.spec.workers if job is not None else Workers()
    scales_itself = workers_spec.autoscale is not None
    fleet = workers_spec.max or 0 if scales_itself else workers_spec.replicas
    # A job that scales itself is looked at when what waits comes, doubles, halves or goes.
    waits = left.bit_length() if scales_itself else None
    full = view.memory.is_nearly_full
    workers = frozenset(replace(report, held_tokens=0) for report in view.reports.values())
    tail = min(left, fleet) if counts.sealed else None
    return counts.sealed, tail, waits, counts.complete, view.released, workers, full
