"""Routes of groups and requests: upload, read, continue."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic import ValidationError
from starlette.exceptions import HTTPException

from openseer_api.http.bodies import JSON, OwnRoute, media_type, validated
from openseer_api.http.gate import Held
from openseer_api.http.problems import ConflictProblem, NotFoundProblem, TooLargeProblem, documented
from openseer_api.http.rendering import render_request
from openseer_api.job.context import JobContext
from openseer_api.job.upload import Upload
from openseer_api.routes.access import Job
from openseer_api.routes.batches import BatchNumber, batch_of, living_batch
from openseer_core.admission import bad_token, overflow
from openseer_core.errors import InputError, JsonError, RequestStateError
from openseer_core.ids import GroupId, RequestId
from openseer_core.json_model import KnownGroupName
from openseer_core.json_words import first_problem
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.length_estimate import estimate
from openseer_core.queue.messages import RequestRecord
from openseer_core.tokens import count_items, pack_tokens, unpack_tokens
from openseer_core.wire.batches import (
    MAX_GROUP_SIZE,
    Continue,
    Group,
    GroupInfo,
    GroupNames,
    GroupsUpload,
    RequestInfo,
    UploadReceipt,
)
from openseer_core.wire.results import Origin

router = APIRouter(tags=["groups"], route_class=OwnRoute)

NDJSON = "application/x-ndjson"
GroupInPath = Annotated[KnownGroupName, Path()]
Index = Annotated[int, Path(ge=0, lt=MAX_GROUP_SIZE)]
_BODY = GroupsUpload.model_json_schema(ref_template="#/components/schemas/{model}")
BODY_MODELS: dict[str, Any] = _BODY.pop("$defs")
"""Schemas to which the body of an upload refers.
FastAPI does not have them, because the route itself reads its body."""
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _BODY},
            NDJSON: {"schema": {"type": "string", "description": "One Group per line."}},
        },
    }
}


@router.post("/batches/{batch}/groups", openapi_extra=_UPLOAD, responses=documented(400, 409, 413, 415, 429))
async def upload(batch: BatchNumber, request: Request, job: Job, seal: bool = False) -> UploadReceipt:
    """Queues groups, from a JSON object or from a stream with one Group per line. A group that is queued already is not
    queued again, so the whole upload may be repeated after any failure. A name that was used with other content is
    refused. `seal`: declares that the batch has no further groups."""
    record = await living_batch(request, batch, job)
    receiver = Upload(job, record)
    kind = media_type(request)
    if kind not in (NDJSON, JSON):
        raise HTTPException(415, f"Content-Type: found {kind or 'none'}, allowed: {JSON}, {NDJSON}")
    try:
        if kind == NDJSON:
            async for number, line in _lines(request, job):
                await receiver.take(await _group(line, number))
        else:
            for group in await _whole(request, job):
                await receiver.take(group)
        receipt = await receiver.finish()
    except InputError as error:
        raise receiver.counted(error) from None
    if seal:
        await job.store.seal(batch)
    return receipt


async def _lines(request: Request, job: JobContext) -> AsyncIterator[tuple[int, bytes]]:
    """Yields non-empty lines with their numbers, from 1, as they arrive. Raises TooLargeProblem."""
    held: Held = request.state.held
    rest, number, total = b"", 0, 0
    async for piece in request.stream():
        total += len(piece)
        if total > job.limits.upload_bytes:
            raise TooLargeProblem(f"an upload may have {job.limits.upload_bytes} bytes; send the rest in another one")
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > job.limits.line_bytes:
            raise TooLargeProblem(f"line {number + len(lines) + 1}: a group may have {job.limits.line_bytes} bytes")
        for line in lines:
            number += 1
            if line.strip():
                yield number, line
        held.keep(len(rest))
    if rest.strip():
        yield number + 1, rest


async def _group(line: bytes, number: int) -> Group:
    try:
        return await validated(line, Group)
    except JsonError as error:
        raise InputError(f"line {number}: {error}") from None
    except ValidationError as error:
        raise InputError(f"line {number}: {first_problem(error, Group)}") from None


async def _whole(request: Request, job: JobContext) -> list[Group]:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > job.limits.body_bytes:
            raise TooLargeProblem(f"a JSON body may have {job.limits.body_bytes} bytes; stream {NDJSON} instead")
    try:
        return (await validated(body, GroupsUpload)).groups
    except JsonError as error:
        raise InputError(f"body: {error}") from None
    except ValidationError as error:
        raise InputError(first_problem(error, GroupsUpload)) from None


@router.get("/batches/{batch}/groups", responses=documented(409))
async def list_groups(
    batch: BatchNumber,
    request: Request,
    job: Job,
    start: Annotated[int, Query(ge=0, le=2**31)] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
) -> GroupNames:
    """Returns names of the batch's groups in the order of submission."""
    await living_batch(request, batch, job)
    return GroupNames(start=start, groups=await job.store.group_names(batch, start, limit))


