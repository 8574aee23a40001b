"""Rollouts on the product's queue under rules that the product does not have: other indices, probes, chunks, drafts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from simulated.lengths_known import (
    GroupLengthsKnown,
    GroupPrior,
    Index,
    Left,
    LengthSpec,
    LengthView,
    fleet_index,
)

from openseer_core.ids import GroupId
from openseer_core.manifest.fleet import RolloutSpec
from openseer_core.model.job_queue import JobQueue
from openseer_core.model.state import QueuedGroup
from openseer_core.queue.group import GroupSpec, GroupView, Priority
from openseer_core.queue.placement import Placement
from openseer_core.queue.policy import PROBES_FIRST, Policy, policy
from openseer_core.queue.quantum import QuantumState
from openseer_sim.divided import DividedRollout, SimulatedWorker
from openseer_sim.drafts import tokens_of_step
from openseer_sim.fleet import ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.work import GroupLengths
from openseer_worker.running import RunningRequest, RunningRequests

REFRESHES = 40
"""Number of updates of all groups' estimates in a rollout."""
FIRST_PART = 4
"""With `tail_drafts`, an engine drafts for one in FIRST_PART of its responses."""


def one_probe(_view: GroupView) -> int:
    """One probe per group, as in the product."""
    return 1


@dataclass(frozen=True, slots=True)
class Rules:
    """The differences from the product. `left`: index of the remaining length from a group's siblings. `fleet`: the
    same from all lengths of the fleet, (quantile,), or (None,) for the Gittins index. `probes`: number of a group's
    probes. `waiting_chunk`: tokens of a quantum while requests wait. `tail_drafts`: drafts for only a part of the
    responses once no request waits."""

    left: Left | None = None
    fleet: tuple[float | None] | None = None
    probes: Callable[[GroupView], int] = one_probe
    waiting_chunk: int = 0
    tail_drafts: bool = False


@dataclass(frozen=True, slots=True)
class IndexPriority(Priority):
    """A priority that scores requests by any function of their tokens."""

    index: Index = float

    def request_score(self, bias: float, generated: int, *, is_probe: bool) -> float:
        """The negative index, so that the largest index goes first."""
        if is_probe and self.probe is not None:
            return self.probe + generated
        return -self.index(generated)


class OtherQueue(JobQueue):
    """The queue with any number of probes and with scores from any function of a request's tokens."""

    def __init__(self, rules: Rules) -> None:
        super().__init__()
        self._rules = rules

    def place_again(self, priority: Callable[[GroupView], Priority]) -> None:
        """Recomputes the priorities of all groups that are not over, from their present views."""
        for group in self._groups.values():
            if not group.view.is_over:
                self._place(group, group.view, priority(group.view))

    def waits(self) -> bool:
        """Whether any request waits."""
        return any(waiting for group in self._groups.values() for waiting in group.waiting.values())

    def _enqueue(self, group: QueuedGroup, index: int) -> None:
        super()._enqueue(group, index)
        self._rank(group, index)
        self._refresh(group, group.requests[index].lane)

    def _place(self, group: QueuedGroup, view: GroupView, priority: Priority) -> None:
        group.view, group.priority = view, priority
        for waiting in group.waiting.values():
            for _, name in waiting.first(len(waiting)):
                self._rank(group, int(name))
        for lane in group.waiting:
            self._refresh(group, lane)

    def _rank(self, group: QueuedGroup, index: int) -> None:
        request, priority = group.requests[index], group.priority
        if priority.probe is not None and index < self._rules.probes(group.view):
            score = float("-inf")
        else:
            score = priority.request_score(request.bias, request.generated, is_probe=False) - priority.base
        group.waiting[request.lane].put(f"{index:04d}", score)


class OtherRunning(RunningRequests):
    """Running requests with any number of probes."""

    probes: Callable[[GroupView], int]

    def set_quantum(self, quantum: int) -> None:
        """Sets the number of tokens of later quanta."""
        self._quantum = quantum

    def score(self, response: RunningRequest) -> float:
        """The score that the response would have in the queue."""
        return self._state(response).score

    def _state(self, response: RunningRequest) -> QuantumState:
        if self.probes is one_probe:
            return super()._state(response)
        state, request = super()._state(response), response.claim.request
        view = self._views[request.group]
        priority, is_probe = self._policy.priority(view), request.index < self.probes(view)
        score = priority.request_score(response.claim.bias, response.generated, is_probe=is_probe)
        return replace(state, score=score)


