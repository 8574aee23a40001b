"""Simulates divided rollout with the product's own code: its queue, policies, quanta and KV blocks, on a virtual clock.

All decisions are imported code: core's reference queue, `policy`, `placement`, and the worker's RunningRequests
with `quantum`. This module replaces the rest of the worker loop (worker/openseer_worker/loop.py): it reads the
engine, calls the decision, reports ends, and claims. In the queue one item stands for a KV block instead of a token,
because half a million requests of a hundred thousand tokens would not fit in memory.
"""

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence

from openseer_core.ids import GroupId, WorkerId, worker_name
from openseer_core.manifest.fleet import RolloutSpec
from openseer_core.model.job_queue import JobQueue
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.group import SHARED_LANE, GroupSpec
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import Claim, ClaimQuery, Finish, WriteOutcome
from openseer_core.queue.placement import Lanes, Placement
from openseer_core.queue.policy import Policy, policy_of
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import ITEM_BYTES, count_items
from openseer_sim.drafts import tokens_of_step
from openseer_sim.engine import ModelledEngine
from openseer_sim.fleet import ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.work import GroupLengths, tokens_of
from openseer_worker.arrivals import CLAIMS_THAT_YIELD, POLL_SECONDS
from openseer_worker.engine import EngineOutput, EngineProfile
from openseer_worker.running import RunningRequests

VERSION = "initial"
LEASE_SECONDS = 1e9
"""Duration of a lease, so long that none expires."""
CALLED = 2
"""Limit of idle workers that a returned request wakes, as CALLS in core."""


