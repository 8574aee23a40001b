"""Divided rollout on the product's own code: its queue, policies, quanta and counts of blocks, on a virtual clock.

Everything that decides is imported: core's reference queue, `policy`, `placement`, and the worker's RunningRequests with
`quantum`. What is here stands for the rest of the worker loop (worker/openseer_worker/loop.py): it reads the engine, lets
the requests decide, reports ends, claims. Lengths are counted in KV blocks, an item of the queue for each: half a million
requests of a hundred thousand tokens would not fit in memory as tokens.
"""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from openseer_core.ids import GroupId, WorkerId, worker_name
from openseer_core.manifest.fleet import RolloutSpec, Workers
from openseer_core.model.job_queue import JobQueue
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.group import SHARED_LANE
from openseer_core.queue.kv_blocks import whole
from openseer_core.queue.messages import ClaimQuery, Finish, WriteOutcome
from openseer_core.queue.placement import Placement
from openseer_core.queue.states import FinishReason, Status
from openseer_core.tokens import ITEM_BYTES
from openseer_sim.engine import ModelledEngine, StepTime
from openseer_sim.outcome import Outcome
from openseer_sim.work import Group, tokens_of
from openseer_worker.engine import EngineOutput, EngineProfile
from openseer_worker.running import RunningRequests

