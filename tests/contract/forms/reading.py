"""The contents of a job's store under fixed names, so that a renamed class or attribute changes one line here."""

from dataclasses import asdict
from typing import Any

from openseer_core.ids import GroupId, RequestId
from openseer_core.queue.batch import BatchRecord, Entry, GroupEnd
from openseer_core.queue.group import GroupSpec, GroupView
from openseer_core.queue.messages import BatchProgress, Chunk, RequestRecord
from openseer_core.tokens import unpack_logprobs, unpack_tokens
from openseer_store.port import Store

Json = dict[str, Any]


async def read_all(store: Store, batches: tuple[int, ...], digests: list[str]) -> Json:
    """The results of all reading calls for these batches, finished ones included."""
    load = await store.load()
    return {
        "batches": [batch_row(record) for record in await store.batches()],
        "batch by number": {str(number): await _batch(store, number) for number in batches},
        "orders": (await store.fleet_spec()).model_dump_json(exclude_defaults=True),
        "workers": [
            {
                "name": status.name,
                "boot": status.boot,
                "seen_at": status.seen_at,
                "inflight": status.inflight,
                "state": status.heartbeat.state,
                "figures": status.heartbeat.metrics,
                "weights": status.heartbeat.weights.model_dump_json(exclude_defaults=True)
                if status.heartbeat.weights
                else None,
                "idle_seconds": status.heartbeat.idle_seconds,
                "busy_seconds": status.heartbeat.busy_seconds,
            }
            for status in await store.workers()
        ],
        "load": [load.waiting, load.running, load.idle_seconds, load.busy_seconds],
        "longest earlier": await store.longest_earlier(digests),
    }


async def _batch(store: Store, number: int) -> Json:
    record = await store.batch(number)
    names = await store.group_names(number, 0, 100)
    return {
        "record": batch_row(record) if record is not None and number >= 0 else None,
        "progress": progress_row(await store.progress(number)),
        "results": [entry_row(entry) for entry in await store.results(number, 0, 100)],
        "journal": [
            [event.at, event.event, event.request, event.worker, event.fence, event.length]
            for event in await store.journal(number, 0, 1000)
        ],
        "groups": {name: await _group(store, GroupId(number, name)) for name in names},
    }


async def _group(store: Store, group: GroupId) -> Json:
    spec = await store.spec(group)
    assert spec is not None
    records = [await store.record(RequestId(group, index)) for index in range(spec.size)]
    return {
        "spec": spec_row(spec),
        "view": view_row(await store.group_view(group)),
        "requests": [record_row(record) for record in records],
        "verdict": await store.verdict(group),
    }


def batch_row(record: BatchRecord) -> Json:
    """The record of a batch."""
    return {
        "number": record.number,
        "version": record.version,
        "spec": record.spec,
        "times": [record.opened_at, record.started_at, record.tail_at, record.ended_at],
        "acknowledged": record.acknowledged,
        "forgotten": record.forgotten,
    }


def progress_row(progress: BatchProgress) -> Json:
    """Counts of a batch: a driver prints them by these names."""
    return asdict(progress)


def chunk_row(chunk: Chunk) -> list[Any]:
    """One past lease."""
    when = (chunk.claimed_at, chunk.ended_at)
    return [chunk.worker, chunk.fence, chunk.start, chunk.end, *when, chunk.event, chunk.version]


def entry_row(entry: Entry) -> Json:
    """A result, or the end of a group."""
    if isinstance(entry, GroupEnd):
        counts = [entry.size, entry.ok, entry.aborted, entry.infra_failed, entry.carried_over]
        return {"cursor": entry.cursor, "group": str(entry.group), "ended_at": entry.ended_at, "counts": counts}
    return {
        "cursor": entry.cursor,
        "request": str(entry.request),
        "version": entry.version,
        "status": entry.status.value,
        "reason": entry.reason.value,
        "stop_reason": entry.stop_reason,
        "prompt": unpack_tokens(entry.prompt),
        "tokens": unpack_tokens(entry.tokens),
        "logprobs": unpack_logprobs(entry.logprobs),
        "metadata": entry.metadata,
        "sampling": entry.sampling,
        "times": [entry.enqueued_at, entry.finished_at],
        "chunks": [chunk_row(chunk) for chunk in entry.chunks],
        "turn": entry.turn,
    }


def spec_row(spec: GroupSpec) -> Json:
    """A group as it was submitted."""
    return {
        "id": str(spec.id),
        "version": spec.version,
        "ordinal": spec.ordinal,
        "prompt": unpack_tokens(spec.prompt),
        "max_tokens": spec.max_tokens,
        "ranks": list(spec.biases),
        "lanes": list(spec.lanes),
        "priority": [spec.priority.base, spec.priority.slope, spec.priority.probe],
        "enqueued_at": spec.enqueued_at,
        "lengths": list(spec.lengths),
        "sampling": spec.sampling,
        "metadata": spec.metadata,
        "tier": spec.tier,
        "seeds": list(spec.seeds),
        "history": [spec.history, spec.history_size, spec.longest_earlier],
    }


def view_row(view: GroupView) -> list[Any]:
    """The facts learned about a group."""
    shape = (str(view.id), view.revision, view.ordinal, view.size, view.max_tokens, view.enqueued_at)
    lengths = (view.longest_finished, view.longest_running, view.longest_earlier)
    return [*shape, view.finished, *lengths, view.tier]


def record_row(record: RequestRecord) -> Json:
    """The stored fields of a request."""
    return {
        "state": record.state.value,
        "fence": record.fence,
        "tokens": unpack_tokens(record.tokens),
        "logprobs": unpack_logprobs(record.logprobs),
        "chunks": [chunk_row(chunk) for chunk in record.chunks],
        "turn": record.turn,
        "holder": record.holder,
        "reason": record.reason,
    }
