"""The requests that a worker runs: their tokens, how many of these the store has, and the blocks reserved for them.

Problem: an engine that runs out of KV blocks preempts a response, and computes its whole context again later. Reserving
blocks for max_tokens prevents that, but leaves most of the KV cache unused, because few responses become that long.

Idea: a worker reserves in steps. A response's `horizon` is the number of its tokens that the reservation covers: on
admission its tokens plus one quantum. At the horizon the response is due, and `decide` (core's queue/quantum.py) either
moves the horizon by a quantum (the engine continues without a pause), or makes the response leave: the engine aborts it
and the worker gives it back with its tokens. `margin` covers the tokens generated between two decisions.

Example: 10,900 blocks of 16 tokens, full attention, quantumTokens 1024, checkpointSeconds 0.25: the margin is
2 × 0.25 s × 400 tokens/s = 200 tokens. Each request has a prompt of 512 tokens and maxTokens 8192.

  reservation       tokens                      blocks    requests that fit
  maxTokens         512 + 8192        = 8704    544       20
  on admission      512 + 1024 + 200  = 1736    109       100
  second quantum    512 + 2048 + 200  = 2760    173       63

The worker has room for 100 requests instead of 20. If all 100 reach 1024 tokens, 63 continue, and the 37 with the
highest scores are given back; each response that ends before then saves one of these.

Of each response the worker counts three positions: `claim.generated` ≤ `written` ≤ `generated`. If a response was
leased at 3000 tokens, the store has 3040 and the engine 3070, then `delta` is the 30 tokens from 3040 on. After a reply
with a gap `written` moves to the position that the store reports.

Assumption: the engine does not preempt as long as each response generates at most `margin` tokens between two
decisions. The first margin assumes at most 400 tokens/s per response (TOKENS_PER_SECOND), and a decision that is late
by at most one checkpointSeconds. After a response has generated more, the margin is larger (at most a quantum). But no
blocks are reserved for the excess itself: if none is free, the engine preempts a response and computes its context
again. No token is lost, and heartbeats count the preemptions.

So continuing costs nothing, and the number of responses follows their present lengths. The idea is Seer's divided
rollout; its chunk is the quantum here, while a *chunk* in this code is one lease, which may last several quanta.
"""

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
"""Lower than every revision of the store, so that the store refuses a rescore with it."""

BLOCK_COUNTS = 4
"""Limit of entries in `RunningRequest.reserved`: this quantum and the next, before and after the first token."""

TOKENS_PER_SECOND = 400
"""Assumed upper bound of a response's tokens per second, for the initial margin. If a response generates more (small
model, many accepted drafts), the margin grows to twice the largest number of tokens of one collected output; it stays
at most a quantum, or the initial margin if that is larger."""


