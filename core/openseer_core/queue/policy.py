"""Policies: pure functions that compute a group's priority from its facts (`GroupView`).

A policy computes the `priority` of a group (again after each change of its view) and the `bias` of a request within its
group (once, at submission). Some policies also assign requests to workers (see placement). The store computes the
scores from these numbers and sorts. The lowest score goes first.
"""

from collections.abc import Callable
from dataclasses import dataclass

from openseer_core.manifest.fleet import BINDING_POLICIES, LEAST_INFLIGHT, ROUND_ROBIN, RolloutSpec
from openseer_core.queue.group import GroupView, Priority
from openseer_core.queue.length_estimate import longest_possible

BATCH_STRIDE = 2.0**25
"""Score distance of two successive batches of a tier: larger than the differences of scores within a batch, and small
enough for 59 million batches in a tier. So requests of older batches go first, and newer batches use the capacity that
these leave. Only ageing can spread the scores of one batch further; it favours the older groups, too."""

MOST_COUNTED = 2**23
"""A policy counts a longer length as this many tokens. Without this limit a huge max_tokens would outweigh BATCH_STRIDE
or PROBES_FIRST."""

PROBES_FIRST = -(2.0**24)
"""Added to the score of a waiting probe: lower than every other score of its batch."""

TIER_STRIDE = 2e15
"""Score distance of two tiers. For all six tiers (those of TIERS, and each + RESERVE) scores stay below 2^53, so a
double represents each whole token exactly."""

TIERS = {"high": -2, "normal": 0, "low": 2}
"""Tier by priority of a batch; the lowest goes first. The odd tiers are those of reserve groups."""

RESERVE = 1
"""Added to the tier of a reserve group: it runs only when no request of an ordinary group of its priority waits,
whatever the batch."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One named way to order and place requests. Build it with `policy(...)`."""

    name: str
    priority: Callable[[GroupView], Priority]
    bias: Callable[[int], float]
    """Computes a request's bias (its own term of the score) from its true length in tokens, 0 if unknown."""

    @property
    def divided(self) -> bool:
        """Whether running requests may move: for a request with a lower score, for balance, or to a faster worker.

        False for the policies that assign requests to workers.
        """
        return self.name not in BINDING_POLICIES


def policy(name: str, *, probe: bool = True, ageing: float = 0.0) -> Policy:
    """The policy that a manifest calls `name`.

    `probe`: whether a group's first request goes first (context-aware, seer). `ageing`: for each second that a group
    was submitted earlier its score is lower by this many tokens (context-aware, longest-first-oracle). All policies
    order by tier, then by the age of the batch. Raises KeyError for an unknown name.
    """

    def batch_place(view: GroupView) -> float:
        return view.tier * TIER_STRIDE + view.batch_ordinal * BATCH_STRIDE

    def context_aware(view: GroupView) -> Priority:
        place = batch_place(view) + ageing * view.enqueued_at
        possible = min(longest_possible(view), MOST_COUNTED)
        return Priority(base=place - possible, slope=1.0, probe=PROBES_FIRST + place if probe else None)

    def seer(view: GroupView) -> Priority:
        place = batch_place(view)
        known = min(view.longest_finished or view.max_tokens, MOST_COUNTED)
        return Priority(base=place - known, probe=PROBES_FIRST + place if probe else None)

    def fifo(view: GroupView) -> Priority:
        return Priority(base=batch_place(view) + view.ordinal)

    def oracle(view: GroupView) -> Priority:
        return Priority(base=batch_place(view) + ageing * view.enqueued_at, slope=1.0)

    policies = {
        "context-aware": Policy("context-aware", context_aware, _equal),
        "seer": Policy("seer", seer, _equal),
        "fifo": Policy("fifo", fifo, _equal),
        "longest-first-oracle": Policy("longest-first-oracle", oracle, _longest_first),
        ROUND_ROBIN: Policy(ROUND_ROBIN, fifo, _equal),
        LEAST_INFLIGHT: Policy(LEAST_INFLIGHT, fifo, _equal),
    }
    return policies[name]


def policy_of(rollout: RolloutSpec) -> Policy:
    """The policy of spec.rollout of a manifest."""
    return policy(rollout.policy, probe=rollout.probe, ageing=rollout.ageing_tokens_per_second)


def _equal(_true_length: int) -> float:
    return 0.0


def _longest_first(true_length: int) -> float:
    return -float(min(true_length, MOST_COUNTED))
