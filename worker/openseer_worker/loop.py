"""The worker: claim → generate → record, until it drains. The package's docstring explains the loop with an example.

Its tasks share one event loop. `_watch` reads the engine every `checkpointSeconds` and never awaits the store, so the
engine stays within its blocks while the store is unreachable. `_record` makes all calls that take, renew or end a
lease, except those after a failure. `Sharing` passes siblings' tokens to the engine; `PoolKeeper` removes KV blocks.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import assert_never

from openseer_core.errors import EngineError, GpuSickError, OpenseerError, StoreError
from openseer_core.queue.messages import Claim, ClaimQuery, Reply, WriteOutcome
from openseer_core.queue.policy import policy_of
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_store.port import WorkerStore
from openseer_worker.arrivals import Arrivals
from openseer_worker.engine import Engine
from openseer_worker.engine_requests import engine_request, misfit_here, refusal
from openseer_worker.hardware.sickness import sick
from openseer_worker.hardware.usage import Doing, TimeSpent, Usage
from openseer_worker.kv_pool.keeper import PoolKeeper
from openseer_worker.pace import CheckpointPace, Standstill
from openseer_worker.routing.rows_first import rows_first
from openseer_worker.running import RunningRequest, RunningRequests
from openseer_worker.settings import WorkerSettings
from openseer_worker.sharing import Sharing
from openseer_worker.weights.of_job import served_weights
from openseer_worker.weights.passing import Passing

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
NEWS_SECONDS = 0.2
"""Shortest interval between two heartbeats when the worker has become idle or busy, in seconds."""
URGENT_SECONDS = 0.1
"""Interval of heartbeats while the fleet changes its weights, or when the weights report has changed, in seconds."""
GIVE_BACK_SECONDS = 5.0
"""Timeout for giving back the requests of a failed engine, in seconds; then the process ends."""
MAX_STALE_REPLIES = 8
"""Limit of retries of a finish with its group's new priority (compare-and-set); then it is sent without a priority."""


