"""Routes that read results: a page with a long poll, or a stream of lines or of server-sent events, until the end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from openseer_api.http.problems import ConflictProblem, documented
from openseer_api.http.rendering import is_complete, render_entries
from openseer_api.job.context import JobContext
from openseer_api.routes.access import Job
from openseer_api.routes.batches import BatchNumber, batch_of, living_batch
from openseer_core.json_model import INT53_MAX
from openseer_core.queue.batch import BatchRecord
from openseer_core.wire.batches import MAX_PAGE, MAX_WAIT_SECONDS, ResultPage

router = APIRouter(tags=["results"])

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
STREAM_PAGE = 64
"""Entries read at once for a stream: small pieces let other calls in between."""
STEP = 32
"""Entries read and rendered without a pause."""
BEAT_SECONDS = 10.0
"""A stream without new entries sends a sign of life so often."""
_encode = msgspec.json.Encoder().encode

Cursor = Annotated[int, Query(ge=0, le=INT53_MAX, description="Of the last entry that the caller has.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="How long to wait for the first entry.")]
_STREAMS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ResultPage,
        "description": "A page; with Accept: application/x-ndjson an Item a line, with Accept: text/event-stream an "
        "Item an event, both until the batch is complete: then comes an item of kind end; or one of kind error, with "
        "status and detail, when another reader has acknowledged entries meanwhile.",
        "content": {NDJSON: {"schema": {"type": "string"}}, SSE: {"schema": {"type": "string"}}},
    }
}


@router.get("/batches/{batch}/results", response_model=ResultPage, responses=_STREAMS | documented(409))
async def read_results(
    batch: BatchNumber,
    request: Request,
    job: Job,
    cursor: Cursor = 0,
    limit: Limit = 256,
    wait_seconds: Wait = 0.0,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[int | None, Header(ge=0, le=INT53_MAX)] = None,
) -> Response:
    """Results and ends of groups after a cursor. Reading again from an older cursor gives the same entries again,
    until they are acknowledged; each is unique by batch, group, index and turn."""
    # A caller that has all entries gets the end, not a conflict: its last acknowledgement may have deleted the data.
    record = await batch_of(job, batch)
    if cursor < record.progress.entries:
        await living_batch(request, batch, job)
    start = max(cursor, last_event_id or 0)
    _check_kept(record, start)
    if SSE in accept:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(job, batch, start), media_type=SSE, headers=headers)
    if NDJSON in accept:
        return StreamingResponse(_lines(job, batch, cursor), media_type=NDJSON)
    items, complete = await page(job, batch, cursor, limit, wait_seconds)
    last = items[-1]["cursor"] if items else cursor
    return Response(_encode({"items": items, "cursor": last, "complete": complete}), media_type="application/json")


async def page(
    job: JobContext, batch: int, cursor: int, limit: int, wait_seconds: float
) -> tuple[list[dict[str, Any]], bool]:
    """Entries after a cursor, and whether nothing more will come after them.

    Raises ConflictProblem when entries after `cursor` were acknowledged meanwhile, and are gone.
    """
    # Read before the entries: what is complete now has all its entries.
    record = await job.store.batch(batch)
    _check_kept(record, cursor)
    ended = record is None or is_complete(record)
    items: list[dict[str, Any]] = []
    wait = 0.0 if ended else wait_seconds
    while len(items) < limit:
        # A page of long responses takes a while to read and render: in steps, other calls are answered in between.
        entries = await job.store.results(batch, cursor, min(STEP, limit - len(items)), 0.0 if items else wait)
        if not entries:
            break
        if entries[0].cursor > cursor + 1:  # a new epoch of the store, or another reader's acknowledgement
            _check_kept(await job.store.batch(batch), cursor)
        items += render_entries(entries, job.known_codec())
        cursor = entries[-1].cursor
    done = record is None or record.forgotten or (ended and cursor >= record.progress.entries)
    return items, done


def _check_kept(record: BatchRecord | None, cursor: int) -> None:
    if record is None:
        return
    gone = record.progress.entries if record.forgotten else record.swept
    if cursor < gone:
        raise ConflictProblem(f"cursor: found {cursor}; entries up to {gone} were acknowledged, and are gone")


async def _pieces(job: JobContext, batch: int, cursor: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Entries as they come, an empty list as a sign of life, the end or an error at the end."""
    done = False
    while not done:
        try:
            items, done = await page(job, batch, cursor, STREAM_PAGE, BEAT_SECONDS)
        except ConflictProblem as error:
            yield [{"kind": "error", "cursor": cursor, "status": 409, "detail": str(error)}]
            return
        if items:
            cursor = items[-1]["cursor"]
        if done:
            items.append({"kind": "end", "cursor": cursor})
        yield items
        await asyncio.sleep(0)


async def _lines(job: JobContext, batch: int, cursor: int) -> AsyncIterator[bytes]:
    async for items in _pieces(job, batch, cursor):
        yield b"".join(_encode(item) + b"\n" for item in items) or b"\n"


async def _events(job: JobContext, batch: int, cursor: int) -> AsyncIterator[bytes]:
    async for items in _pieces(job, batch, cursor):
        yield b"".join(_event(item) for item in items) or b": alive\n\n"


def _event(item: dict[str, Any]) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (item["cursor"], item["kind"].encode(), _encode(item))
