"""The driver: submits a batch job's groups to the store and writes each result exactly once.

A result is acknowledged only after it is on disk, and it is unique by (batch, group, index): a result that is read
again after a crash is not written again. A job has one driver at a time: the store rejects calls with the fence of an
older one.
"""

import asyncio
import json
import uuid
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import msgspec

from openseer_core.errors import DriverFencedError
from openseer_core.ids import BATCH_JOB_BATCH
from openseer_core.manifest.job import Sampling
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.batch import Entry, GroupEnd
from openseer_core.queue.group import GroupSpec
from openseer_core.queue.messages import Result
from openseer_core.queue.placement import queued_at
from openseer_core.queue.policy import Policy
from openseer_core.token_scores import likeliest, own_scores
from openseer_core.tokens import readable_logprobs, unpack_tokens
from openseer_driver.routed import RoutedFiles
from openseer_driver.run_folder import ResultsWriter
from openseer_driver.run_lines import ChunkLine, ResultLine, Timings
from openseer_driver.traces.batch_trace import RunTraces
from openseer_store.port import FIRST_CURSOR, DriverStore
from openseer_store.routed.folders import remove_all, remove_groups
from openseer_text.rendering import TextCodec
from openseer_text.stop_strings import visible_text

PIECE = 256
"""Groups read and submitted in one call."""
PAGE = 256
"""Limit of results read, written and acknowledged in one step."""
WAIT_SECONDS = 1.0
"""Limit of the wait for the next result in one call to the store, in seconds."""
GATHER_SECONDS = 0.1
"""Pause after a page with fewer than PAGE results, so that one disk flush covers many results, in seconds."""


class Driver:
    """Submits one batch and writes its results."""

    def __init__(
        self,
        store: DriverStore,
        groups: Iterable[GroupSpec],
        writer: ResultsWriter,
        codec: TextCodec,
        boot: str = "",
        fence: int = 0,
        *,
        policy: Policy | None = None,
        on_submitted: Callable[[int], None] = lambda _: None,
        routed: RoutedFiles | None = None,
        traces: RunTraces | None = None,
    ) -> None:
        """`groups`: iterated from the start by each submission. `policy`: computes the groups' priorities at the time
        of submission; None: their priorities are not changed. `boot`: id of this driver process; "": a new id.

        `fence`: the fence that the store returned to this boot before; 0: none. `on_submitted`: called with the number
        of groups submitted so far. `routed`: None if no routed experts are captured. `traces`: None without traces.
        """
        self._store = store
        self._groups = groups
        self._policy = policy
        self._writer = writer
        self._codec = codec
        self._boot = boot or new_boot()
        self._fence = fence
        self._on_submitted = on_submitted
        self._routed = routed
        self._traces = traces
        self._epoch = 0

    async def submit(self) -> None:
        """Takes over the job and queues all its groups; groups that an earlier driver queued stay unchanged.

        Raises DriverFencedError if another driver has taken over the job since this driver did.
        """
        while True:
            epoch = self._store.epoch
            self._fence = await self._store.acquire_driver(self._boot, self._fence)
            try:
                await self._submit_groups()
                await self._store.seal(BATCH_JOB_BATCH, self._fence)
                if self._traces is not None:
                    await self._traces.begin(self._store)
            except DriverFencedError:
                if self._store.epoch == epoch:
                    raise
                continue  # the store has restarted and lost the driver's fence
            self._epoch = epoch
            return

    async def _submit_groups(self) -> None:
        # All groups get the same time of queueing, so that ageing does not order the groups of one submission.
        groups, submitted, now = iter(self._groups), 0, await self._store.now()
        # In a thread, because the groups may be read from a disk.
        while piece := await asyncio.to_thread(lambda: list(islice(groups, PIECE))):
            await self._store.submit(self._stamped(piece, now), self._fence)
            submitted += len(piece)
            self._on_submitted(submitted)

    def _stamped(self, groups: list[GroupSpec], now: float) -> list[GroupSpec]:
        policy = self._policy
        return groups if policy is None else [queued_at(group, now, policy) for group in groups]

    async def collect(self) -> None:
        """Writes results until the batch is complete, then removes the remaining rows of routed experts.

        Raises OutputError, DriverFencedError, StoreError.
        """
        await self._collect()
        if self._traces is not None:
            await self._traces.end(self._store)
        if self._routed is not None:
            await asyncio.to_thread(remove_all, self._routed.rows)

    async def _collect(self) -> None:
        """Writes and acknowledges results until the batch is complete.

        A store that restarted may have lost groups, the seal, or the driver's fence: the driver then submits all groups
        again. Raises OutputError, DriverFencedError, StoreError.
        """
        cursor = FIRST_CURSOR
        while True:
            if self._store.epoch != self._epoch:
                await self.submit()
            # Read before the results: if the batch is complete now, the following pages contain all its results.
            complete = (await self._store.progress(BATCH_JOB_BATCH)).complete
            page = await self._store.results(BATCH_JOB_BATCH, cursor, PAGE, 0.0 if complete else WAIT_SECONDS)
            if page:
                await self._write_whole([entry for entry in page if isinstance(entry, Result)])
                cursor = page[-1].cursor
            # Called also after an empty page, because it fails if another driver has taken over.
            try:
                await self._store.acknowledge(BATCH_JOB_BATCH, cursor, self._fence)
            except DriverFencedError:
                if self._store.epoch == self._epoch:
                    raise
                continue  # the store has restarted and lost the driver's fence, and maybe groups
            await self._remove_rows(page)
            # A store that restarted after `progress` may have lost results of a batch that was complete.
            if complete and not page and self._store.epoch == self._epoch:
                return
            if len(page) < PAGE and not complete:
                await asyncio.sleep(GATHER_SECONDS)

    async def _remove_rows(self, page: Sequence[Entry]) -> None:
        """Removes the rows of groups whose results are on disk."""
        if self._routed is not None:
            ended = [entry.group for entry in page if isinstance(entry, GroupEnd)]
            await asyncio.to_thread(remove_groups, self._routed.rows, ended)

    async def _write_whole(self, page: Sequence[Result]) -> None:
        """Writes a page in a thread. Waits for its end also when cancelled, since the caller then closes the file."""
        writing = asyncio.ensure_future(asyncio.to_thread(self._write, page))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])
            raise

    def _write(self, page: Sequence[Result]) -> None:
        present = self._writer.present
        fresh = [
            result
            for result in page
            if (BATCH_JOB_BATCH, result.request.group.name, result.request.index) not in present
        ]
        self._writer.write([self._line(result) for result in fresh])
        self._writer.flush()
        if self._traces is not None:
            self._traces.note(page, fresh)

    def _line(self, result: Result) -> ResultLine:
        line = result_line(result, self._codec)
        if self._routed is None:
            return line
        return msgspec.structs.replace(line, routed_experts=self._routed.write(result))


