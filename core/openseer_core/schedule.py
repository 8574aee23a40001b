"""Policies: pure functions from what is known of a group to its place in the queue.

A policy says three things: `priority` of a group (again whenever its view changes), `rank` of a request within its
group (once, at submission), and through `Lanes` which worker a request is bound to, if any. The store only sorts.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from openseer_core.group import SHARED_LANE, GroupView, Priority
from openseer_core.length import estimate

PROBES_FIRST = -1e15
"""Added to a waiting probe's score: below every other score, and whole tokens stay exact in a double."""

TIER_STRIDE = 2e15
"""Between two tiers of batches: more than any score within one; five tiers stay exact in a double."""

TIERS = {"high": -2, "normal": 0, "low": 2}
"""The tiers of a batch's priority."""

RESERVE = 1
"""Added to the tier of a group that is to run only when nothing else of its batch waits."""

BATCH_STRIDE = 1e9
"""First come, first served: batches in order, groups in order within one."""

ROUND_ROBIN = "round-robin"
LEAST_INFLIGHT = "least-inflight"


@dataclass(frozen=True, slots=True)
class Policy:
    """One named way to order and place work. Build it with `policy(...)`."""

    name: str
    priority: Callable[[GroupView], Priority]
    rank: Callable[[int], float]
    """From a request's true length in tokens (0 = unknown) to its rank within the group, lowest first."""
    divided: bool = True
    """Whether requests may be given back for something better; group-static policies keep what they claimed."""


def policy(name: str, *, probe: bool = True, ageing: float = 0.0) -> Policy:
    """The policy called `name` in a manifest.

    ageing: tokens by which a waiting group's score improves per second that it was enqueued earlier.
    Raises KeyError for an unknown name.
    """

    def context_aware(view: GroupView) -> Priority:
        place = ageing * view.enqueued_at + view.tier * TIER_STRIDE
        return Priority(base=place - estimate(view), slope=0.0, probe=PROBES_FIRST + place if probe else None)

    def fifo(view: GroupView) -> Priority:
        return Priority(base=view.tier * TIER_STRIDE + view.id.batch * BATCH_STRIDE + view.ordinal)

    def oracle(view: GroupView) -> Priority:
        return Priority(base=view.tier * TIER_STRIDE + ageing * view.enqueued_at, slope=1.0)

    policies = {
        "context-aware": Policy("context-aware", context_aware, _equal),
        "fifo": Policy("fifo", fifo, _equal),
        "longest-first-oracle": Policy("longest-first-oracle", oracle, _longest_first),
        ROUND_ROBIN: Policy(ROUND_ROBIN, fifo, _equal, divided=False),
        LEAST_INFLIGHT: Policy(LEAST_INFLIGHT, fifo, _equal, divided=False),
    }
    return policies[name]


POLICY_NAMES = ("context-aware", "fifo", "longest-first-oracle", ROUND_ROBIN, LEAST_INFLIGHT)


def _equal(_true_length: int) -> float:
    return 0.0


def _longest_first(true_length: int) -> float:
    return -float(true_length)


class Lanes:
    """Binds requests to workers at submission, for the policies that do; one per batch.

    round-robin: each group whole to the next worker. least-inflight: each request to the worker with the fewest
    submitted so far, its group's latest worker where that is one of them. Otherwise: the shared lane.
    """

    def __init__(self, policy_name: str, workers: int) -> None:
        self._policy = policy_name
        self._loads = [0] * workers
        self._least = [(0, worker) for worker in range(workers)]

    def bind(self, ordinal: int, size: int) -> tuple[str, ...]:
        """The lane of each of a group's requests; lanes are named by the worker's number."""
        if self._policy == ROUND_ROBIN:
            return (str(ordinal % len(self._loads)),) * size
        if self._policy == LEAST_INFLIGHT:
            return self._least_inflight(size)
        return (SHARED_LANE,) * size

    def _least_inflight(self, size: int) -> tuple[str, ...]:
        lanes: list[str] = []
        for _ in range(size):
            while self._least[0][0] != self._loads[self._least[0][1]]:
                heapq.heappop(self._least)  # an older count of a worker that has more by now
            load, worker = self._least[0]
            if lanes and self._loads[int(lanes[-1])] == load:
                worker = int(lanes[-1])
            self._loads[worker] += 1
            heapq.heappush(self._least, (load + 1, worker))
            lanes.append(str(worker))
        return tuple(lanes)
