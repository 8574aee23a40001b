"""Ends a batch that has met its target: its unfinished groups are cancelled, or carried over to a later batch."""

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
    """Closes a batch that has met its target; True if it changed the batch. Idempotent, also among processes."""
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
    """Moves groups that were carried over into a new batch; groups with tokens of a too old version are dropped.

    Idempotent, also among processes; after all have moved, the batch takes no more of them.
    """
    stale = stale_versions(fleet_spec.versions, record.version, job.spec_of(record).max_staleness)
    await job.store.carry(await _groups(job, PARKED_BATCH), record.number, record.version, stale)


async def _groups(job: JobContext, batch: int) -> list[GroupId]:
    names: list[str] = []
    while page := await job.store.group_names(batch, len(names), PAGE):
        names += page
    return [GroupId(batch, name) for name in names]