@router.get("/batches/{batch}/groups/{group}", responses=documented())
async def get_group(batch: BatchNumber, group: GroupInPath, job: Job) -> GroupInfo:
    """Returns a group with all its requests, and their tokens up to the last checkpoint."""
    gid, origin = GroupId(batch, group), GroupId(batch, group).origin
    record = await batch_of(job, batch)
    view = await job.store.group_view(gid)
    requests = [await job.store.record(RequestId(gid, index)) for index in range(view.size)]
    spec = await job.store.spec(gid)
    if spec is None:
        raise NotFoundProblem(f"group {gid} was acknowledged: its data are gone")
    return GroupInfo(
        batch=batch,
        group=group,
        carried_from=Origin(batch=origin.batch, group=origin.name) if origin is not None else None,
        weights_version=record.version,
        size=view.size,
        finished=view.finished,
        estimate=estimate(view),
        valid=await job.store.verdict(gid),
        prompt_token_ids=unpack_tokens(spec.prompt),
        requests=[render_request(request) for request in requests],
        metadata=json.loads(spec.metadata).get("metadata", {}),
    )


@router.get("/batches/{batch}/groups/{group}/requests/{index}", responses=documented())
async def get_request(batch: BatchNumber, group: GroupInPath, index: Index, job: Job) -> RequestInfo:
    """Returns a request with its tokens up to the last checkpoint."""
    return render_request(await _record(job, RequestId(GroupId(batch, group), index)))


@router.post("/batches/{batch}/groups/{group}/requests/{index}/continue", responses=documented(409))
async def go_on(batch: BatchNumber, group: GroupInPath, index: Index, turn: Continue, job: Job) -> RequestInfo:
    """Appends the environment's tokens to a finished response, which then continues. Between two turns the request has
    no lease. It remains in its group and batch, and reuses its KV cache if its worker still has it. Seal the batch
    after the last turn: a sealed batch is complete when all its requests have ended."""
    record = await batch_of(job, batch)
    if record.progress.complete:
        raise ConflictProblem(f"batch {batch} is complete; seal a batch only after its last turns have begun")
    request = RequestId(GroupId(batch, group), index)
    await _check_room(job, request, turn)
    await job.store.go_on(request, turn.turn, pack_tokens(turn.token_ids))
    return render_request(await _record(job, request))


async def _check_room(job: JobContext, request: RequestId, turn: Continue) -> None:
    """Raises InputError for tokens outside the vocabulary, and RequestStateError for a scored request, or if the
    context has no room for another token."""
    limits = await job.limits_of_requests()
    if problem := bad_token("token_ids", turn.token_ids, limits):
        raise InputError(problem)
    record, spec = await job.store.record(request), await job.store.spec(request.group)
    if spec is None or record.turn != turn.turn:
        return  # a repeated call, or a turn that the store refuses
    if parse_sampling(spec.sampling).score_from is not None:
        raise RequestStateError(f"{request} was scored and not sampled: it has no further turn; submit another group")
    response = count_items(record.tokens) + len(turn.token_ids)
    if problem := overflow(count_items(spec.prompt), response, limits, room=1):
        raise RequestStateError(f"{request} has no room: {problem}")


async def _record(job: JobContext, request: RequestId) -> RequestRecord:
    return await job.store.record(request)
