"""The route that reads results: as a page, with a long poll, or as a stream of lines or of server-sent events."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any, NamedTuple

import msgspec
from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from openseer_api.http.bodies import OwnRoute
from openseer_api.http.problems import ConflictProblem, documented
from openseer_api.http.rendering import is_complete, made, render_entry
from openseer_api.job.context import JobContext
from openseer_api.job.rows import RowsUnavailable, rows_of
from openseer_api.routes.access import Job
from openseer_api.routes.batches import BatchNumber, batch_of, check_cursor, check_living, note_end
from openseer_core.json_model import INT53_MAX
from openseer_core.queue.batch import BatchRecord, Entry
from openseer_core.queue.messages import Result
from openseer_core.wire.results import MAX_PAGE, MAX_WAIT_SECONDS, ResultPage
from openseer_store.routed.assembly import RoutedExperts
from openseer_text.rendering import TextCodec

router = APIRouter(tags=["results"], route_class=OwnRoute)

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
STEP = 32
"""Limit of entries in one read of the store. Other calls run between two reads, and a stalled reader holds one step."""
PIECE_BYTES = 128 * 2**10
"""Approximate limit of a piece of JSON that is rendered and sent at once, in bytes; a longer entry is one piece."""
PAGE_BYTES = 16 * 2**20
"""Size of a page, in bytes of JSON, from which it begins no further step, because its reader holds it as a whole."""
BEAT_SECONDS = 10.0
"""Interval between keep-alives of a stream without new entries, in seconds."""
_encode = msgspec.json.Encoder().encode

Cursor = Annotated[int, Query(ge=0, le=INT53_MAX, description="Cursor of the last entry that the caller has.")]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
Wait = Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, description="Longest wait for the first entry, in seconds.")]
_STREAMS: dict[int | str, dict[str, Any]] = {
    200: {
        "model": ResultPage,
        "description": "A page; with Accept: application/x-ndjson one Item per line, with Accept: text/event-stream "
        "one Item per event, both until the batch is complete. The last item is of kind end, or of kind error, with "
        "status and detail, if another reader has acknowledged entries meanwhile.",
        "content": {NDJSON: {"schema": {"type": "string"}}, SSE: {"schema": {"type": "string"}}},
    }
}


@router.get("/batches/{batch}/results", response_model=ResultPage, responses=_STREAMS | documented(409))
async def read_results(
    batch: BatchNumber,
    job: Job,
    cursor: Cursor = 0,
    limit: Limit = 256,
    wait_seconds: Wait = 0.0,
    accept: Annotated[str, Header()] = "",
    last_event_id: Annotated[int | None, Header(ge=0, le=INT53_MAX)] = None,
) -> Response:
    """Returns results and ends of groups after a cursor. A read from an older cursor returns the same entries again,
    until they are acknowledged. Each result is unique by batch, group, index and turn."""
    # Not for a caller that has all entries: its own last acknowledgement may have deleted the data.
    record = await batch_of(job, batch)
    if cursor < record.progress.entries:
        check_living(record)
    start = max(cursor, last_event_id or 0)
    await check_cursor(job, record, start, "cursor" if start == cursor else "Last-Event-ID")
    _check_kept(record, start)
    if SSE in accept:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_events(job, batch, start), media_type=SSE, headers=headers)
    if NDJSON in accept:
        return StreamingResponse(_lines(job, batch, cursor), media_type=NDJSON)
    # The first step is read before the response begins, because it may raise an error.
    first = await _step_from(job, record, cursor, limit, wait_seconds)
    page = _page(job, batch, cursor, limit, first)
    return StreamingResponse(_begun(await anext(page), page), media_type="application/json")


class _Item(NamedTuple):
    """A rendered entry."""

    cursor: int
    kind: str
    json: bytes


class _Step(NamedTuple):
    """The next entries, the cursor of the last one, and `done`: whether the batch has no entry after it."""

    entries: list[Entry]
    cursor: int
    done: bool


async def _step(job: JobContext, batch: int, cursor: int, limit: int, wait_seconds: float) -> _Step:
    """Reads the next entries after a cursor, at most STEP and `limit`. Waits up to `wait_seconds` for the first entry.

    Raises ConflictProblem if entries after `cursor` were acknowledged, and so deleted, meanwhile.
    """
    record = await job.store.batch(batch)
    if record is None:
        return _Step([], cursor, done=True)
    return await _step_from(job, record, cursor, limit, wait_seconds)


async def _step_from(job: JobContext, record: BatchRecord, cursor: int, limit: int, wait_seconds: float) -> _Step:
    """As `_step`. `record` was read before the entries: so if it is complete, no entry is added after this read."""
    _check_kept(record, cursor)
    ended, batch, last = is_complete(record), record.number, record.progress.entries
    entries = await job.store.results(batch, cursor, min(STEP, limit), 0.0 if ended else wait_seconds)
    if entries and entries[0].cursor > cursor + 1:  # a new epoch of the store, or another reader's acknowledgement
        _check_kept(await job.store.batch(batch), cursor)
    cursor = entries[-1].cursor if entries else cursor
    done = record.forgotten or (ended and cursor >= last)
    if job.traces is not None:
        job.traces.note_entries(record, job.spec_of(record), entries)
        if done:
            await note_end(job, record)
    return _Step(entries, cursor, done)


async def _begun(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


def _item(entry: Entry, codec: TextCodec | None, rows: RoutedExperts | None) -> _Item:
    item = render_entry(entry, codec, rows)
    return _Item(entry.cursor, item["kind"], _encode(item))


async def _pieces(job: JobContext, entries: list[Entry]) -> AsyncIterator[list[_Item]]:
    """Yields rendered entries in pieces of about PIECE_BYTES. Encodes each piece after the previous one was sent.
    Raises RowsUnavailable."""
    piece: list[_Item] = []
    size = 0
    for entry in entries:
        scores = len(entry.logprobs) if isinstance(entry, Result) else 0
        try:
            rows = await rows_of(job.rows, entry) if isinstance(entry, Result) else None
        except RowsUnavailable:
            if piece:
                yield piece
            raise
        read = partial(_item, entry, job.known_codec(), rows)
        piece.append(await (made(scores, read) if rows is None else asyncio.to_thread(read)))
        size += len(piece[-1].json)
        if size >= PIECE_BYTES:
            yield piece
            piece, size = [], 0
            await asyncio.sleep(0)
    if piece:
        yield piece


async def _page(job: JobContext, batch: int, cursor: int, limit: int, step: _Step) -> AsyncIterator[bytes]:
    """Yields a page piece by piece; `step` has its first entries. Raises ConflictProblem or RowsUnavailable before the
    first piece. At a later error the page ends, and the next call of the reader gets the error."""
    count = size = 0
    head = b'{"items":['
    done = step.done
    try:
        while step.entries:
            async for piece in _pieces(job, step.entries):
                text = head + b",".join(item.json for item in piece)
                head, size, cursor = b",", size + len(text), piece[-1].cursor
                yield text
            count, done = count + len(step.entries), step.done
            is_last = len(step.entries) < STEP  # no further entry yet: the caller may call again and wait
            if done or is_last or count >= limit or size >= PAGE_BYTES:
                break
            step = await _step(job, batch, cursor, limit - count, 0.0)
            done = step.done
    except (ConflictProblem, RowsUnavailable):
        if not size:
            raise
        done = False
    end = b'],"cursor":%d,"complete":%s}' % (cursor, b"true" if done else b"false")
    yield end if size else head + end


def _check_kept(record: BatchRecord | None, cursor: int) -> None:
    if record is None:
        return
    gone = record.progress.entries if record.forgotten else record.swept
    if cursor < gone:
        raise ConflictProblem(f"cursor: found {cursor}; entries up to {gone} were acknowledged, and are deleted")


async def _stream(job: JobContext, batch: int, cursor: int) -> AsyncIterator[list[_Item]]:
    """Yields entries as they arrive, an empty list as a keep-alive, and finally an item of kind end or error."""
    done = False
    while not done:
        sent = cursor
        try:
            entries, cursor, done = await _step(job, batch, cursor, STEP, BEAT_SECONDS)
            async for piece in _pieces(job, entries):
                yield piece
                sent = piece[-1].cursor
        except (ConflictProblem, RowsUnavailable) as error:
            status = 409 if isinstance(error, ConflictProblem) else 503
            yield [_note("error", sent, status=status, detail=str(error))]
            return
        if done:
            yield [_note("end", cursor)]
        elif not entries:
            yield []
        await asyncio.sleep(0)


def _note(kind: str, cursor: int, **fields: object) -> _Item:
    return _Item(cursor, kind, _encode({"kind": kind, "cursor": cursor, **fields}))


async def _lines(job: JobContext, batch: int, cursor: int) -> AsyncIterator[bytes]:
    async for items in _stream(job, batch, cursor):
        yield b"".join(item.json + b"\n" for item in items) or b"\n"


async def _events(job: JobContext, batch: int, cursor: int) -> AsyncIterator[bytes]:
    async for items in _stream(job, batch, cursor):
        yield b"".join(map(_event, items)) or b": alive\n\n"


def _event(item: _Item) -> bytes:
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (item.cursor, item.kind.encode(), item.json)