class DividedRollout:
    """One rollout; `run` simulates it to its end. `cap`: limit of a response, in tokens. `policy`: replaces the policy
    that `rollout` names.

    A study of other rules than the product's sets `queue_type` and `worker_type`.
    """

    queue_type: Callable[[], JobQueue] = JobQueue
    worker_type: type["SimulatedWorker"]

    def __init__(
        self,
        fleet: ModelledFleet,
        groups: Sequence[GroupLengths],
        cap: int,
        rollout: RolloutSpec,
        policy: Policy | None = None,
    ) -> None:
        self.fleet = fleet
        # Quanta are counted in blocks here, as lengths are.
        quantum = max(1, rollout.quantum_tokens // fleet.block)
        self.rollout = rollout.model_copy(update={"quantum_tokens": quantum})
        self.longest = self.items(cap) + max((self.items(group.prompt) for group in groups), default=0)
        """Limit of a request's prompt and response, in blocks."""
        self.now = 0.0
        self.queue = self.queue_type()
        self.outcome = Outcome([], [], tokens_of(groups))
        self.idle: deque[int] = deque()
        self.bare: set[str] = set()
        """Requests of lost instances: their contexts are computed again, even if contexts move."""
        self._due: list[tuple[float, int, int]] = []
        self._order = 0
        self.policy = policy or policy_of(rollout)
        placement = Placement(self.policy, Lanes(self.policy.name, fleet.instances))
        record, _ = self.queue.open_batch(OpenBatch(VERSION, "{}"), 0.0)
        self.batch = record.number
        for ordinal, group in enumerate(groups):
            self.queue.submit(self._spec(placement, ordinal, group, cap))
        self.queue.seal(self.batch)
        self.workers = [self.worker_type(self, number) for number in range(fleet.instances)]

    def items(self, tokens: float) -> int:
        """Number of blocks for `tokens` tokens."""
        return max(1, math.ceil(tokens / self.fleet.block))

    def run(self) -> Outcome:
        """Simulates up to the end of the last response."""
        for worker in self.workers:
            worker.count_in()
        for worker in self.workers:
            self.wake(worker.number, 0.0)
        losses = deque(sorted(self.fleet.losses, key=lambda loss: loss.at))
        while self._due:
            while losses and losses[0].at <= self._due[0][0]:
                loss = losses.popleft()
                self.now = loss.at
                self.workers[loss.number].lose(loss.at + loss.boot_seconds)
            self.now, _, number = heapq.heappop(self._due)
            worker = self.workers[number]
            if worker.due == self.now:
                worker.look()
        self.outcome.busy = [worker.engine.busy for worker in self.workers]
        return self.outcome

    def wake(self, number: int, at: float) -> None:
        """Schedules a worker's next `look` at time `at`, and cancels the look that was scheduled before."""
        self.workers[number].due = at
        self._order += 1
        heapq.heappush(self._due, (at, self._order, number))

    def call(self) -> None:
        """Wakes up to CALLED idle workers, because a request waits again."""
        for _ in range(min(CALLED, len(self.idle))):
            self.wake(self.idle.popleft(), self.now)

    def _spec(self, placement: Placement, ordinal: int, group: GroupLengths, cap: int) -> GroupSpec:
        return placement.group(
            GroupId(self.batch, f"g{ordinal}"),
            VERSION,
            ordinal,
            bytes(ITEM_BYTES * self.items(group.prompt)),
            self.items(cap),
            len(group.lengths),
            0.0,
            sampling="{}",
            metadata="{}",
            lengths=tuple(self.items(length) for length in group.lengths),
        )


class SimulatedWorker:
    """One instance and its worker loop."""

    def __init__(self, rollout: DividedRollout, number: int) -> None:
        fleet = rollout.fleet
        self.number = number
        self.id = WorkerId(worker_name(number), "sim")
        self.due = -1.0
        self.engine = ModelledEngine(fleet.step)
        self.profile = EngineProfile(
            blocks=fleet.kv_tokens // fleet.block,
            layout=whole(1),
            slots=fleet.slots,
            context_tokens=min(rollout.longest, fleet.kv_tokens // fleet.block),
            device="none",
            engine="modelled",
            contexts_move=fleet.move_seconds is not None,
        )
        self._rollout = rollout
        self._lanes = (str(number), SHARED_LANE)
        self._running = RunningRequests(self.profile, rollout.policy, rollout.rollout, fleet.slots)
        self._refused = -1, 0
        self._in_vain = 0
        self._margin = max(1, round(self._running.margin / fleet.block))
        self._running.margin = self._margin

    def look(self) -> None:
        """One iteration of the worker loop: reads the engine, decides, reports ends, claims, plans the next look."""
        now, running = self._rollout.now, self._running
        self.engine.settle(now)
        self._read()
        running.pace.value = self.engine.pace or running.pace.value
        self._tell_load()
        for key in sorted(running.decide().leave):
            self._abort(key)
        self._settle()
        while running.free_slots > 0 and self._may_fit(running.free_blocks) and self._claim():
            pass
        self.count_in(running.pace.value if running.takes_any else 0.0)
        if self._rollout.fleet.drafts is not None:
            self._draft()
        self._plan()

    def count_in(self, free_pace: float = 0.0) -> None:
        """Registers the worker as claiming; its heartbeats never expire."""
        claimers, limit = self._rollout.queue.claimers, self.profile.request_tokens
        claimers.note_heartbeat(self.id.name, limit, math.inf, free_pace)

    def lose(self, until: float) -> None:
        """Loses the instance: its requests return to the queue without their contexts. It starts again at `until`."""
        self.engine.settle(self._rollout.now)
        self._read()
        for response in self._running.running():
            self._rollout.bare.add(str(response.claim.request))
            self._abort(response.key)
        if self.number in self._rollout.idle:
            self._rollout.idle.remove(self.number)
        self._rollout.queue.claimers.count_out(self.id.name)
        self._rollout.wake(self.number, until)
        self._settle()

    def _abort(self, key: str) -> None:
        self.engine.remove(key)
        self._running.take(EngineOutput(key, finish=FinishReason.ABORTED), VERSION)

    def _read(self) -> None:
        running, block = self._running, self._rollout.fleet.block
        for response in running.running():
            key, claim = response.key, response.claim
            over = self.engine.is_over(key)
            grown = claim.true_length - claim.generated if over else int(self.engine.gained(key) / block)
            new = grown - (response.generated - claim.generated)
            if new or over:
                finish = FinishReason.LENGTH if over else None
                running.take(EngineOutput(key, bytes(ITEM_BYTES * new), b"", finish), VERSION)
            if over:
                self.engine.remove(key)
        running.margin = self._margin  # `take` enlarges it, but here a look happens when a quantum ends

    def _tell_load(self) -> None:
        rescores = self._running.rescore_running(self._running.running())
        reply = self._rollout.queue.extend(
            self.id, [], rescores, self._rollout.now, lease_seconds=LEASE_SECONDS, version=VERSION, lanes=self._lanes
        )
        for view in reply.views:
            self._running.relearn(view)
        self._running.note_load(reply.fleet_load)

    def _settle(self) -> None:
        running, queue, outcome = self._running, self._rollout.queue, self._rollout.outcome
        for response in running.ended():
            if running.is_for_others(response):
                queue.give_back([response.delta()], self._rollout.now)
                outcome.moves += 1
                running.drop(response.key)
                self._rollout.call()
                continue
            while True:
                rescore = running.rescore_finish(response)
                finish = Finish(response.delta(), Status.OK, FinishReason.LENGTH, "", rescore)
                [reply] = queue.complete([finish], self._rollout.now)
                running.note_reply(response, reply)
                if reply.outcome is not WriteOutcome.STALE:
                    break
            outcome.ends.append(self._rollout.now)
            running.drop(response.key)

    def _may_fit(self, free: int) -> bool:
        """False if a claim with as many free blocks found no request that fits, and no request has returned since."""
        if free <= 0:
            return False
        seen, blocks = self._refused
        return len(self._running) == 0 or seen != self._rollout.outcome.moves or free > blocks

    def _claim(self) -> bool:
        running = self._running
        query = ClaimQuery(
            version=VERSION,
            lanes=self._lanes,
            slots=running.free_slots,
            blocks=running.free_blocks,
            layout=self.profile.layout,
            quantum=self._rollout.rollout.quantum_tokens,
            context_tokens=self.profile.request_tokens,
            margin=running.margin,
            slack=running.claim_slack,
            lease_seconds=LEASE_SECONDS,
            pace=running.pace.value if self._in_vain < CLAIMS_THAT_YIELD else 0.0,
        )
        claims = self._rollout.queue.claim(self.id, query, self._rollout.now)
        if not claims:
            self._refused = self._rollout.outcome.moves, query.blocks
        self._in_vain = 0 if claims or self._in_vain >= CLAIMS_THAT_YIELD else self._in_vain + 1
        for claim in claims:
            self._rollout.outcome.claims.append((str(claim.request), self.number))
            running.admit(claim)
            self._begin(claim)
        return bool(claims)

    def _begin(self, claim: Claim) -> None:
        fleet, bare, request = self._rollout.fleet, self._rollout.bare, str(claim.request)
        prompt = fleet.block * count_items(claim.prompt)
        context = prompt + fleet.block * claim.generated
        holds = context * fleet.step.per_prefill
        if fleet.move_seconds is not None and claim.generated and request not in bare:
            holds = context * fleet.move_seconds
        else:
            self._rollout.outcome.computed += context
            self._rollout.outcome.computed_again += context - prompt
        bare.discard(request)
        self.engine.add(claim.key, context, fleet.block * (claim.true_length - claim.generated), holds=holds)

    def _draft(self) -> None:
        """Sets the tokens per step of each response. All drafts have the same length, the best for all responses
        together."""
        drafts, running = self._rollout.fleet.drafts, self._running.running()
        if drafts is None or not running:
            return
        odds = [drafts.probability(self._running.view(response.claim.request.group).finished) for response in running]
        mean = sum(odds) / len(odds)
        length = drafts.length(self._rollout.fleet.step, len(running), self.engine.context, mean)
        for response, probability in zip(running, odds, strict=True):
            self.engine.set_pace(response.key, tokens_of_step(probability, length), 1.0 + length)

    def _plan(self) -> None:
        """Schedules the next look at the first end of a response or of a quantum, but not before `look_seconds`."""
        running = self._running.running()
        if not running and any(self._rollout.queue.load().waiting.values()):
            self._rollout.wake(self.number, self._rollout.now + POLL_SECONDS)
            return
        if not running:
            self._rollout.idle.append(self.number)
            return
        steps, block = self.engine.steps_to_end(), self._rollout.fleet.block
        for response in running:
            to_horizon = self.engine.steps_for(response.key, block * (response.horizon - response.generated))
            steps = min(steps, max(to_horizon, 0.0))
        at = self.engine.time_of(steps)
        self._rollout.wake(self.number, max(at, self._rollout.now + self._rollout.fleet.look_seconds))


DividedRollout.worker_type = SimulatedWorker
