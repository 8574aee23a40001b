"""Rows of routed experts go once the batch that they belong to was acknowledged."""

import asyncio
import logging

from openseer_api.job.context import JobContext
from openseer_core.errors import OpenseerError
from openseer_store.routed.folders import remove_batch, row_batches

log = logging.getLogger(__name__)

LOOK_SECONDS = 30.0
"""How often it is looked which batches are gone."""


async def keep_rows_within(job: JobContext) -> None:
    """Removes rows of batches that are gone, until it is cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            await remove_rows(job)
        except OpenseerError as error:
            log.warning("%s/%s: rows are not looked through: %s", job.job.namespace, job.job.name, error)


async def remove_rows(job: JobContext) -> None:
    """Removes them once. Those of a batch of which groups were carried to another one stay until they are stale."""
    if job.rows is None:
        return
    # Read before the batches: one that is opened in between has no rows among these.
    found = await asyncio.to_thread(row_batches, job.rows)
    for number in found:
        record = await job.store.batch(number)
        if record is None or record.forgotten:
            carried = record is None or record.progress.groups_carried > 0
            await asyncio.to_thread(remove_batch, job.rows, number, only_stale=carried)
