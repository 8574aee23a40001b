"""Rollout without division: groups or requests are bound to an instance, whose vLLM orders and preempts as it does."""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from openseer_core.queue.placement import Lanes
from openseer_sim.divided import Fleet
from openseer_sim.engine import ModelledEngine
from openseer_sim.outcome import Outcome
from openseer_sim.work import Group, tokens_of


@dataclass(slots=True)
class _Waiting:
    key: str
    prompt: int
    length: float
    done: float = 0.0


class OwnScheduler:
    """An instance with vLLM's own order: first come first served, what runs goes first, and where the KV cache is full the
    newest gives way and computes its context again later."""

    def __init__(self, fleet: Fleet) -> None:
        self.engine = ModelledEngine(fleet.step)
        self.preemptions = 0
        self._fleet = fleet
        self._waiting: deque[_Waiting] = deque()
        self._running: dict[str, _Waiting] = {}

    def submit(self, key: str, prompt: int, length: int) -> None:
        self._waiting.append(_Waiting(key, prompt, length))

    def go_on(self, now: float) -> tuple[list[str], float]:
        """What has ended by now, and when to look again (infinity: never)."""
        self.engine.settle(now)
        ended = [key for key in self._running if self.engine.left(key) <= 1e-6]
        for key in ended:
            self.engine.remove(key)
            del self._running[key]
        preempted = False
        while self._running and self.engine.context >= self._fleet.kv_tokens - 1e-6:
            key, response = self._running.popitem()
            response.done += self.engine.remove(key)
            self._waiting.appendleft(response)
            self.preemptions += 1
            preempted = True
        while not preempted and self._waiting and len(self._running) < self._fleet.slots:
            first = self._waiting[0]
            context = first.prompt + first.done
            if self.engine.context + context + self._fleet.block > self._fleet.kv_tokens:
                break
            self._waiting.popleft()
            self._running[first.key] = first
            self.engine.add(first.key, context, first.length - first.done, computes=context)
        if not self._running:
            return ended, math.inf
        steps = min(self.engine.steps_to_end(), self.engine.steps_to(self._fleet.kv_tokens))
        return ended, self.engine.time_of(steps)


def bound(fleet: Fleet, groups: Sequence[Group], policy: str) -> Outcome:
    """`policy`: round-robin (each group whole, as veRL does) or least-inflight (each request to the least loaded)."""
    lanes, instances = Lanes(policy, fleet.instances), [OwnScheduler(fleet) for _ in range(fleet.instances)]
    for ordinal, group in enumerate(groups):
        for index, lane in enumerate(lanes.bind(ordinal, len(group.lengths))):
            instances[int(lane)].submit(f"g{ordinal}/{index}", group.prompt, group.lengths[index])
    outcome = Outcome([], [], tokens_of(groups))
    due = [(0.0, number) for number in range(fleet.instances)]
    while due:
        now, number = heapq.heappop(due)
        ended, again = instances[number].go_on(now)
        outcome.ends += [now] * len(ended)
        if again < math.inf:
            heapq.heappush(due, (again, number))
    outcome.busy = [instance.engine.busy for instance in instances]
    outcome.computed = sum(instance.engine.computed for instance in instances)
    outcome.preemptions = sum(instance.preemptions for instance in instances)
    return outcome