@dataclass(slots=True)
class RunningRequest:
    """One leased request in the engine. `generated`: number of tokens of the response, with the tokens before this
    lease; `written`: number that the store has; `horizon`: number that its reservation covers. `tokens`, `logprobs`:
    generated under this lease, as in openseer_core.tokens and token_scores. `leaving`: it will be given back; `lost`:
    its lease has ended."""

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
    """Cache of block counts by (promised tokens, margin, context to compute): read at each decision, changes rarely."""

    def take(self, output: EngineOutput, weights: str, dtype: str) -> bool:
        """Adds the engine's output. Returns False if the response has failed: the caller then aborts it in the engine.

        A response fails at its first token without a finite score, and ends before that token. `weights` (with the
        version) and `dtype` (of the engine) are for the message.
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
        """The tokens and log-probabilities that the store does not have yet."""
        start = (self.written - self.claim.generated) * ITEM_BYTES
        scores = start * record_items(self.tokens, self.logprobs)
        tokens, logprobs = bytes(self.tokens[start:]), bytes(self.logprobs[scores:])
        return Delta(self.claim.request, self.claim.fence, self.written, tokens, logprobs)


class RunningRequests:
    """All requests of one worker. The engine uses at most the blocks and slots that are counted here, under the
    assumption in the module's docstring."""

    def __init__(self, profile: EngineProfile, policy: Policy, rollout: RolloutSpec, slots: int) -> None:
        self.room = Room(slots, profile.blocks)
        self.margin = int(2 * rollout.checkpoint_seconds * TOKENS_PER_SECOND)
        self._move_share = 0.0 if profile.contexts_move else MOVE_SHARE
        """See `move_share` of quantum.decide (core)."""
        self.pace = ResponsePace()
        self.largest = 0
        """The largest token limit per request of any worker in the fleet, from the latest heartbeat's reply."""
        self.fleet_load: FleetLoad | None = None
        """The latest load of the fleet; None after a decision that gave requests back, until the next checkpoint, so
        that no load is used for two such decisions."""
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
        """Adds an output, generated with weights `version`; ignores it if the response is no longer here.

        Returns whether this frees reserved blocks: from its first token on a response does not need the blocks reserved
        for prefill.
        """
        response = self._responses.get(output.key)
        if response is None:
            return False
        begins = not response.tokens and bool(output.tokens)
        before = self._blocks(response, response.horizon) if begins else 0
        if not response.take(output, f"weights {response.claim.version or version}", self._profile.dtype):
            self._failed.append(output.key)
        gained = min(count_items(output.tokens), response.claim.max_tokens)  # a request that scores returns all at once
        self.margin = max(self.margin, min(2 * gained, self._most_margin))
        return begins and self._blocks(response, response.horizon) < before

    def newly_failed(self) -> list[str]:
        """Keys of the responses that have failed since the last call; the caller aborts them in the engine."""
        failed, self._failed = self._failed, []
        return failed

    def drop(self, key: str) -> None:
        """Removes a response that ended, was given back or was lost."""
        group = self._responses.pop(key).claim.request.group
        self._members[group] -= 1
        if not self._members[group]:
            del self._members[group], self._views[group]

    @property
    def versions(self) -> set[str]:
        """The weights versions of all responses here."""
        return {response.claim.version for response in self._responses.values()}

    def running(self) -> list[RunningRequest]:
        """The responses that the engine still generates."""
        return [response for response in self._responses.values() if response.finish is None]

    def ended(self) -> list[RunningRequest]:
        """The responses that the engine has ended and that are not yet reported to the store."""
        return [response for response in self._responses.values() if response.finish is not None]

    def is_for_others(self, response: RunningRequest) -> bool:
        """Whether an ended response returns to the queue: it was aborted, or it has reached this worker's token limit.

        The latter only if a worker with a larger limit may exist. A request that had reached the limit when it was
        claimed was claimed to be ended.
        """
        prompt, limit = count_items(response.claim.prompt), self._profile.request_tokens
        is_full = prompt + response.claim.generated < limit <= prompt + response.generated
        may_be_more = limit < max(self._profile.context_tokens, self.largest)
        outgrown = response.finish is FinishReason.CONTEXT_FULL and is_full and may_be_more
        return outgrown or response.finish is FinishReason.ABORTED

    def members(self) -> dict[GroupId, dict[int, int]]:
        """The generated tokens of each response here, by group and index."""
        found: dict[GroupId, dict[int, int]] = {}
        for response in self._responses.values():
            request = response.claim.request
            found.setdefault(request.group, {})[request.index] = response.generated
        return found

    def view(self, group: GroupId) -> GroupView:
        """The newest view of a group that has a response here."""
        return self._views[group]

    def note_load(self, fleet_load: FleetLoad) -> None:
        """Records the latest load of the fleet."""
        self.fleet_load, self._fair_share = fleet_load, fleet_load.fair_share

    @property
    def claim_slack(self) -> int:
        """Number of requests above the fair share that the worker may claim; 1 while it runs none.

        A sixteenth of the slots, at most half the fair share: never above the surplus at which it gives requests back.
        """
        return min(self._slack, -(-self._fair_share // 2)) if self._responses else 1

    @property
    def free_slots(self) -> int:
        """Number of further responses that the engine may run."""
        return self.room.slots - len(self._responses)

    @property
    def tokens(self) -> int:
        """Context tokens of all responses, prompts included. Another worker would have to compute them again."""
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
        """Metrics of the worker's load, for heartbeats."""
        return {
            "inflight": len(self),
            "slots": self.room.slots,
            "kv_reserved": round(self.reserved_blocks / max(1, self.room.blocks), 4),
            "held_tokens": self.tokens,
        }

    def decide(self) -> Decision:
        """Decides which due responses continue for a quantum and which leave (see openseer_core.queue.quantum)."""
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

    # ---- views of groups

    def learn(self, view: GroupView) -> None:
        """Records a view of a group, unless a newer one is known."""
        known = self._views.get(view.id)
        if known is None or view.revision >= known.revision:
            self._views[view.id] = view

    def finish(self, response: RunningRequest, *, rescore: bool) -> Finish:
        """The report of an ended response to the store. `rescore`: whether it contains its group's new priority."""
        assert response.finish is not None
        if response.finish is FinishReason.INFRA_FAILED:  # the engine refused this one request
            return Finish(response.delta(), Status.INFRA_FAILED, response.finish, response.stop_reason)
        rescored = self.rescore_finish(response) if rescore else None
        return Finish(response.delta(), Status.OK, response.finish, response.stop_reason, rescored)

    def rescore_finish(self, response: RunningRequest) -> Rescore:
        """The group's priority after this response has finished, valid if no other worker changes the group before."""
        view = self._views[response.claim.request.group].with_finish(response.generated)
        self.learn(view)
        return Rescore(view, self._policy.priority(view))

    def rescore_running(self, responses: Iterable[RunningRequest]) -> list[Rescore]:
        """New priorities of the groups with a running response that exceeds the estimate by the factor STEP (1.25)."""
        rescores: list[Rescore] = []
        for response in responses:
            view = self._views[response.claim.request.group]
            if is_news(view, response.generated):
                view = view.with_running(response.generated)
                self.learn(view)
                rescores.append(Rescore(view, self._policy.priority(view)))
        return rescores

    def relearn(self, view: GroupView) -> None:
        """Replaces the view of a group by the store's view, without comparing revisions."""
        self._views[view.id] = view

    def note_reply(self, response: RunningRequest, reply: Reply) -> None:
        """Records the store's view of the group from the reply to a response's end.

        If the lease was lost, the worker's view may include a finish that the store has refused. Its revision becomes
        NO_REVISION, so that the store refuses the next rescore of the group and returns its own view.
        """
        group = response.claim.request.group
        if reply.view is not None:
            self.relearn(reply.view)
        elif reply.outcome is WriteOutcome.LOST:
            self._views[group] = replace(self._views[group], revision=NO_REVISION)

    # ---- inside

    def _blocks(self, response: RunningRequest, horizon: int) -> int:
        claim, generated = response.claim, response.generated
        promised = max(horizon, generated)
        computing = 0 if response.tokens else 1 + claim.generated
        wanted = promised, self.margin, computing
        blocks = response.reserved.get(wanted)
        if blocks is None:
            prompt = count_items(claim.prompt)
            longest = min(claim.max_tokens, self._profile.request_tokens - prompt)
            context = prompt + claim.generated if computing else 0
            footprint = Footprint(prompt, generated, promised, longest, self.margin, context)
            blocks = footprint.blocks(self._profile.layout)
            if len(response.reserved) >= BLOCK_COUNTS:
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