def new_boot() -> str:
    """A unique id for one driver process."""
    return uuid.uuid4().hex


def result_line(result: Result, codec: TextCodec) -> ResultLine:
    """The line of results.jsonl for a result."""
    sampling = parse_sampling(result.sampling)
    context = json.loads(result.metadata)
    token_ids = unpack_tokens(result.tokens)
    scores = own_scores(result.tokens, result.logprobs)
    logprobs = readable_logprobs(scores) if _has_logprobs(sampling) else None
    return ResultLine(
        batch=result.request.group.batch,
        group=result.request.group.name,
        index=result.request.index,
        weights_version=result.version,
        status=result.status,
        finish_reason=result.reason.value,
        stop_reason=result.ended_by or None,
        prompt_token_ids=unpack_tokens(result.prompt),
        prompt_template_hash=context["template_hash"],
        token_ids=token_ids,
        logprobs=logprobs,
        logprobs_of=sampling.logprobs if _has_logprobs(sampling) else None,
        top_logprobs=likeliest(result.tokens, result.logprobs),
        text=visible_text(codec.read, token_ids, result.stop_reason, sampling.stop) if codec.read else None,
        metadata=context["metadata"],
        chunks=[
            ChunkLine(chunk.worker, chunk.fence, chunk.start, chunk.end, chunk.claimed_at, chunk.ended_at, chunk.event)
            for chunk in result.chunks
        ],
        workers=list(dict.fromkeys(chunk.worker.split("#", 1)[0] for chunk in result.chunks)),
        timings=_timings(result),
        cursor=result.cursor,
    )


def _timings(result: Result) -> Timings:
    started = result.chunks[0].claimed_at if result.chunks else None
    seconds = result.finished_at - started if started is not None else 0.0
    return Timings(result.enqueued_at, started, result.finished_at, seconds)


def _has_logprobs(sampling: Sampling) -> bool:
    return sampling.logprobs != "none"
