"""The requests that a worker runs: their tokens, what the store has of them, and the blocks reserved for them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from openseer_core.ids import PROBE_INDEX, GroupId
from openseer_core.manifest.job import RolloutSpec
from openseer_core.queue.group import GroupView
from openseer_core.queue.kv_blocks import Footprint
from openseer_core.queue.length_estimate import is_news
from openseer_core.queue.messages import Claim, Delta, Finish, FleetLoad, Reply, Rescore, WriteOutcome
from openseer_core.queue.policy import Policy
from openseer_core.queue.quantum import MOVE_SHARE, Decision, QuantumState, Room, decide
from openseer_core.queue.states import NOT_FINITE, FinishReason, Status
from openseer_core.token_scores import record_items
from openseer_core.tokens import ITEM_BYTES, count_items
from openseer_worker.engine import EngineOutput, EngineProfile
from openseer_worker.pace import ResponsePace
from openseer_worker.weights.scores import first_wrong, wrong_score

NO_REVISION = -1
"""Below every revision that a store gives."""

MOST_COUNTED_FOR = 4
"""Entries of `RunningRequest.reserved`: this quantum and the next, before and after its first token."""

TOKENS_PER_SECOND = 400
"""More than a response gains per second as a rule: sizes what may be generated before the next decision. A response
with many accepted drafts on a small model gains more; then twice the largest gain that was seen counts."""


@dataclass(slots=True)
class RunningRequest:
    """One leased request in the engine. `generated`: tokens of the response so far, those before this lease included;
    `written`: those that the store has."""

    claim: Claim
    key: str
    horizon: int
    generated: int
    written: int
    tokens: bytearray = field(default_factory=bytearray)
    logprobs: bytearray = field(default_factory=bytearray)
    finish: FinishReason | None = None
    stop_reason: str = ""
    leaving: bool = False
    lost: bool = False
    reserved: dict[tuple[int, int, int], int] = field(default_factory=dict[tuple[int, int, int], int])
    """How many blocks were counted, and for what: each look asks several times, and it changes seldom."""

    def take(self, output: EngineOutput, weights: str, dtype: str) -> bool:
        """Adds what the engine produced; False when the response has failed, so that the engine is to end it.

        It has once a token has no finite score: the response ends before that one. `weights`: what it came from.
        """
        if self.finish is not None:
            return True
        wrong = first_wrong(output)
        if wrong is not None:
            place, found = wrong
            why = wrong_score(self.generated + place, found, weights, dtype)
            self.finish, self.stop_reason = FinishReason.INFRA_FAILED, NOT_FINITE + why
        kept = None if wrong is None else wrong[0] * ITEM_BYTES
        tokens = output.tokens[:kept]
        self.tokens += tokens
        self.generated += count_items(tokens)
        self.logprobs += output.logprobs[: kept and kept * record_items(output.tokens, output.logprobs)]
        if wrong is None and output.finish is not None:
            self.finish, self.stop_reason = output.finish, output.stop_reason
        return wrong is None

    def delta(self) -> Delta:
        """What the store does not have yet."""
        start = (self.written - self.claim.generated) * ITEM_BYTES
        scores = start * record_items(self.tokens, self.logprobs)
        tokens, logprobs = bytes(self.tokens[start:]), bytes(self.logprobs[scores:])
        return Delta(self.claim.request, self.claim.fence, self.written, tokens, logprobs)


class RunningRequests:
    """All requests of one worker. The engine never takes more than the blocks and slots that are counted here."""

    def __init__(self, profile: EngineProfile, policy: Policy, rollout: RolloutSpec, slots: int) -> None:
        self.room = Room(slots, profile.blocks)
        self.margin = int(2 * rollout.checkpoint_seconds * TOKENS_PER_SECOND)
        self._move_share = 0.0 if profile.contexts_move else MOVE_SHARE
        """See `decide`."""
        self.pace = ResponsePace()
        self.largest = 0
        """Tokens that one request may have at the fleet's largest worker, by the latest heartbeat."""
        self.fleet_load: FleetLoad | None = None
        """The latest load of the fleet; used for one decision that moves work, then None until the next one comes."""
        self._slack = max(1, slots // 16)
        self._fair_share = 1
        self._most_margin = max(self.margin, rollout.quantum_tokens)
        self._profile = profile
        self._policy = policy
        self._quantum = rollout.quantum_tokens
        self._responses: dict[str, RunningRequest] = {}
        self._failed: list[str] = []
        self._views: dict[GroupId, GroupView] = {}
        self._members: Counter[GroupId] = Counter()

    def __len__(self) -> int:
        return len(self._responses)

    def admit(self, claim: Claim) -> RunningRequest:
        """Adds a newly claimed request."""
        key = claim.key
        held = claim.generated
        response = RunningRequest(claim, key, held + self._quantum, held, held)
        self._responses[key] = response
        self._members[claim.request.group] += 1
        self.learn(claim.view)
        return response

    def take(self, output: EngineOutput, version: str) -> bool:
        """Adds what the engine produced with weights of a version for a response, if it is still here.

        True when that makes room: what was reserved for its context while that was computed is free once it generates.
        """
        response = self._responses.get(output.key)
        if response is None:
            return False
        begins = not response.tokens and bool(output.tokens)
        before = self._blocks(response, response.horizon) if begins else 0
        if not response.take(output, f"weights {response.claim.version or version}", self._profile.dtype):
            self._failed.append(output.key)
        gained = min(count_items(output.tokens), response.claim.max_tokens)  # more than that was given, and scored
        self.margin = max(self.margin, min(2 * gained, self._most_margin))
        return begins and self._blocks(response, response.horizon) < before

    def newly_failed(self) -> list[str]:
        """Responses that have failed since the last call, by their scores: the engine is to end them."""
        failed, self._failed = self._failed, []
        return failed

    def drop(self, key: str) -> None:
        """Forgets a response that ended, was given back or was lost."""
        group = self._responses.pop(key).claim.request.group
        self._members[group] -= 1
        if not self._members[group]:
            del self._members[group], self._views[group]

    @property
    def versions(self) -> set[str]:
        """Of all responses here."""
        return {response.claim.version for response in self._responses.values()}

    def running(self) -> list[RunningRequest]:
        """Responses that the engine still works on."""
        return [response for response in self._responses.values() if response.finish is None]

    def ended(self) -> list[RunningRequest]:
        """Responses that the engine is done with and the store does not know yet."""
        return [response for response in self._responses.values() if response.finish is not None]

    def is_for_others(self, response: RunningRequest) -> bool:
        """Whether an ended response goes back to the queue: it was aborted, or it has filled what this worker takes.

        If a larger one can go on with it, the store knows. One that was full when it came is here to be ended.
        """
        prompt, limit = count_items(response.claim.prompt), self._profile.request_tokens
        is_full = prompt + response.claim.generated < limit <= prompt + response.generated
        may_be_more = limit < max(self._profile.context_tokens, self.largest)
        outgrown = response.finish is FinishReason.CONTEXT_FULL and is_full and may_be_more
        return outgrown or response.finish is FinishReason.ABORTED

    def members(self) -> dict[GroupId, dict[int, int]]:
        """The groups of all responses here: index → tokens generated of each response."""
        found: dict[GroupId, dict[int, int]] = {}
        for response in self._responses.values():
            request = response.claim.request
            found.setdefault(request.group, {})[request.index] = response.generated
        return found

    def view(self, group: GroupId) -> GroupView:
        """The newest view of a group of which a response is here."""
        return self._views[group]

    def note_load(self, fleet_load: FleetLoad) -> None:
        """Takes the latest load of the fleet."""
        self.fleet_load, self._fair_share = fleet_load, fleet_load.fair_share

    @property
    def claim_slack(self) -> int:
        """How many requests above its fair share the worker may claim: in the tail fewer than it would give back."""
        return min(self._slack, -(-self._fair_share // 2)) if self._responses else 1

    @property
    def free_slots(self) -> int:
        """How many more responses the engine may run."""
        return self.room.slots - len(self._responses)

    @property
    def tokens(self) -> int:
        """Tokens of context of all responses, prompts included: what another worker would have to compute again."""
        return sum(count_items(response.claim.prompt) + response.generated for response in self._responses.values())

    @property
    def reserved_blocks(self) -> int:
        """Blocks reserved for all responses."""
        return sum(self._blocks(response, response.horizon) for response in self._responses.values())

    @property
    def free_blocks(self) -> int:
        """Blocks that are not reserved."""
        return self.room.blocks - self.reserved_blocks

    @property
    def has_room(self) -> bool:
        """Whether one more response may fit."""
        return self.free_slots > 0 and self.free_blocks > 0

    @property
    def takes_any(self) -> bool:
        """Whether one more response fits, however long it is."""
        longest = self._profile.request_tokens
        return self.free_slots > 0 and self.free_blocks >= self._profile.layout.blocks(longest, longest)

    def occupancy(self) -> dict[str, float]:
        """For heartbeats."""
        return {
            "inflight": len(self),
            "slots": self.room.slots,
            "kv_reserved": round(self.reserved_blocks / max(1, self.room.blocks), 4),
            "held_tokens": self.tokens,
        }

    def decide(self) -> Decision:
        """Whose quantum is extended and who has to leave (see openseer_core.queue.quantum)."""
        states: list[QuantumState] = []
        occupied = 0
        for response in self._responses.values():
            if response.finish is None and not response.leaving:
                states.append(self._state(response))
            else:
                occupied += self._blocks(response, response.horizon)
        room = Room(self.room.slots, self.room.blocks - occupied)
        decision = decide(
            states,
            room,
            self.fleet_load,
            slack=2 * self._slack,
            hysteresis=self._quantum,
            divided=self._policy.divided,
            pace=self.pace.value,
            move_share=self._move_share,
        )
        for key in decision.go_on:
            response = self._responses[key]
            response.horizon = response.generated + self._quantum
        for key in decision.leave:
            self._responses[key].leaving = True
            self.fleet_load = None
        return decision

    # ---- what groups are known to be

    def learn(self, view: GroupView) -> None:
        """Takes the newest view of a group."""
        known = self._views.get(view.id)
        if known is None or view.revision >= known.revision:
            self._views[view.id] = view

    def finish(self, response: RunningRequest, *, rescore: bool) -> Finish:
        """What the store is told of a response that has ended. `rescore`: with its group's priority after that."""
        assert response.finish is not None
        if response.finish is FinishReason.INFRA_FAILED:  # the engine refused this one request
            return Finish(response.delta(), Status.INFRA_FAILED, response.finish, response.stop_reason)
        rescored = self.rescore_finish(response) if rescore else None
        return Finish(response.delta(), Status.OK, response.finish, response.stop_reason, rescored)

    def rescore_finish(self, response: RunningRequest) -> Rescore:
        """The group's priority once this response has finished; assumes that no other news comes first."""
        view = self._views[response.claim.request.group].with_finish(response.generated)
        self.learn(view)
        return Rescore(view, self._policy.priority(view))

    def rescore_running(self, responses: Iterable[RunningRequest]) -> list[Rescore]:
        """News of groups whose running responses have outgrown the estimate by a step."""
        rescores: list[Rescore] = []
        for response in responses:
            view = self._views[response.claim.request.group]
            if is_news(view, response.generated):
                view = view.with_running(response.generated)
                self.learn(view)
                rescores.append(Rescore(view, self._policy.priority(view)))
        return rescores

    def relearn(self, view: GroupView) -> None:
        """Takes the store's view in place of one that assumed too much."""
        self._views[view.id] = view

    def note_reply(self, response: RunningRequest, reply: Reply) -> None:
        """Takes the store's view of a response's group with what it said of its end.

        Where it took nothing, the view here may assume an end that never was: its revision becomes none of the
        store's, so the next news of the group is refused and brings the store's view.
        """
        group = response.claim.request.group
        if reply.view is not None:
            self.relearn(reply.view)
        elif reply.outcome is WriteOutcome.LOST:
            self._views[group] = replace(self._views[group], revision=NO_REVISION)

    # ---- inside

    def _blocks(self, response: RunningRequest, horizon: int) -> int:
        claim, generated = response.claim, response.generated
        promised = max(horizon, generated)  # what has been generated counts only beyond what was promised
        computing = 0 if response.tokens else 1 + claim.generated
        wanted = promised, self.margin, computing
        blocks = response.reserved.get(wanted)
        if blocks is None:
            prompt = count_items(claim.prompt)
            longest = min(claim.max_tokens, self._profile.request_tokens - prompt)
            context = prompt + claim.generated if computing else 0
            footprint = Footprint(prompt, generated, promised, longest, self.margin, context)
            blocks = footprint.blocks(self._profile.layout)
            if len(response.reserved) >= MOST_COUNTED_FOR:
                response.reserved.clear()
            response.reserved[wanted] = blocks
        return blocks

    def _state(self, response: RunningRequest) -> QuantumState:
        claim = response.claim
        due = response.generated >= response.horizon
        view = self._views[claim.request.group]
        priority = self._policy.priority(view)
        is_probe = claim.request.index == PROBE_INDEX
        score = priority.request_score(claim.bias, response.generated, is_probe=is_probe)
        horizon = response.generated + self._quantum if due else response.horizon
        return QuantumState(response.key, score, due, response.generated, self._blocks(response, horizon))
