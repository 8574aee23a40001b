"""Routes of batches: open, list, seal, judge, cancel, acknowledge, forget."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response

from openseer_api.http.bodies import OwnRoute
from openseer_api.http.problems import ConflictProblem, NotFoundProblem, documented
from openseer_api.http.rendering import is_complete, render_batch
from openseer_api.job.context import FleetSnapshot, JobContext
from openseer_api.job.sampling import check_sampling
from openseer_api.job.target import take_over
from openseer_api.routes.access import Job
from openseer_core.errors import InputError
from openseer_core.ids import GroupId
from openseer_core.json_model import INT53_MAX
from openseer_core.json_words import canonical
from openseer_core.queue.batch import BatchRecord, OpenBatch
from openseer_core.queue.states import Event
from openseer_core.traces.traceparent import TraceParent
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.versions import takes_groups
from openseer_core.wire.batches import (
    Acknowledge,
    Batch,
    BatchList,
    BatchSpec,
    Cancel,
    Count,
    Verdicts,
    metadata_problem,
)
from openseer_core.worker.time_metrics import mean_pace

router = APIRouter(tags=["batches"], route_class=OwnRoute)

LOOKUPS = 64
"""Limit of concurrent look-ups of groups."""
MOST_NAMED = 5
"""Limit of unknown groups that one problem names."""
BatchNumber = Annotated[int, Path(ge=1, le=INT53_MAX)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="A repeat with the same key returns the same batch, until a day after its data are deleted.",
    ),
]

CallersSpan = Annotated[
    str | None, Header(description="The caller's span, in W3C's format; see the body's traceparent.")
]


async def batch_of(job: JobContext, number: int) -> BatchRecord:
    """Returns the record of a batch. Raises NotFoundProblem."""
    found = await job.store.batch(number)
    if found is None:
        raise NotFoundProblem(
            f"there is no batch {number}; if the store has lost it, open it again with its key, and submit again"
        )
    return found


async def note_end(job: JobContext, record: BatchRecord) -> None:
    """Creates the span of an ended batch, if the job has traces."""
    if job.traces is not None:
        snapshot = await job.snapshot()
        drafts = job.drafts.of(record.number, snapshot.workers, ended=is_complete(record))
        job.traces.note_end(record, job.spec_of(record), drafts, snapshot.now)


async def shown(job: JobContext, number: int) -> Batch:
    """Reads a batch and renders it for the API. Raises NotFoundProblem."""
    # Concurrently, because each reply of the store may wait behind large pages of results.
    record, snapshot, now = await asyncio.gather(batch_of(job, number), job.snapshot(), job.store.now())
    return rendered(job, record, snapshot, now)


def rendered(job: JobContext, record: BatchRecord, snapshot: FleetSnapshot, now: float) -> Batch:
    """Renders a batch for the API. `now`: seconds of the store's clock."""
    drafts = job.drafts.of(record.number, snapshot.workers, ended=is_complete(record))
    name = f"{job.job.namespace}/{job.job.name}"
    metrics = [worker.heartbeat.metrics for worker in snapshot.workers]
    pace = mean_pace((each.tokens, each.seconds) for each in metrics)
    return render_batch(record, job.spec_of(record), name, now, drafts, pace)


@router.post("/batches", status_code=201, response_model=Batch, responses={200: {"model": Batch}, **documented(409)})
async def open_batch(
    spec: BatchSpec, job: Job, response: Response, key: IdempotencyKey = None, traceparent: CallersSpan = None
) -> Batch:
    """Opens a batch, to which groups can then be uploaded. If the key was used before, returns 200 and the same batch,
    also if the fleet has other weights now."""
    parent = TraceParent.parse(spec.traceparent or traceparent)
    spec = spec.model_copy(update={"traceparent": None if parent is None else str(parent)})
    if spec.sampling is not None:
        await check_sampling(job, spec.sampling)
    if wrong := metadata_problem(spec.metadata):
        raise InputError(wrong)
    if spec.max_staleness is not None and not spec.carry:
        raise InputError(f"max_staleness: found {spec.max_staleness}; it limits carried groups: set carry: true")
    fleet_spec = (await job.snapshot(fresh=True)).fleet_spec
    record, new = await _opened(job, spec, key, fleet_spec)
    if record.takes_parked:  # also in a repeated call, if the first one was interrupted here
        await take_over(job, record, fleet_spec)
    if not new:
        response.status_code = 200
    return await shown(job, record.number)


