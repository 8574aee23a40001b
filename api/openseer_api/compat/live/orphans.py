"""Deletes the live batches of API processes that have ended, whose callers have lost their connections."""

import logging
from collections.abc import Sequence

from openseer_api.compat.live.requests import boot_of, owner
from openseer_api.job.context import JobContext
from openseer_core.queue.batch import BatchRecord

log = logging.getLogger(__name__)

ORPHAN_SECONDS = 300.0
"""Age of a process's newest live batch, in seconds, above which the process counts as ended. A process with unfinished
requests opens a batch every minute (batch.BATCH_SECONDS). If it could not reach the store for longer, its batches are
deleted, and it fails its requests with LostError."""


async def delete_orphans(job: JobContext, batches: Sequence[BatchRecord]) -> int:
    """Deletes the live batches of processes that have ended. Returns the number of deleted batches."""
    mine = boot_of(job)
    owned: dict[str, list[BatchRecord]] = {}
    for record in batches:
        if (boot := owner(job, record)) and boot != mine:
            owned.setdefault(boot, []).append(record)
    if not owned:
        return 0
    now = await job.store.now()
    dead = [of for of in owned.values() if now - max(record.opened_at for record in of) > ORPHAN_SECONDS]
    for record in (record for of in dead for record in of):
        log.info("batch %s belongs to an api process that has ended", record.number)
        await job.store.forget(record.number)
    return sum(map(len, dead))
