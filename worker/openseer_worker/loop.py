"""The worker: claim → generate → record, until it is told to drain.

Three tasks share one event loop. `_watch` looks at the engine every checkpoint interval and never waits for the store,
so the engine stays within its blocks even while the store is away. `_record` talks to the store: last tokens and
results first, then new work, then checkpoints and the heartbeat. `Sharing` brings an engine that drafts the news of
its groups.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import assert_never

from openseer_core.errors import EngineError, GpuSickError, StoreUnavailableError
from openseer_core.manifest.sampling_json import parse_sampling
from openseer_core.queue.messages import Claim, ClaimQuery, Finish, Reply, WriteOutcome
from openseer_core.queue.policy import policy_of
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import unpack_tokens
from openseer_core.worker.heartbeat import Heartbeat
from openseer_store.port import WorkerStore
from openseer_worker.engine import Engine, EngineRequest
from openseer_worker.hardware.telemetry import Figures, sick
from openseer_worker.hardware.usage import Usage
from openseer_worker.request_seeds import derive_seed
from openseer_worker.running import RunningRequest, RunningRequests
from openseer_worker.settings import WorkerSettings
from openseer_worker.sharing import Sharing
from openseer_worker.weights.served import ServedWeights

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 1.0
NEWS_SECONDS = 0.2
"""A change between idle and busy is told at once, but never sooner than this after the last heartbeat."""
HURRY_SECONDS = 0.1
"""So often are heartbeats while the fleet changes its weights; news of that is told as soon."""
IDLE_POLL_SECONDS = 0.1
"""How soon a worker that found nothing to claim asks again."""
STALL_SECONDS = 120.0
"""An engine that has work and makes no step for so long is given up; its leases are no longer renewed."""
MAX_STALE_REPLIES = 8
"""So often is a finish sent again because a sibling's news came first; then it goes without moving its siblings."""


