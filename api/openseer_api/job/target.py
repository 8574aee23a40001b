"""Ends a batch that has met its target, and cancels its unfinished groups or carries them over to a later batch."""

from openseer_api.http.rendering import is_met
from openseer_api.job.context import JobContext
from openseer_core.ids import PARKED_BATCH, GroupId
from openseer_core.queue.batch import BatchRecord
from openseer_core.queue.states import Event
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.versions import stale_versions

PAGE = 1024
"""Limit of group names in one read."""


async def settle(job: JobContext, record: BatchRecord) -> bool:
    """Ends a batch that has met its target; returns whether there was something to end.
    Several processes may call it."""
    spec = job.spec_of(record)
    if record.forgotten or spec.target is None or not is_met(record, spec.target):
        return False
    if record.progress.sealed and record.progress.closed == record.progress.requests:
        return False
    await job.store.seal(record.number)
    if spec.target.rest == "carry":
        await job.store.carry(await _groups(job, record.number), PARKED_BATCH, record.version)
    else:
        await job.store.end(record.number, Event.CANCEL)
    return True


async def take_over(job: JobContext, record: BatchRecord, fleet_spec: FleetSpec) -> None:
    """Moves the parked groups into a new batch; drops those with a token that is staler than the batch's max_staleness.

    Several processes may call it. Once all groups have moved, the batch takes no further ones.
    """
    stale = stale_versions(fleet_spec.versions, record.version, job.spec_of(record).max_staleness)
    await job.store.carry(await _groups(job, PARKED_BATCH), record.number, record.version, stale)


async def _groups(job: JobContext, batch: int) -> list[GroupId]:
    names: list[str] = []
    while page := await job.store.group_names(batch, len(names), PAGE):
        names += page
    return [GroupId(batch, name) for name in names]
