"""The page's view of a job: its card, and the leases of its workers."""

from collections.abc import Mapping, Sequence

from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.page.book import LeaseBar, LeaseRows
from openseer_api.page.lanes import is_silent
from openseer_api.routes.fleet import fleet_state
from openseer_core.queue.batch import QueueLoad
from openseer_core.weights.loaded import is_ready
from openseer_core.wire.batches import Batch
from openseer_core.wire.page import Bars, JobCard, JobWord, WorkerLane
from openseer_core.wire.weights import Transaction
from openseer_core.worker.draft_metrics import summed

MOST_NAMED = 3
"""Limit of workers that a reason names."""


def job_card(
    job: JobContext,
    snapshot: FleetSnapshot,
    load: QueueLoad,
    batches: Sequence[Batch],
    transaction: Transaction | None,
    tokens_per_second: float | None,
) -> JobCard:
    """Returns the card of a job: its state and totals."""
    ready = sum(is_ready(snapshot.fleet_spec, worker, snapshot.now) for worker in snapshot.workers)
    requests = sum(batch.metrics.requests for batch in batches)
    done = sum(round(batch.progress * batch.metrics.requests) for batch in batches)
    ends = [batch.eta_seconds for batch in batches if batch.eta_seconds is not None and batch.progress < 1]
    waiting, per_worker = sum(load.waiting.values()), job.gpus_per_worker
    card = JobCard(
        namespace=job.job.namespace,
        name=job.job.name,
        mode=job.job.spec.mode,
        state="running",
        reason="",
        workers=len(snapshot.workers),
        workers_ready=ready,
        workers_wanted=len(job.worker_names()) or job.job.spec.workers.replicas,
        running=load.running,
        waiting=waiting,
        batches=len(batches),
        progress=done / requests if requests else None,
        eta_seconds=max(ends, default=None),
        tokens=sum(batch.metrics.tokens for batch in batches),
        tokens_per_second=tokens_per_second,
        acceptance_length=summed(one.heartbeat.metrics.drafts for one in snapshot.workers).acceptance_length or None,
        idle_gpu_seconds=round(per_worker * load.idle_seconds, 1),
        busy_gpu_seconds=round(per_worker * load.busy_seconds, 1),
    )
    state, reason = _state(job, snapshot, load, card, transaction)
    return card.model_copy(update={"state": state, "reason": reason})


def _state(
    job: JobContext, snapshot: FleetSnapshot, load: QueueLoad, card: JobCard, transaction: Transaction | None
) -> tuple[JobWord, str]:
    """Returns the job's state and the most urgent reason for it."""
    fleet, spec = fleet_state(snapshot, load, job), snapshot.fleet_spec
    if spec.rest:
        waits = f"; waiting for {_named(fleet.waiting_for)}" if fleet.waiting_for else ""
        return "lent", f"the GPUs are lent to the trainer{waits}"
    if transaction is not None and spec.active_transaction is not None:
        waits = f", waiting for {_named(transaction.waiting_for)}" if transaction.waiting_for else ""
        return "running", f"publishes weights {transaction.version}: {transaction.phase}{waits}"
    if problem := _problem(snapshot, card):
        return ("running" if card.workers_ready else "waiting"), problem
    if spec.held:
        return "waiting", "a trainer has paused new requests of the compatible routes"
    return _work(snapshot, card)


def _problem(snapshot: FleetSnapshot, card: JobCard) -> str:
    """Returns the most urgent problem of the fleet; "" if there is none."""
    silent = [one.name for one in snapshot.workers if is_silent(one, snapshot.now)]
    sick = [f"{one.name}: {one.heartbeat.metrics.sick}" for one in snapshot.workers if one.heartbeat.metrics.sick]
    if sick:
        return sick[0]
    if not card.workers:
        return f"no worker has started yet; wanted: {card.workers_wanted}"
    if silent:
        return f"no heartbeat from {_named(silent)}"
    return "" if card.workers_ready else "no worker has loaded the weights yet"


def _work(snapshot: FleetSnapshot, card: JobCard) -> tuple[JobWord, str]:
    if card.waiting:
        return "running", f"{card.running} responses run, {card.waiting} requests wait for free slots or KV blocks"
    if not card.running:
        return "idle", "nothing to run: no request waits"
    idle = sum(not worker.inflight for worker in snapshot.workers)
    rest = f"; {idle} of {card.workers} workers are idle" if idle else ""
    return "running", f"the last {card.running} responses run{rest}"


def _named(workers: Sequence[str]) -> str:
    more = f" and {len(workers) - MOST_NAMED} more" if len(workers) > MOST_NAMED else ""
    return ", ".join(workers[:MOST_NAMED]) + more


def bars_of(leases: LeaseRows, lanes: Sequence[WorkerLane], since: float, most: int) -> Bars:
    """Returns the running leases, and the latest leases that ended after `since` (seconds of the store's clock), at
    most `most` in all. Leases of workers without a lane are left out."""
    places = {lane.worker: number for number, lane in enumerate(lanes)}
    shown = [bar for bar in leases.running.values() if bar.worker in places]
    left_out = leases.dropped
    for bar in reversed(leases.ended):
        if bar.end is None or bar.end < since:
            continue
        if bar.worker in places and len(shown) < most:
            shown.append(bar)
        else:
            left_out += 1
    left_out += max(0, len(shown) - most)
    return _columns(shown[:most], places, left_out)


def _columns(bars: Sequence[LeaseBar], places: Mapping[str, int], left_out: int) -> Bars:
    return Bars(
        lane=[places[bar.worker] for bar in bars],
        row=[bar.row for bar in bars],
        start=[round(bar.start, 3) for bar in bars],
        end=[None if bar.end is None else round(bar.end, 3) for bar in bars],
        tokens=[bar.tokens for bar in bars],
        event=[bar.event for bar in bars],
        request=[bar.request for bar in bars],
        left_out=left_out,
    )