VERSION = "initial"
LEASE_SECONDS = 1e9
"""Nothing is lost unless the study says so."""
CALLED = 2
"""Workers with room that a request which comes back calls, as in the product."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """`instances` of one kind: `kv_tokens` of context at once, `slots` responses at once. `block`: tokens of a KV block.
    `moves`: seconds per token of context that a response brings along; None: its context is computed again. `look_seconds`:
    how often a worker reads its engine."""

    instances: int
    step: StepTime
    kv_tokens: int
    slots: int = 256
    block: int = 16
    moves: float | None = None
    look_seconds: float = 0.25


class DividedRollout:
    """One rollout. `run` plays it to its end."""

    def __init__(self, fleet: Fleet, groups: Sequence[Group], cap: int, rollout: RolloutSpec) -> None:
        self.fleet, self.rollout = fleet, rollout
        self.now = 0.0
        self.queue = JobQueue()
        self.outcome = Outcome([], [], tokens_of(groups))
        self.idle: deque[int] = deque()
        self._due: list[tuple[float, int, int]] = []
        self._order = 0
        placement = Placement.of(rollout, Workers(replicas=fleet.instances))
        record, _ = self.queue.open_batch(OpenBatch(VERSION, "{}"), 0.0)
        self.batch = record.number
        for ordinal, group in enumerate(groups):
            self.queue.submit(self._spec(placement, ordinal, group, cap))
        self.queue.seal(self.batch)
        self._workers = [SimulatedWorker(self, number, placement) for number in range(fleet.instances)]

    def items(self, tokens: float) -> int:
        """Blocks of so many tokens."""
        return max(1, math.ceil(tokens / self.fleet.block))

    def run(self) -> Outcome:
        """To the end of the last response."""
        for worker in self._workers:
            self.queue.claimers.count_in(worker.id.name, worker.profile.request_tokens, 0.0)
        for worker in self._workers:
            self.wake(worker.number, 0.0)
        while self._due:
            self.now, _, number = heapq.heappop(self._due)
            worker = self._workers[number]
            if worker.due == self.now:
                worker.look()
        self.outcome.busy = [worker.engine.busy for worker in self._workers]
        self.outcome.computed = sum(worker.engine.computed for worker in self._workers)
        return self.outcome

    def wake(self, number: int, at: float) -> None:
        """Has a worker look at its engine and at the queue then, in place of whatever it waited for."""
        self._workers[number].due = at
        self._order += 1
        heapq.heappush(self._due, (at, self._order, number))

    def call(self) -> None:
        """A request waits again: workers with room look for it."""
        for _ in range(min(CALLED, len(self.idle))):
            self.wake(self.idle.popleft(), self.now)

    def _spec(self, placement: Placement, ordinal: int, group: Group, cap: int):
        lengths = tuple(self.items(length) for length in group.lengths)
        spec = placement.group(
            GroupId(self.batch, f"g{ordinal}"),
            VERSION,
            ordinal,
            bytes(ITEM_BYTES * self.items(group.prompt)),
            self.items(cap),
            len(lengths),
            0.0,
            sampling="{}",
            metadata="{}",
            lengths=lengths,
        )
        return replace(spec, lengths=lengths)


class SimulatedWorker:
    """One instance and what the worker loop does for it."""

    def __init__(self, rollout: DividedRollout, number: int, placement: Placement) -> None:
        fleet = rollout.fleet
        self.number = number
        self.id = WorkerId(worker_name(number), "sim")
        self.due = -1.0
        self.engine = ModelledEngine(fleet.step)
        self.profile = EngineProfile(
            blocks=fleet.kv_tokens // fleet.block,
            layout=whole(1),
            slots=fleet.slots,
            context_tokens=fleet.kv_tokens // fleet.block,
            device="none",
            engine="modelled",
        )
        self._rollout = rollout
        self._lanes = (str(number), SHARED_LANE)
        self._running = RunningRequests(self.profile, placement.policy, rollout.rollout, fleet.slots)
        self._margin = max(1, round(self._running.margin / fleet.block))
        self._running.margin = self._margin

    def look(self) -> None:
        """What the worker loop does when it wakes: reads the engine, decides, reports, claims."""
        now, running = self._rollout.now, self._running
        self.engine.settle(now)
        self._read()
        self._tell_load()
        for key in sorted(running.decide().leave):
            self.engine.remove(key)
            running.take(EngineOutput(key, finish=FinishReason.ABORTED), VERSION)
        self._settle()
        while running.free_slots > 0 and running.free_blocks > 0 and self._claim():
            pass
        self._plan()

    def _read(self) -> None:
        running, block = self._running, self._rollout.fleet.block
        for response in running.running():
            key = response.key
            over = self.engine.left(key) <= 1e-6
            grown = self._target(response) if over else int(self.engine.gained(key) / block)
            new = grown - (response.generated - response.claim.generated)
            finish = FinishReason.LENGTH if over else None
            if new or over:
                running.take(EngineOutput(key, bytes(ITEM_BYTES * new), b"", finish), VERSION)
            if over:
                self.engine.remove(key)
        running.margin = self._margin  # it looks again as soon as anything is due

    def _target(self, response) -> int:
        return response.claim.true_length - response.claim.generated

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
                if reply.view is not None:
                    running.relearn(reply.view)
                if reply.outcome is not WriteOutcome.STALE:
                    break
            outcome.ends.append(self._rollout.now)
            running.drop(response.key)

    def _claim(self) -> bool:
        running, fleet = self._running, self._rollout.fleet
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
        )
        claims = self._rollout.queue.claim(self.id, query, self._rollout.now)
        for claim in claims:
            self._rollout.outcome.claims.append(f"{claim.request}@{self.number}")
            running.admit(claim)
            prompt, generated = len(claim.prompt) // ITEM_BYTES, claim.generated
            context = fleet.block * (prompt + generated)
            moved = fleet.moves is not None and generated > 0
            computes = fleet.block * prompt if moved else context
            left = fleet.block * (claim.true_length - generated)
            self.engine.add(claim.key, context, left, computes=0.0 if moved else computes)
        return bool(claims)

    def _plan(self) -> None:
        """When something is due: an end, or a quantum."""
        running = self._running.running()
        if not running:
            self._rollout.idle.append(self.number)
            return
        steps, block = self.engine.steps_to_end(), self._rollout.fleet.block
        for response in running:
            to_horizon = block * (response.horizon - response.generated)
            steps = min(steps, max(to_horizon, 0.0))
        at = self.engine.time_of(steps)
        self._rollout.wake(self.number, max(at, self._rollout.now + self._rollout.fleet.look_seconds))
