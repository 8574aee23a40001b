"""Simulates rollout without division: each request is assigned to an instance, whose vLLM orders and preempts it."""

import heapq
import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass

from openseer_sim.drafts import tokens_of_step
from openseer_sim.engine import NOTHING, ModelledEngine
from openseer_sim.fleet import ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.work import GroupLengths, tokens_of


@dataclass(slots=True)
class BoundRequest:
    """A response of `length` tokens to a prompt of `prompt` tokens; `done`: its tokens before it runs (again)."""

    group: int
    prompt: int
    length: float
    done: float = 0.0


class OwnScheduler:
    """An instance with vLLM's own order: first come, first served, and running requests before others. When the KV
    cache is full, the newest running request is preempted; its context is computed again later. Drafts use the siblings
    that ended on this instance."""

    def __init__(self, fleet: ModelledFleet) -> None:
        self.engine = ModelledEngine(fleet.step)
        self.preemptions = 0
        self.computed = self.computed_again = 0.0
        self._fleet = fleet
        self._waiting: deque[tuple[str, BoundRequest]] = deque()
        self._running: dict[str, BoundRequest] = {}
        self._ended: Counter[int] = Counter()

    def submit(self, key: str, request: BoundRequest) -> None:
        """Adds a request at the end of the queue."""
        self._waiting.append((key, request))

    def go_on(self, now: float) -> tuple[list[str], float]:
        """Simulates up to `now`. Returns the ended requests, and the time of the next event (infinity: none)."""
        self.engine.settle(now)
        ended = [key for key in self._running if self.engine.is_over(key)]
        for key in ended:
            self.engine.remove(key)
            self._ended[self._running.pop(key).group] += 1
        preempted = False
        while len(self._running) > 1 and self.engine.context >= self._fleet.kv_tokens - NOTHING:
            key, request = self._running.popitem()
            request.done += self.engine.remove(key)
            self._waiting.appendleft((key, request))
            self.preemptions += 1
            preempted = True
        while not preempted and self._waiting and len(self._running) < self._fleet.slots:
            key, request = self._waiting[0]
            context = request.prompt + request.done
            if self._running and self.engine.context + context + self._fleet.block > self._fleet.kv_tokens:
                break
            self._waiting.popleft()
            self._running[key] = request
            self.computed += context
            self.computed_again += request.done
            left, holds = request.length - request.done, context * self._fleet.step.per_prefill
            self.engine.add(key, context, left, holds=holds)
        if not self._running:
            return ended, math.inf
        self._draft()
        steps = min(self.engine.steps_to_end(), max(1.0, self.engine.steps_to(self._fleet.kv_tokens)))
        return ended, self.engine.time_of(steps)

    def stop(self) -> dict[str, BoundRequest]:
        """Ends the simulation. Returns all requests that have not ended, with their tokens so far."""
        for key, request in self._running.items():
            request.done += self.engine.remove(key)
        left = self._running | dict(self._waiting)
        self._running, self._waiting = {}, deque()
        return left

    def _draft(self) -> None:
        drafts = self._fleet.drafts
        if drafts is None:
            return
        odds = {key: drafts.probability(self._ended[request.group]) for key, request in self._running.items()}
        mean = sum(odds.values()) / len(odds)
        length = drafts.length(self._fleet.step, len(odds), self.engine.context, mean)
        for key, probability in odds.items():
            self.engine.set_pace(key, tokens_of_step(probability, length), 1.0 + length)


def run_bound(fleet: ModelledFleet, groups: Sequence[GroupLengths], lanes: Sequence[Sequence[int]]) -> Outcome:
    """Runs each request on its instance, in the order of the groups. `lanes`: number of the instance, by group and
    index of the request."""
    instances = [OwnScheduler(fleet) for _ in range(fleet.instances)]
    for ordinal, (group, own) in enumerate(zip(groups, lanes, strict=True)):
        for index, (lane, length) in enumerate(zip(own, group.lengths, strict=True)):
            instances[lane].submit(f"g{ordinal}/{index}", BoundRequest(ordinal, group.prompt, length))
    outcome = Outcome([], [], tokens_of(groups))
    due = [(0.0, number) for number in range(fleet.instances)]
    while due:
        now, number = heapq.heappop(due)
        ended, again = instances[number].go_on(now)
        outcome.ends += [now] * len(ended)
        if again < math.inf:
            heapq.heappush(due, (again, number))
    outcome.busy = [instance.engine.busy for instance in instances]
    outcome.computed = sum(instance.computed for instance in instances)
    outcome.computed_again = sum(instance.computed_again for instance in instances)
    outcome.preemptions = sum(instance.preemptions for instance in instances)
    return outcome
