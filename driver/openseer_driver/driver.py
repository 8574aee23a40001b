"""The driver: feeds a batch job's groups to the store and writes its results, each once and only once.

A result is acknowledged only after it is on disk, and it is unique by (batch, group, index): whatever is read twice,
after a crash of anything, is written once. One driver at a time: the store's fence stops an older one.
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
"""Groups read from where they lie and submitted at once."""
PAGE = 256
"""Results read, written and acknowledged at once."""
WAIT_SECONDS = 1.0
GATHER_SECONDS = 0.1
"""Pause after a short page, so that a disk flush serves many results."""


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
        """`groups`: read anew by each submission. `policy`: says where they stand, by when that began; None: as they
        were made. `boot`: id of this life of the driver; unset: a new one.

        `fence`: what it was given when it took over. `on_submitted`: told how many groups the store has by now.
        `routed`: None where no routed experts are captured. `traces`: None without traces.
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
        """Takes over the job and queues all its groups; those an earlier driver queued stay as they are.

        Raises DriverFencedError where this driver had the job before and another one has it since.
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
                continue  # the store has lost who its driver is
            self._epoch = epoch
            return

    async def _submit_groups(self) -> None:
        # All have one time, so that ageing does not order what comes at once.
        groups, submitted, now = iter(self._groups), 0, await self._store.now()
        # In a thread: they may lie on a disk.
        while piece := await asyncio.to_thread(lambda: list(islice(groups, PIECE))):
            await self._store.submit(self._stamped(piece, now), self._fence)
            submitted += len(piece)
            self._on_submitted(submitted)

    def _stamped(self, groups: list[GroupSpec], now: float) -> list[GroupSpec]:
        policy = self._policy
        return groups if policy is None else [queued_at(group, now, policy) for group in groups]

    async def collect(self) -> None:
        """Writes results until the batch is complete, then removes what lies beside them. Raises OutputError,
        DriverFencedError, StoreError."""
        await self._collect()
        if self._traces is not None:
            await self._traces.end(self._store)
        if self._routed is not None:
            await asyncio.to_thread(remove_all, self._routed.rows)

    async def _collect(self) -> None:
        """Raises OutputError, DriverFencedError, StoreError.

        A store that restarted may have lost groups, the seal, or who its driver is: all of it is told again.
        """
        cursor = FIRST_CURSOR
        while True:
            if self._store.epoch != self._epoch:
                await self.submit()
            # Read before the results: what is complete now has all its results in the next pages.
            complete = (await self._store.progress(BATCH_JOB_BATCH)).complete
            page = await self._store.results(BATCH_JOB_BATCH, cursor, PAGE, 0.0 if complete else WAIT_SECONDS)
            if page:
                await self._write_whole([entry for entry in page if isinstance(entry, Result)])
                cursor = page[-1].cursor
            # Also after an empty page: that is how a driver learns that another one has taken over.
            try:
                await self._store.acknowledge(BATCH_JOB_BATCH, cursor, self._fence)
            except DriverFencedError:
                if self._store.epoch == self._epoch:
                    raise
                continue  # the store has lost who its driver is, and maybe more
            await self._remove_rows(page)
            # A store that restarted between the two questions has forgotten that the batch was complete.
            if complete and not page and self._store.epoch == self._epoch:
                return
            if len(page) < PAGE and not complete:
                await asyncio.sleep(GATHER_SECONDS)

    async def _remove_rows(self, page: Sequence[Entry]) -> None:
        """Of groups whose results are safe."""
        if self._routed is not None:
            ended = [entry.group for entry in page if isinstance(entry, GroupEnd)]
            await asyncio.to_thread(remove_groups, self._routed.rows, ended)

    async def _write_whole(self, page: Sequence[Result]) -> None:
        """Writes in a thread, which has to end before the file is closed, also when the driver is cancelled."""
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
            self._traces.note(fresh)

    def _line(self, result: Result) -> ResultLine:
        line = result_line(result, self._codec)
        if self._routed is None:
            return line
        return msgspec.structs.replace(line, routed_experts=self._routed.write(result))


def new_boot() -> str:
    """A name for one life of a driver, never given twice."""
    return uuid.uuid4().hex


def result_line(result: Result, codec: TextCodec) -> ResultLine:
    """A result as a line of results.jsonl."""
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
