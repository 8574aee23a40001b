"""The batch controller of a job, with an overview of the API between a trainer and the store.

Problem: a trainer that accesses the store directly depends on the store's layout, and must itself check inputs, stop a
batch in time and move the whole fleet to new weights. A trainer may also be disconnected for minutes, in which batches
and publishes must proceed.

Idea: the API has three parts. The *gate* checks the token and the size of each call. *Routes* check, render and place
groups, and read results; each write is one step in the store that may be repeated. This *controller* acts without
calls: it closes a batch that has met its target, and moves a weights transaction to its next phase.

Example: a batch has 80 groups of 8, a target of 64 finished groups, and rest `carry`. The upload queues 640 requests;
workers generate them, and the trainer reads results after a cursor. When 64 groups are whole, the next step, about
0.2 s later, seals the batch and carries the other 16 groups over. The trainer publishes version 2: the route writes a
transaction into the fleet spec, and each step compares the workers' heartbeats with it and writes the next phase, until
all have confirmed.

Consequences: no process of the API has state that a batch or a publish needs. Each step is level-triggered: it reads
the present state and does the work that follows from it. A step may be repeated, or executed by two processes, and the
fleet spec is written by compare-and-set; so several replicas may run a controller for one job, and each of them may
die. An action of a transaction names the revision of the fleet spec from which it was computed. The store refuses it
under any other revision, so the outdated actions of a process that resumes after a pause have no effect.
"""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from openseer_api.compat.live.orphans import delete_orphans
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.target import settle, take_over
from openseer_core.errors import FleetSpecMovedError, OpenseerError, StoreUnavailableError
from openseer_core.queue.batch import BatchRecord
from openseer_core.queue.states import Event
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.transaction import (
    AbortBatches,
    ChangeVersion,
    DrainWorkers,
    TransactionAction,
    advance,
)
from openseer_core.weights.versions import leaving, stale_by, successor
from openseer_process.logs import about

log = logging.getLogger(__name__)

ROUND_SECONDS = 0.2
"""Interval between two reconcile steps, in seconds; half of it while new weights are published."""
TROUBLE_SECONDS = 2.0
"""Interval after a reconcile step that failed, in seconds."""
MOST_PAUSE_SECONDS = 6 * 3600.0
"""Limit of a pause of the compatible routes, in seconds: a caller that has ended would block all others for ever."""


async def control(job: JobContext) -> None:
    """Runs the batch controller of a job until it is cancelled."""
    with about(job=f"{job.job.namespace}/{job.job.name}"):
        while True:
            try:
                busy = await reconcile(job)
            except OpenseerError as error:
                log.warning("%s/%s: %s", job.job.namespace, job.job.name, error)
                await asyncio.sleep(TROUBLE_SECONDS)
            else:
                await asyncio.sleep(ROUND_SECONDS / 2 if busy else ROUND_SECONDS)


async def reconcile(job: JobContext) -> bool:
    """Runs one reconcile step; returns whether a weights transaction was active, or a pause was ended."""
    batches = await job.store.batches()
    for record in batches:
        with about(batch=record.number):
            await _settle(job, record)
    await _apart(job, delete_orphans(job, batches))
    fleet_spec = await job.store.fleet_spec()
    job.note_answer()
    try:
        if fleet_spec.held and await _is_forgotten(job, fleet_spec):
            log.warning("%s/%s: a pause ends at its limit, %.0f s", job.job.namespace, job.job.name, MOST_PAUSE_SECONDS)
            await job.store.swap_fleet_spec(fleet_spec.changed(held=False, held_since=0.0))
            return True
        if fleet_spec.active_transaction is None:
            await _move_strays(job, fleet_spec, batches)
            if not fleet_spec.awaits_digest or fleet_spec.rest is not None:
                return False
        await _advance(job, await job.snapshot(fresh=True), batches)
    except FleetSpecMovedError as error:
        log.info("%s/%s: %s", job.job.namespace, job.job.name, error)
    return fleet_spec.active_transaction is not None


async def _settle(job: JobContext, record: BatchRecord) -> None:
    if record.forgotten:  # an earlier deletion of its data was interrupted
        await _apart(job, job.store.forget(record.number))
        return
    if record.takes_parked:  # the call that opened it was interrupted
        await _apart(job, take_over(job, record, await job.store.fleet_spec()))
    await _apart(job, settle(job, record))


async def _apart(job: JobContext, work: Coroutine[Any, Any, object]) -> None:
    """Awaits the work for one batch and logs its error, so that other batches and a publish proceed; the next step
    retries. Raises StoreUnavailableError and FleetSpecMovedError, which concern the whole step."""
    try:
        await work
    except (StoreUnavailableError, FleetSpecMovedError):
        raise
    except Exception as error:  # also a defect
        log.warning("%s/%s: %s", job.job.namespace, job.job.name, error, exc_info=not isinstance(error, OpenseerError))


async def _is_forgotten(job: JobContext, fleet_spec: FleetSpec) -> bool:
    """Whether a pause has lasted MOST_PAUSE_SECONDS."""
    return 0.0 < fleet_spec.held_since < await job.store.now() - MOST_PAUSE_SECONDS


async def _move_strays(job: JobContext, fleet_spec: FleetSpec, batches: list[BatchRecord]) -> None:
    """Handles unfinished batches of versions that the fleet does not serve. A batch of an earlier version continues
    with the present one; a batch of a version that was never served, or of a removed adapter, is aborted."""
    store, revision = job.store, fleet_spec.revision
    for record in batches:
        if record.version in fleet_spec.served or record.progress.complete:
            continue
        following = successor(fleet_spec, record.version)
        if following is not None:
            stale = stale_by(fleet_spec, following)
            await _apart(job, store.change_version(record.number, following, stale, revision))
        elif record.progress.requests > record.progress.closed:
            await _apart(job, store.end(record.number, Event.ABORT, revision))


async def _advance(job: JobContext, snapshot: FleetSnapshot, batches: list[BatchRecord]) -> None:
    fleet_spec = snapshot.fleet_spec
    before = fleet_spec.active_transaction
    left = leaving(fleet_spec, before) if before is not None else ()
    unfinished = sum(
        record.progress.requests - record.progress.closed
        for record in batches
        if record.version in left and not record.forgotten
    )
    step = advance(fleet_spec, snapshot.workers, unfinished, snapshot.now)
    for action in step.actions:
        await _carry_out(job, action, batches, fleet_spec.revision)
    if step.fleet_spec is not fleet_spec and await job.store.swap_fleet_spec(step.fleet_spec):
        after = step.fleet_spec.transaction
        if job.traces is not None:
            job.traces.note_swap(fleet_spec, step.fleet_spec)
        if before is not None and after is not None and after.phase != before.phase:
            log.info("weights %s: %s → %s %s", after.publish.version, before.phase, after.phase, after.message)


async def _carry_out(job: JobContext, action: TransactionAction, batches: list[BatchRecord], revision: int) -> None:
    """Executes an action of a transaction. The store refuses it if the fleet spec's revision is not `revision`."""
    match action:
        case AbortBatches(version):
            for number in _numbers(batches, version):
                await _apart(job, job.store.end(number, Event.ABORT, revision))
        case ChangeVersion(old, new, stale):
            for number in _numbers(batches, old):
                await _apart(job, job.store.change_version(number, new, stale, revision))
        case DrainWorkers(workers):
            for name in workers:
                await job.store.request_drain(name, revision)


def _numbers(batches: list[BatchRecord], version: str) -> list[int]:
    """Returns the numbers of the batches of a version that are not complete."""
    return [record.number for record in batches if record.version == version and not record.progress.complete]
