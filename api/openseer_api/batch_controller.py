"""What goes on by itself for a job: batches that have enough are closed, weights transactions advance.

Level-triggered: each round looks at how things stand and does what follows. Every step may be repeated or done by two,
and orders are swapped only by who has seen the latest, so several replicas may keep one job, and any may die.
"""

import asyncio
import logging

from openseer_api.compat.live.orphans import delete_orphans
from openseer_api.job.context import JobContext
from openseer_api.job.target import settle
from openseer_core.errors import OpenseerError
from openseer_core.queue.batch import BatchRecord
from openseer_core.queue.states import Event
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.transaction import AbortBatches, ChangeVersion, DrainWorkers, TransactionAction, advance

log = logging.getLogger(__name__)

ROUND_SECONDS = 0.2
"""Between two looks; while new weights are published, half of it."""
TROUBLE_SECONDS = 2.0
"""After a look that failed."""


async def control(job: JobContext) -> None:
    """Looks after a job until it is cancelled."""
    while True:
        try:
            busy = await look(job)
        except OpenseerError as error:
            log.warning("%s/%s: %s", job.job.namespace, job.job.name, error)
            await asyncio.sleep(TROUBLE_SECONDS)
        else:
            await asyncio.sleep(ROUND_SECONDS / 2 if busy else ROUND_SECONDS)


async def look(job: JobContext) -> bool:
    """One look; True while a weights transaction is under way."""
    batches = await job.store.batches()
    for record in batches:
        await settle(job, record)
    await delete_orphans(job, batches)
    orders = await job.store.fleet_spec()
    if orders.active_transaction is None:
        await _move_strays(job, orders, batches)
        return False
    await _advance(job, orders, batches)
    return True


async def _move_strays(job: JobContext, orders: FleetSpec, batches: list[BatchRecord]) -> None:
    """Batches of a version that no worker has any more: opened while it was replaced, they go on with its successor;
    opened for one that then failed, they end."""
    for one in batches:
        if one.version == orders.version or one.progress.complete:
            continue
        if one.version in orders.versions:
            await job.store.change_version(one.number, orders.version)
        elif one.progress.requests > one.progress.closed:
            await job.store.end(one.number, Event.ABORT)


async def _advance(job: JobContext, orders: FleetSpec, batches: list[BatchRecord]) -> None:
    assert orders.active_transaction is not None
    previous = orders.active_transaction.previous
    unfinished = sum(
        one.progress.requests - one.progress.closed for one in batches if one.version == previous and not one.forgotten
    )
    workers, now = await job.store.workers(), await job.store.now()
    step = advance(orders, workers, unfinished, now)
    for action in step.actions:
        await _carry_out(job, action, batches)
    if step.fleet_spec is not orders and await job.store.swap_fleet_spec(step.fleet_spec):
        after = step.fleet_spec.transaction
        if after is not None and after.phase != orders.active_transaction.phase:
            log.info(
                "weights %s: %s → %s %s",
                after.publish.version,
                orders.active_transaction.phase,
                after.phase,
                after.message,
            )


async def _carry_out(job: JobContext, action: TransactionAction, batches: list[BatchRecord]) -> None:
    match action:
        case AbortBatches(version):
            for number in _numbers(batches, version):
                await job.store.end(number, Event.ABORT)
        case ChangeVersion(old, new, stale):
            for number in _numbers(batches, old):
                await job.store.change_version(number, new, stale)
        case DrainWorkers(workers):
            for name in workers:
                await job.store.request_drain(name)


def _numbers(batches: list[BatchRecord], version: str) -> list[int]:
    """Batches of a version that are not complete."""
    return [one.number for one in batches if one.version == version and not one.progress.complete]
