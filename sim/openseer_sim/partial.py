"""Simulates partial rollout (APRIL): more groups run than are needed, and an iteration ends when enough are complete.

The other groups continue in the next iteration under newer weights, so the rollout is not synchronous.
"""

import heapq
import math
from collections import Counter
from collections.abc import Iterator, Sequence

from openseer_sim.fleet import ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.systems import System
from openseer_sim.whole_groups import BoundRequest, OwnScheduler
from openseer_sim.work import GroupLengths


def partial_by(issue: float = 2.0, *, warm: int = 2, measured: int = 3) -> System:
    """A system in which `issue` times the given number of groups run at the start of an iteration. After `warm`
    iterations, `measured` iterations form one Outcome, whose `tokens` are all tokens that they generated. Groups are
    reused in turn."""

    def system(fleet: ModelledFleet, groups: Sequence[GroupLengths], _cap: int) -> Outcome:
        rollout = PartialRollout(fleet, groups)
        for _ in range(warm):
            rollout.iterate(round(issue * len(groups)))
        rollout.forget()
        for _ in range(measured):
            rollout.iterate(round(issue * len(groups)))
        return rollout.outcome

    return system


class PartialRollout:
    """Iterations over the given groups, which are reused; `outcome`: the sum over the iterations."""

    def __init__(self, fleet: ModelledFleet, groups: Sequence[GroupLengths]) -> None:
        self.outcome = Outcome([], [0.0] * fleet.instances, 0)
        self._fleet, self._groups = fleet, groups
        self._carried: dict[str, BoundRequest] = {}
        self._open: Counter[int] = Counter()
        self._issued = 0
        self._seconds = 0.0

    def forget(self) -> None:
        """Resets the outcome, so that it does not include earlier iterations."""
        self.outcome, self._seconds = Outcome([], [0.0] * self._fleet.instances, 0), 0.0

    def iterate(self, issue: int) -> None:
        """Simulates one iteration: adds groups up to `issue`, and stops when as many groups as were given are complete.

        Carried requests are first in the order; requests are assigned to the instances in turn.
        """
        instances = [OwnScheduler(self._fleet) for _ in range(self._fleet.instances)]
        requests = dict(sorted(self._carried.items(), key=lambda item: item[1].group)) | dict(self._fresh(issue))
        before = sum(request.length - request.done for request in requests.values())
        for number, (key, request) in enumerate(requests.items()):
            instances[number % len(instances)].submit(key, request)
        now = self._until_complete(instances)
        self._carried = {}
        for instance in instances:
            instance.engine.settle(now)
            self._carried |= instance.stop()
        left = sum(request.length - request.done for request in self._carried.values())
        self._count(instances, now, before - left)

    def _fresh(self, issue: int) -> Iterator[tuple[str, BoundRequest]]:
        while len(self._open) < issue:
            number, group = self._issued, self._groups[self._issued % len(self._groups)]
            self._issued += 1
            self._open[number] = len(group.lengths)
            for index, length in enumerate(group.lengths):
                yield f"g{number}/{index}", BoundRequest(number, group.prompt, length)

    def _until_complete(self, instances: list[OwnScheduler]) -> float:
        """The time, in seconds, at which enough groups are complete."""
        wanted, outcome = len(self._groups), self.outcome
        due = [(0.0, number) for number in range(len(instances))]
        now = 0.0
        while due and wanted > 0:
            now, number = heapq.heappop(due)
            ended, again = instances[number].go_on(now)
            for key in ended:
                outcome.ends.append(self._seconds + now)
                group = int(key[1:].partition("/")[0])
                self._open[group] -= 1
                if not self._open[group]:
                    del self._open[group]
                    wanted -= 1
            if again < math.inf:
                heapq.heappush(due, (again, number))
        return now

    def _count(self, instances: list[OwnScheduler], seconds: float, tokens: float) -> None:
        outcome = self.outcome
        outcome.busy = [busy + own.engine.busy for busy, own in zip(outcome.busy, instances, strict=True)]
        outcome.tokens += round(tokens)
        outcome.preemptions += sum(own.preemptions for own in instances)
        outcome.computed += sum(own.computed for own in instances)
        outcome.computed_again += sum(own.computed_again for own in instances)
        self._seconds += seconds