class Worker:
    """One engine's share of a job."""

    def __init__(
        self, settings: WorkerSettings, store: WorkerStore, engine: Engine, telemetry: Callable[[], Figures] = dict
    ) -> None:
        spec = settings.job.spec
        rollout = spec.rollout
        chosen = policy_of(rollout)
        slots = min(engine.profile.slots, spec.workers.max_inflight or engine.profile.slots)
        self._settings = settings
        self._store = store
        self._engine = engine
        self._telemetry = telemetry
        self._held = RunningRequests(engine.profile, chosen, rollout, slots)
        self._sharing = Sharing(
            store,
            engine,
            self._held,
            seconds=rollout.checkpoint_seconds,
            earlier=spec.speculation.earlier_responses > 0,
        )
        self._rollout = rollout
        self._max_losses = spec.failure_policy.request_retries
        self._wake = asyncio.Event()
        self._weights = ServedWeights(engine, settings.job_name, self._wake.set)
        self._usage = Usage()
        self._draining = False
        self._failure: EngineError | None = None
        self._illness: str | None = None
        self._steps: tuple[float, float | int | str] = (0.0, -1)
        self._told_at = float("-inf")
        self._told: Heartbeat | None = None

    @property
    def told(self) -> Heartbeat | None:
        """What the last heartbeat said that the store has answered."""
        return self._told

    @property
    def is_ready(self) -> bool:
        """True from the first answer of the store until the worker drains."""
        return self._told is not None and not self._draining

    def drain(self) -> None:
        """Stops claiming, gives back what runs with its tokens kept; `run` then returns."""
        self._draining = True
        self._wake.set()

    async def run(self) -> None:
        """Works until drained.

        Raises EngineError when the engine broke, StoreUnavailableError when the store did, and GpuSickError after a
        drain for that reason.
        """
        loop = asyncio.get_running_loop()

        def wake() -> None:
            loop.call_soon_threadsafe(self._wake.set)

        self._engine.start(wake)
        try:
            async with asyncio.TaskGroup() as tasks:
                aside = [tasks.create_task(self._watch()), tasks.create_task(self._sharing.run())]
                await self._record()
                for task in aside:
                    task.cancel()
        except* (EngineError, StoreUnavailableError) as group:
            raise group.exceptions[0] from None
        finally:
            await self._weights.close()
            await self._engine.close()
        await self._store.deregister(self._settings.worker)
        if self._illness:
            raise GpuSickError(self._illness)
        if self._failure:
            raise self._failure

    # ---- the engine's side

    async def _watch(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(self._rollout.checkpoint_seconds)

    def _look(self) -> None:
        """Takes what the engine produced and decides who goes on."""
        self._engine.check()
        for progress in self._engine.collect():
            self._held.take(progress)
        for key in self._held.decide().leave:
            self._engine.abort(key)

    def _is_stalled(self, now: float) -> bool:
        steps = self._engine.metrics().get("steps", 0)
        if steps != self._steps[1] or not self._held.running():
            self._steps = (now, steps)
        return now - self._steps[0] > STALL_SECONDS

    # ---- the store's side

    async def _record(self) -> None:
        now = asyncio.get_running_loop().time
        extend_at = claim_at = now()
        while True:
            self._wake.clear()
            self._look()
            if now() >= self._beat_at():
                await self._beat(now())
            claims = self._mind_weights()
            await self._settle()
            if self._draining and not len(self._held):
                return
            if now() >= claim_at and claims:
                found = await self._claim()
                claim_at = now() if found else now() + IDLE_POLL_SECONDS
            if now() >= extend_at:
                extend_at = now() + self._rollout.checkpoint_seconds
                await self._checkpoint(now())
            await self._sleep(min(extend_at, self._beat_at(), max(claim_at, now() + self._pause())) - now())

    def _mind_weights(self) -> bool:
        """Does what comes next about the weights, and hands back what must not go on; True when work may be claimed.

        Nothing else changes orders or weights between this and the answer to a claim, so what is claimed fits them.
        """
        step = self._weights.look(len(self._held))
        if step.leaves and not self._draining:
            self._failure = EngineError(f"the previous weights cannot be loaded again: {self._weights.report.error}")
            log.error("draining, for %s", self._failure)
            self.drain()
        if self._draining or step.give_back:
            for response in self._held.running():
                self._engine.abort(response.key)
        return step.claims and not self._draining

    def _pause(self) -> float:
        """A worker with room looks again soon; a full one waits until something ends."""
        return IDLE_POLL_SECONDS if self._held.free_slots > 0 else self._rollout.checkpoint_seconds

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _settle(self) -> None:
        """Tells the store of every response that the engine is done with."""
        ended = self._held.ended()
        for response in [one for one in ended if one.lost]:
            self._held.drop(response.key)
        ended = [one for one in ended if not one.lost]
        back = [one for one in ended if one.finish is FinishReason.ABORTED]
        if back:
            replies = await self._store.give_back(self._settings.worker, [one.delta() for one in back])
            for response, reply in zip(back, replies, strict=True):
                self._is_settled(response, reply)  # after a gap it stays, and goes again with the missing tokens
        await self._complete([one for one in ended if one.finish is not FinishReason.ABORTED])

    async def _complete(self, responses: list[RunningRequest]) -> None:
        for attempt in range(MAX_STALE_REPLIES + 1):
            if not responses:
                return
            last = attempt == MAX_STALE_REPLIES
            finishes = [self._finish(one, rescore=not last) for one in responses]
            replies = await self._store.complete(self._settings.worker, finishes)
            responses = [one for one, reply in zip(responses, replies, strict=True) if not self._is_settled(one, reply)]

    def _finish(self, response: RunningRequest, *, rescore: bool) -> Finish:
        assert response.finish is not None
        if response.finish is FinishReason.INFRA_FAILED:  # the engine refused this one request
            return Finish(response.delta(), Status.INFRA_FAILED, response.finish, response.stop_reason)
        place = self._held.rescore_finish(response) if rescore else None
        return Finish(response.delta(), Status.OK, response.finish, response.stop_reason, place)

    def _is_settled(self, response: RunningRequest, reply: Reply) -> bool:
        if reply.view is not None:
            self._held.relearn(reply.view)
        match reply.outcome:
            case WriteOutcome.STALE:
                return False
            case WriteOutcome.GAP if reply.have >= response.claim.generated:
                response.written = reply.have
                return False
            case WriteOutcome.OK | WriteOutcome.LOST | WriteOutcome.GAP:
                self._held.drop(response.key)
                return True
            case _ as never:
                assert_never(never)

    async def _claim(self) -> bool:
        """Asks for as much as there is room for. False when there was room and nothing to be had."""
        held, profile = self._held, self._engine.profile
        if held.free_slots <= 0 or held.free_blocks <= 0:
            return True
        ask = ClaimQuery(
            version=self._weights.version,
            lanes=self._settings.lanes,
            slots=held.free_slots,
            blocks=held.free_blocks,
            block_tokens=profile.block_tokens,
            quantum=self._rollout.quantum_tokens,
            context_tokens=profile.context_tokens,
            margin=held.margin,
            slack=held.slack,
            lease_seconds=self._rollout.lease_seconds,
            max_losses=self._max_losses,
        )
        claims = await self._store.claim(self._settings.worker, ask)
        for claim in claims:
            self._engine.add(self._work(held.admit(claim).key, claim))
        return bool(claims)

    def _work(self, key: str, claim: Claim) -> EngineRequest:
        sampling = parse_sampling(claim.sampling)
        group, index = str(claim.request.group), claim.request.index
        drawn = sampling.seed if claim.seed is None else claim.seed
        seed = None if drawn is None else derive_seed(drawn, group, index, claim.generated)
        return EngineRequest(
            key,
            group,
            index,
            unpack_tokens(claim.prompt),
            unpack_tokens(claim.tokens),
            claim.max_tokens,
            sampling,
            seed,
            claim.true_length,
        )

    async def _checkpoint(self, now: float) -> None:
        """One call for all that runs: new tokens, leases renewed, news of groups; brings the pulse of the fleet."""
        if self._is_stalled(now):
            raise EngineError(f"the engine made no step for {STALL_SECONDS:.0f} s; its work goes to other workers")
        running = [one for one in self._held.running() if not one.lost]
        deltas = [one.delta() for one in running]
        reply = await self._store.extend(
            self._settings.worker,
            deltas,
            self._held.rescore_running(running),
            lease_seconds=self._rollout.lease_seconds,
            version=self._weights.version,
            lanes=self._settings.lanes,
        )
        self._held.pulse = reply.fleet_load
        for view in reply.views:
            self._held.relearn(view)
        for response, answer in zip(running, reply.replies, strict=True):
            self._note(response, answer)

    def _note(self, response: RunningRequest, answer: Reply) -> None:
        resumable = answer.have >= response.claim.generated
        if answer.outcome is WriteOutcome.OK or (answer.outcome is WriteOutcome.GAP and resumable):
            response.written = answer.have
            return
        log.warning("lease lost: %s", response.key)
        response.lost = True
        self._engine.abort(response.key)

    # ---- what it says of itself

    @property
    def _state(self) -> str:
        if self._illness:
            return "sick"
        if self._draining:
            return "draining"
        return "busy" if len(self._held) else "idle"

    def _beat_at(self) -> float:
        """When the next heartbeat is due: at once when a drain begins, soon after another change, else regularly."""
        told = self._told
        if told is not None and told.state != self._state:
            return self._told_at + (0.0 if self._draining else NEWS_SECONDS)
        hurries = self._weights.is_urgent(len(self._held)) or (
            told is not None and told.weights != self._weights.report
        )
        return self._told_at + (HURRY_SECONDS if hurries else HEARTBEAT_SECONDS)

    async def _beat(self, now: float) -> None:
        figures = self._figures()
        self._illness = sick(figures)
        if self._illness and not self._draining:
            log.error("draining, for the GPU is sick: %s", self._illness)
            self.drain()
        if self._illness:
            figures["sick"] = self._illness
        self._usage.note(now, held=len(self._held), asleep=self._weights.asleep)
        spent = (round(self._usage.idle, 3), round(self._usage.busy, 3))
        info = Heartbeat(self._state, figures, self._weights.report, *spent)
        self._told_at = now
        directive = await self._store.heartbeat(self._settings.worker, info)
        self._told = info
        if directive.revision > self._weights.revision:
            self._weights.follow(await self._store.fleet_spec())
        if directive.drain and not self._draining:
            log.info("asked to drain")
            self.drain()

    def _figures(self) -> Figures:
        held = self._held
        return {
            "inflight": len(held),
            "slots": held.room.slots,
            "kv_reserved": round(held.reserved_blocks / max(1, held.room.blocks), 4),
            "held_tokens": held.tokens,
            "device": self._engine.profile.device,
            **self._settings.place,
            **self._engine.metrics(),
            **self._sharing.figures(),
            **self._telemetry(),
        }