class OtherWorker(SimulatedWorker):
    """A worker that records the tokens of each response and follows the rules for chunks and drafts."""

    def __init__(self, rollout: DividedRollout, number: int) -> None:
        super().__init__(rollout, number)
        assert isinstance(rollout, OtherRollout)
        own = OtherRunning(self.profile, rollout.policy, rollout.rollout, rollout.fleet.slots)
        own.probes = rollout.rules.probes
        own.margin = self._running.margin
        self._own, self._other, self._running = own, rollout, own

    def look(self) -> None:
        """Sets the chunk by the load, looks, and updates the estimates."""
        self._other.set_chunk(self._own)
        super().look()
        self._other.after_look()

    def _read(self) -> None:
        super()._read()
        for response in self._running.running():
            request = response.claim.request
            self._other.progress.setdefault(request.group, {})[request.index] = response.generated
        for response in self._running.ended():
            request = response.claim.request
            self._other.progress.setdefault(request.group, {}).pop(request.index, None)

    def _draft(self) -> None:
        drafts, fleet, running = self._other.fleet.drafts, self._other.fleet, self._running.running()
        if not self._other.rules.tail_drafts or drafts is None or self._other.queue.waits() or not running:
            super()._draft()
            return
        running.sort(key=self._own.score)
        first = running[: -(-len(running) // FIRST_PART)]
        odds = [drafts.probability(self._running.view(response.claim.request.group).finished) for response in first]
        mean, reading = sum(odds) / len(odds), fleet.step.per_context * self.engine.context
        length = max(
            range(drafts.longest + 1),
            key=lambda length: (
                tokens_of_step(mean, length) / (fleet.step.base(len(running), len(first) * length) + reading)
            ),
        )
        for response, probability in zip(first, odds, strict=True):
            self.engine.set_pace(response.key, tokens_of_step(probability, length), 1.0 + length)
        for response in running[len(first) :]:
            self.engine.set_pace(response.key, 1.0, 1.0)


class OtherRollout(DividedRollout):
    """A rollout under other rules. `prior`: maps a group's ordinal to its prior; `earlier`: lengths of earlier
    responses to each prompt, in tokens."""

    queue: OtherQueue
    rollout: RolloutSpec

    def __init__(
        self,
        fleet: ModelledFleet,
        groups: Sequence[GroupLengths],
        cap: int,
        rollout: RolloutSpec,
        rules: Rules,
        prior: Callable[[int], GroupPrior],
        earlier: Sequence[Sequence[int]] = (),
        product: Policy | None = None,
    ) -> None:
        self.rules, self.progress = rules, dict[GroupId, dict[int, int]]()
        self._prior, self._earlier = prior, earlier
        self._cap = max(1, -(-cap // fleet.block))
        self._seen, self._looks, self._epoch = 0, 0, 0
        self._placed: dict[GroupId, tuple[tuple[int, int, int], Priority]] = {}
        self._fleet_index = fleet_index((), (), self._cap, rules.fleet[0] if rules.fleet else None)
        self._finished: dict[GroupId, tuple[int, ...]] = {}
        self._every = max(1, sum(len(group.lengths) for group in groups) // REFRESHES)
        self.queue_type = lambda: OtherQueue(rules)
        self.worker_type = OtherWorker
        self._product = product or policy("context-aware")
        indexed = rules.left is not None or rules.fleet is not None
        super().__init__(
            fleet, groups, cap, rollout, replace(self._product, priority=self._place) if indexed else self._product
        )
        self._chunks = (
            self.rollout,
            self.rollout.model_copy(update={"quantum_tokens": max(1, rules.waiting_chunk // fleet.block)}),
        )

    def set_chunk(self, running: OtherRunning) -> None:
        """Sets the quantum, which depends on whether requests wait."""
        if self.rules.waiting_chunk:
            self.rollout = self._chunks[self.queue.waits()]
            running.set_quantum(self.rollout.quantum_tokens)

    def after_look(self) -> None:
        """Updates the estimates at intervals."""
        self._looks += 1
        ended = len(self.outcome.ends) // self._every
        if ended == self._seen and self._looks < 50 * self.fleet.instances:
            return
        self._seen, self._looks, self._epoch = ended, 0, self._epoch + 1
        if self.rules.fleet is not None:
            finished = [length for lengths in self._finished.values() for length in lengths]
            running = [float(done) for group in self.progress.values() for done in group.values()]
            self._fleet_index = fleet_index(finished, running, self._cap, self.rules.fleet[0])
        if self.policy.priority == self._place:
            self.queue.place_again(self._place)

    def _place(self, view: GroupView) -> Priority:
        stamp, known = (view.finished, view.longest_running, self._epoch), self._placed.get(view.id)
        if known is None or known[0] != stamp:
            known = self._placed[view.id] = stamp, self._newly_placed(view)
        return known[1]

    def _newly_placed(self, view: GroupView) -> Priority:
        lengths = view.lengths if isinstance(view, LengthView) else ()
        self._finished[view.id] = max(self._finished.get(view.id, ()), lengths, key=len)
        probe = PROBES_FIRST if self._product.priority(view).probe is not None else None
        index = self._index(view, lengths) if self.rules.fleet is None else self._fleet_index
        return IndexPriority(0.0, probe=probe, index=index)

    def _index(self, view: GroupView, lengths: tuple[int, ...]) -> Index:
        running = [float(done) for done in self.progress.get(view.id, {}).values() if done]
        known = GroupLengthsKnown(self._prior(view.ordinal), lengths, running, self._cap)
        left = self.rules.left
        assert left is not None
        found: dict[float, float] = {}

        def index(so_far: float) -> float:
            if so_far not in found:
                found[so_far] = left(known.expected(so_far), so_far)
            return found[so_far]

        return index

    def _spec(self, placement: Placement, ordinal: int, group: GroupLengths, cap: int) -> GroupSpec:
        plain = super()._spec(placement, ordinal, group, cap)
        spec = LengthSpec(**{name: getattr(plain, name) for name in GroupSpec.__dataclass_fields__})
        if self._earlier:
            spec = replace(spec, longest_earlier=self.items(max(self._earlier[ordinal])))
        return replace(spec, priority=self.policy.priority(spec.view()))


def other(
    rules: Rules,
    chunk: int,
    prior: Callable[[int], GroupPrior],
    earlier: Sequence[Sequence[int]] = (),
    product: Policy | None = None,
) -> Callable[[ModelledFleet, Sequence[GroupLengths], int], Outcome]:
    """A system with these rules. `chunk`: tokens of a quantum."""
    spec = RolloutSpec(policy="context-aware", quantum_tokens=chunk)
    return lambda fleet, groups, cap: OtherRollout(fleet, groups, cap, spec, rules, prior, earlier, product).run()