async def _opened(job: JobContext, spec: BatchSpec, key: str | None, fleet_spec: FleetSpec) -> tuple[BatchRecord, bool]:
    """Opens a batch; returns its record and True, or the record of the batch of this key and False.
    Raises ConflictProblem."""
    try:
        version = _version(spec, fleet_spec)
    except ConflictProblem:
        there = await job.store.batch_of_key(key) if key else None
        if there is None:
            raise
        record, new = there, False
    else:
        text = spec.model_dump_json(exclude_defaults=True)
        record, new = await job.store.open_batch(OpenBatch(version, text, key or "", spec.carry))
    if not new:
        _check_same(job, record, spec)
    return record, new


def _check_same(job: JobContext, record: BatchRecord, spec: BatchSpec) -> None:
    """Raises ConflictProblem if the batch of a key was opened with another body."""
    before, now = job.spec_of(record).model_dump(mode="json"), spec.model_dump(mode="json")
    del before["traceparent"]  # it differs after a trainer's restart
    other = [name for name in before if canonical(before[name]) != canonical(now[name])]
    if other:
        raise ConflictProblem(
            f"Idempotency-Key: batch {record.number} was opened with it, and with other values of {', '.join(other)}; "
            "use another key for another batch"
        )


def _version(spec: BatchSpec, fleet_spec: FleetSpec) -> str:
    """Returns the weights version for a batch, which the fleet serves or is about to serve. Raises ConflictProblem."""
    active = fleet_spec.active_transaction
    coming = active.publish.version if active is not None else None
    adapter = fleet_spec.adapter(spec.adapter) if spec.adapter is not None else None
    if spec.adapter is not None and adapter is None:
        names = ", ".join(served.name for served in fleet_spec.adapters) or "no adapters"
        raise ConflictProblem(f"adapter: found {spec.adapter}; the fleet has {names}: publish it first")
    own = fleet_spec.version if adapter is None else adapter.version
    version = spec.weights_version or own
    if version not in ((own,) if adapter is not None else (*fleet_spec.served, coming)):
        raise ConflictProblem(
            f"weights_version: found {version}; the fleet has {', '.join(fleet_spec.served)}"
            + (f", and {coming} is being published" if coming else "")
            + (f"; adapter {adapter.name} is {own}" if adapter is not None else "")
            + f": publish {version}, or leave weights_version out"
        )
    if not takes_groups(fleet_spec, version):
        raise ConflictProblem(f"weights_version: the fleet is leaving {version} for {coming}")
    carries = spec.carry or (spec.target is not None and spec.target.rest == "carry")
    is_weights = active is None or active.publish.adapter is None
    if carries and version != fleet_spec.version and not (is_weights and version == coming):
        raise ConflictProblem("carry: groups of an adapter are not carried over, because any batch could take them")
    return version


@router.get("/batches", responses=documented())
async def list_batches(job: Job) -> BatchList:
    """Returns the batches whose data are not deleted."""
    snapshot, now = await job.snapshot(), await job.store.now()
    return BatchList(batches=[rendered(job, record, snapshot, now) for record in await job.store.batches()])


@router.get("/batches/{batch}", responses=documented())
async def get_batch(batch: BatchNumber, job: Job) -> Batch:
    """Returns a batch with its progress, also for a day after its data were deleted."""
    return await shown(job, batch)


@router.get("/batches/{batch}/metrics", responses=documented())
async def get_metrics(batch: BatchNumber, job: Job) -> dict[str, float]:
    """Returns the batch's metrics as a flat object, name → number, for a trainer's logger."""
    return (await shown(job, batch)).metrics.flat()


@router.delete("/batches/{batch}", status_code=204, responses=documented())
async def delete_batch(batch: BatchNumber, job: Job) -> None:
    """Cancels unfinished requests and deletes the batch's data."""
    await note_end(job, await batch_of(job, batch))
    await job.store.forget(batch)