class Worker:
    """Runs one engine for a job."""

    def __init__(
        self,
        settings: WorkerSettings,
        store: WorkerStore,
        engine: Engine,
        telemetry: Callable[[], WorkerMetrics] = WorkerMetrics,
        passing: Passing | None = None,
    ) -> None:
        spec = settings.job.spec
        self._rollout = rollout = spec.rollout
        slots = min(engine.profile.slots, spec.workers.max_inflight or engine.profile.slots)
        self._settings = settings
        self._routes, store = rows_first(settings, engine.profile.routing, store)
        self._store = store
        self._engine = engine
        self._telemetry = telemetry
        self._running = RunningRequests(engine.profile, policy_of(rollout), rollout, slots)
        self._pace = CheckpointPace(rollout.checkpoint_seconds, rollout.lease_seconds)
        earlier, most_bytes = spec.speculation.earlier_responses > 0, spec.kv_pool.max_gigabytes * 2**30
        self._sharing = Sharing(store, engine, self._running, self._pace, earlier=earlier)
        self._pool = PoolKeeper(settings.pool, most_bytes, lambda: store.epoch, lambda: self._weights.versions)
        self._wake = asyncio.Event()
        self._arrivals = Arrivals(store, settings.lanes, self._wake.set)
        self._weights = served_weights(settings, engine, self._wake.set, passing)
        self._usage, self._time, self._standstill = Usage(), TimeSpent(), Standstill()
        self._claims = 0
        self._draining = self._claiming = False
        self._failure: EngineError | None = None
        self._illness: str | None = None
        self._heartbeat_at = float("-inf")
        self._heartbeat: Heartbeat | None = None

    @property
    def heartbeat(self) -> Heartbeat | None:
        """The last heartbeat that the store acknowledged; None before the first one."""
        return self._heartbeat

    @property
    def is_ready(self) -> bool:
        """Whether the store has acknowledged a heartbeat and the worker does not drain."""
        return self._heartbeat is not None and not self._draining

    def drain(self) -> None:
        """Stops claiming and gives back the running requests, with their tokens; `run` then returns."""
        self._draining = True
        self._wake.set()

    async def run(self) -> None:
        """Runs until drained.

        Raises EngineError when the engine fails, StoreError when the store fails, and GpuSickError after a drain
        because of a sick GPU, or when the engine fails on a sick GPU.
        """
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        self._engine.start(wake)
        try:
            async with asyncio.TaskGroup() as tasks:
                aside = [tasks.create_task(one) for one in (self._watch(), self._sharing.run(), self._pool.run())]
                await self._record()
                for task in aside:
                    task.cancel()
        except* OpenseerError as group:
            cause = self._cause(group.exceptions[0])
            if isinstance(cause, EngineError | GpuSickError):
                await self._hand_back(cause)
            raise cause from None
        finally:
            await self._arrivals.close()
            await self._weights.close()
            await self._engine.close()
        await self._store.deregister(self._settings.worker)
        if self._illness:
            raise GpuSickError(self._illness)
        if self._failure:
            raise self._failure

    def _cause(self, error: BaseException) -> BaseException:
        """The error to raise. Reads the GPU again: an engine usually fails before a heartbeat reads the fault."""
        illness = self._illness or sick(self._telemetry())
        return GpuSickError(f"{illness}; {error}") if illness and isinstance(error, EngineError) else error

    async def _hand_back(self, cause: BaseException) -> None:
        """Gives back the requests of a failed engine. This adds a loss to each, unless the GPU is sick."""
        with suppress(StoreError, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_SECONDS):
                await self._settle()
                deltas = [response.delta() for response in self._running.running() if not response.lost]
                await self._store.give_back(self._settings.worker, deltas, lost=isinstance(cause, EngineError))
                await self._store.deregister(self._settings.worker)

    # ---- the engine's side

    async def _watch(self) -> None:
        while True:
            self._read_engine()
            self._note_time(calls=self._time.calls)
            await asyncio.sleep(self._rollout.checkpoint_seconds)

    def _read_engine(self) -> None:
        """Collects the engine's outputs and decides which requests continue."""
        self._engine.check()
        for output in self._engine.collect():
            self._routes.take(output)
            if self._running.take(output, self._weights.version):
                self._arrivals.note_room()
        for key in (*self._running.newly_failed(), *self._running.decide().leave):
            self._engine.abort(key)

    # ---- the store's side

    async def _record(self) -> None:
        now = asyncio.get_running_loop().time
        extend_at = now()
        while True:
            self._wake.clear()
            self._read_engine()
            if now() >= self._next_heartbeat_at():
                await self._send_heartbeat(now())
            claims = self._advance_weights()
            await self._settle()
            if self._draining and not len(self._running):
                return
            is_late = now() >= extend_at + self._rollout.checkpoint_seconds
            if is_late:  # after a stall a claim would take back this worker's own expired leases
                await self._checkpoint(now())
            while claims and self._running.has_room and self._arrivals.is_due(self._weights.versions):
                await self._claim()
            if now() >= extend_at:
                extend_at = now() + self._pace.seconds
                await self._checkpoint(now())
            await self._sleep(min(extend_at, self._next_heartbeat_at()) - now())

    def _advance_weights(self) -> bool:
        """Performs the worker's next step of the weights transaction, and aborts requests that may not continue.

        Returns whether claims are allowed. Neither fleet spec nor weights change from here to the reply to a claim, so
        the claimed requests match both.
        """
        step = self._weights.advance(len(self._running), self._running.versions)
        if step.leaves and not self._draining:
            self._failure = EngineError(f"the previous weights cannot be loaded again: {self._weights.report.error}")
            log.error("draining, for %s", self._failure)
            self.drain()
        for response in self._running.running():
            if self._draining or step.give_back or response.claim.version in step.drop:
                self._engine.abort(response.key)
        self._claiming = step.claims and not self._draining
        return self._claiming

    @property
    def _is_free(self) -> bool:
        return self._claiming and self._running.takes_any and self._arrivals.is_waiting

    async def _sleep(self, seconds: float) -> None:
        self._note_time(calls=False)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        self._note_time(calls=True)

    def _note_time(self, *, calls: bool) -> None:
        """Records the worker's activity from now on. `calls`: the store's side awaits a reply, or is about to call."""
        running = len(self._running.running())
        wants = len(self._running) > running or not self._arrivals.is_waiting
        doing = Doing(running, self._running.room.slots, calls, wants, not (self._claiming or self._draining))
        self._time.note(asyncio.get_running_loop().time(), doing)

    async def _settle(self) -> None:
        """Reports to the store every response that the engine has ended."""
        ended = self._running.ended()
        for response in [response for response in ended if response.lost]:
            self._drop(response)
        ended = [response for response in ended if not response.lost]
        moved = [response for response in ended if self._running.is_for_others(response)]
        if moved:
            replies = await self._store.give_back(self._settings.worker, [response.delta() for response in moved])
            for response, reply in zip(moved, replies, strict=True):
                self._is_settled(response, reply)  # after GAP it stays listed: the next pass sends the missing tokens
        await self._complete([response for response in ended if not self._running.is_for_others(response)])

    async def _complete(self, responses: list[RunningRequest]) -> None:
        for attempt in range(MAX_STALE_REPLIES + 1):
            if not responses:
                return
            last = attempt == MAX_STALE_REPLIES
            finishes = [self._running.finish(response, rescore=not last) for response in responses]
            replies = await self._store.complete(self._settings.worker, finishes)
            pairs = zip(responses, replies, strict=True)
            responses = [response for response, reply in pairs if not self._is_settled(response, reply)]

    def _is_settled(self, response: RunningRequest, reply: Reply) -> bool:
        self._running.note_reply(response, reply)
        match reply.outcome:
            case WriteOutcome.STALE:
                return False
            case WriteOutcome.GAP if reply.have >= response.claim.generated:
                response.written = reply.have
                return False
            case WriteOutcome.OK | WriteOutcome.LOST | WriteOutcome.GAP:
                self._drop(response)
                return True
            case _ as never:
                assert_never(never)

    def _drop(self, response: RunningRequest) -> None:
        group = response.claim.request.group
        if self._running.view(group).is_over:
            self._pool.end(str(group), response.claim.version or self._weights.version)
        self._running.drop(response.key)
        self._arrivals.note_room()

    async def _claim(self) -> None:
        """Claims as many requests as the worker has room for."""
        running, profile = self._running, self._engine.profile
        self._claims += 1
        query = ClaimQuery(
            version=self._weights.version,
            lanes=self._settings.lanes,
            slots=running.free_slots,
            blocks=running.free_blocks,
            layout=profile.layout,
            quantum=self._rollout.quantum_tokens,
            context_tokens=profile.request_tokens,
            margin=running.margin,
            slack=running.claim_slack,
            lease_seconds=self._rollout.lease_seconds,
            max_losses=self._settings.job.spec.failure_policy.request_retries,
            number=self._claims,
            adapters=self._weights.adapters,
            pace=running.pace.value if self._arrivals.yields_to_faster else 0.0,
        )
        claims = await self._store.claim(self._settings.worker, query)
        refused = self._admit(claims)
        if refused:  # a larger worker may have joined since the last heartbeat
            assert self._heartbeat is not None
            running.largest = (await self._store.heartbeat(self._settings.worker, self._heartbeat)).largest
            refused = self._admit([claim for claim, _ in refused])
            await self._store.complete(self._settings.worker, [refusal(*one) for one in refused])
        self._arrivals.note_claim(query.versions, found=bool(claims))

    def _admit(self, claims: Iterable[Claim]) -> list[tuple[Claim, str]]:
        """Adds leased requests to the engine. Returns the requests that it cannot run, each with the reason."""
        refused: list[tuple[Claim, str]] = []
        for claim in claims:
            version = self._weights.version
            place = self._pool.place(str(claim.request.group), claim.version or version)
            request = engine_request(claim, version, place, self._routes.rows_from(claim.key))
            if reason := misfit_here(request, self._engine.profile.limits, self._running.largest):
                refused.append((claim, reason))
                continue
            self._running.admit(claim)
            self._engine.add(request)
        return refused

    async def _checkpoint(self, now: float) -> None:
        """One call for all running requests: appends tokens, renews leases, rescores groups, reads the fleet's load.
        Its duration influences the next interval (`CheckpointPace`)."""
        self._standstill.check(self._engine.metrics().get("steps", 0), now, has_work=bool(self._running.running()))
        running = [response for response in self._running.running() if not response.lost]
        self._running.pace.note({response.key: response.generated for response in running if response.tokens}, now)
        if not running:
            return
        deltas = [response.delta() for response in running]
        reply = await self._store.extend(
            self._settings.worker,
            deltas,
            self._running.rescore_running(running),
            lease_seconds=self._rollout.lease_seconds,
            version=self._weights.version,
            lanes=self._settings.lanes,
            adapters=self._weights.adapters,
        )
        self._pace.note(asyncio.get_running_loop().time() - now, reply.fleet_load.inflight)
        self._running.note_load(reply.fleet_load)
        for view in reply.views:
            self._running.relearn(view)
        for response, delta_reply in zip(running, reply.replies, strict=True):
            self._note_written(response, delta_reply)

    def _note_written(self, response: RunningRequest, reply: Reply) -> None:
        resumable = reply.have >= response.claim.generated
        if reply.outcome is WriteOutcome.OK or (reply.outcome is WriteOutcome.GAP and resumable):
            response.written = reply.have
            return
        request = response.claim.request
        log.warning("lease lost: %s", response.key, extra={"request": request, "batch": request.group.batch})
        response.lost = True
        self._engine.abort(response.key)

    # ---- heartbeats

    @property
    def _state(self) -> WorkerState:
        if self._illness:
            return WorkerState.SICK
        if self._draining:
            return WorkerState.DRAINING
        return WorkerState.BUSY if len(self._running) else WorkerState.IDLE

    def _next_heartbeat_at(self) -> float:
        """Time of the next heartbeat (the loop's clock): at once if a drain has begun; else NEWS_SECONDS after the last
        one if the worker has become idle or busy, URGENT_SECONDS while weights change, otherwise HEARTBEAT_SECONDS."""
        if (last := self._heartbeat) is not None and last.state != self._state:
            return self._heartbeat_at + (0.0 if self._draining else NEWS_SECONDS)
        urgent = self._weights.is_urgent(len(self._running)) or (
            last is not None and last.weights != self._weights.report
        )
        return self._heartbeat_at + (URGENT_SECONDS if urgent else HEARTBEAT_SECONDS)

    async def _send_heartbeat(self, now: float) -> None:
        metrics = self._metrics()
        self._illness = self._illness or sick(metrics)  # not reset: a failing GPU may report good readings again
        if self._illness and not self._draining:
            log.error("draining, for the GPU is sick: %s", self._illness)
            self.drain()
        if self._illness:
            metrics["sick"] = self._illness
        usage = self._usage.note(now, running=len(self._running), asleep=self._weights.asleep)
        heartbeat = Heartbeat(self._state, metrics, self._weights.report, *usage)
        self._heartbeat_at = now
        reply = await self._store.heartbeat(self._settings.worker, heartbeat)
        self._heartbeat = heartbeat
        self._running.largest = reply.largest
        if reply.revision != self._weights.revision:
            self._weights.follow(await self._store.fleet_spec())
        if reply.drain and not self._draining:
            log.info("asked to drain")
            self.drain()

    def _metrics(self) -> WorkerMetrics:
        return WorkerMetrics(
            {
                **self._running.occupancy(),
                "free_pace": round(self._running.pace.value, 3) if self._is_free else 0.0,
                "checkpoint_seconds": round(self._pace.seconds, 3),
                **self._engine.profile.metrics,
                **self._settings.place,
                **self._engine.metrics(),
                **self._sharing.metrics(),
                **self._time.metrics(),
                **self._routes.metrics(),
                **self._telemetry(),
            }
        )
