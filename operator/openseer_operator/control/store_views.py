"""Converts a store's replies into counts, workers' reports, and the part whose change requires a reconcile step."""

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
"""Limit of reports per job, and of the N in a report's name worker-N. Twice MOST_WORKERS, because old and new workers
report while a fleet is replaced."""
LONGEST_UID = 64
"""Limit of characters of a pod's uid; those of Kubernetes have 36."""
LONGEST_REPORT = 256
"""Limit of characters of each text in a worker's report."""


def weights_event(transaction: WeightsTransaction) -> Announce:
    """The event about the end of a weights transaction."""
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
    """The progress of each of a trainer's batches that has data and whose deletion has not begun, by number."""
    return {batch.number: batch.progress for batch in await store.batches() if not batch.forgotten}


def total_progress(batches: Collection[BatchProgress]) -> BatchProgress:
    """The sum of the progress of several batches; sealed if all batches are sealed."""
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
        carried_tokens=sum(progress.carried_tokens for progress in batches),
        open_known=sum(progress.open_known for progress in batches),
        open_expected=sum(progress.open_expected for progress in batches),
        sealed=bool(batches) and all(progress.sealed for progress in batches),
    )


def reports_of(workers: Iterable[WorkerStatus], fleet_spec: FleetSpec) -> dict[str, WorkerReport]:
    """The reports of workers in pods, by the pods' uids. Limits the number of reports and the lengths of their texts,
    because a user's store may contain anything."""
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
    """The part of a view whose change requires a reconcile step."""
    counts: BatchProgress = view.progress
    left = counts.requests - counts.closed
    workers_spec = job.spec.workers if job is not None else Workers()
    scales_itself = workers_spec.autoscale is not None
    fleet = workers_spec.max or 0 if scales_itself else workers_spec.replicas
    # An autoscaled job has a step when its backlog begins, doubles, halves or ends.
    waits = left.bit_length() if scales_itself else None
    full = view.memory.is_nearly_full
    workers = frozenset(replace(report, held_tokens=0) for report in view.reports.values())
    tail = min(left, fleet) if counts.sealed else None
    return counts.sealed, tail, waits, counts.complete, view.released, workers, full