@router.post("/batches/{batch}/seal", responses=documented(409))
async def seal_batch(batch: BatchNumber, job: Job) -> Batch:
    """Declares that all groups are submitted. The batch is complete once the last group has ended."""
    await _open(job, batch)
    await job.store.seal(batch)
    return await shown(job, batch)


@router.post("/batches/{batch}/cancel", responses=documented(409))
async def cancel(batch: BatchNumber, what: Cancel, job: Job) -> Count:
    """Ends unfinished requests of the batch, of groups, or of one index of a group. Partial responses are reported as
    cancelled. Returns the number of ended requests."""
    if what.index is not None and len(what.groups or ()) != 1:
        raise InputError("index: it selects a request of one group; give exactly one group with it")
    await _open(job, batch)
    if what.groups is None:
        return Count(count=await job.store.end(batch, Event.CANCEL))
    groups = [GroupId(batch, name) for name in what.groups]
    await _check_known(job, groups)
    return Count(count=await job.store.end_groups(groups, Event.CANCEL, what.index))


async def _check_known(job: JobContext, groups: list[GroupId]) -> None:
    """Raises NotFoundProblem for groups that do not exist."""
    for start in range(0, len(groups), LOOKUPS):
        piece = groups[start : start + LOOKUPS]
        found = await asyncio.gather(*map(job.store.group_view, piece), return_exceptions=True)
        unknown = [gid.name for gid, view in zip(piece, found, strict=True) if isinstance(view, KeyError)]
        if unknown:
            raise NotFoundProblem(f"groups: batch {piece[0].batch} has no group {', '.join(unknown[:MOST_NAMED])}")


@router.post("/batches/{batch}/verdicts", responses=documented(409))
async def judge(batch: BatchNumber, verdicts: Verdicts, job: Job) -> Batch:
    """Marks groups as valid or invalid for training; ignores unknown names. `wanted` in the response is the number of
    groups that are still needed."""
    both = sorted(set(verdicts.valid) & set(verdicts.invalid))
    if both:
        raise InputError(f"valid and invalid both name {', '.join(both[:5])}")
    await _open(job, batch)
    await job.store.judge(batch, dict.fromkeys(verdicts.valid, True) | dict.fromkeys(verdicts.invalid, False))
    return await shown(job, batch)


@router.post("/batches/{batch}/acknowledge", responses=documented(409))
async def acknowledge(batch: BatchNumber, up_to: Acknowledge, job: Job) -> Batch:
    """Confirms that the trainer has stored all results up to the cursor. If that is the last cursor of a complete
    batch, the batch's data are deleted."""
    record = await batch_of(job, batch)
    await check_cursor(job, record, up_to.cursor, "cursor")
    if not record.forgotten:
        await job.store.acknowledge(batch, up_to.cursor)
    if is_complete(record) and up_to.cursor == record.progress.entries:
        await note_end(job, record)
        await job.store.forget(batch)  # also in a repeated call, if the first one was interrupted here
    return await shown(job, batch)


async def check_cursor(job: JobContext, record: BatchRecord, cursor: int, name: str) -> None:
    """Raises ConflictProblem for a cursor past the last one, unless the store may have lost that entry. `name`: the
    name of the cursor's field."""
    last = record.progress.entries
    if cursor > last and cursor > await job.store.base():  # at or below the base: a cursor of an earlier epoch
        raise ConflictProblem(f"{name}: found {cursor}; the batch's last is {last}")


def check_living(record: BatchRecord) -> None:
    """Raises ConflictProblem for a batch whose data are deleted."""
    if record.forgotten:
        raise ConflictProblem(f"batch {record.number} was acknowledged or deleted; its data are gone")


async def _open(job: JobContext, number: int) -> BatchRecord:
    """Returns the record of a batch whose data are not deleted. Raises NotFoundProblem, ConflictProblem."""
    record = await batch_of(job, number)
    check_living(record)
    return record


async def living_batch(request: Request, batch: BatchNumber, job: Job) -> BatchRecord:
    """Returns the record of a batch whose data are not deleted. Raises NotFoundProblem, ConflictProblem."""
    return await _open(job, batch)
