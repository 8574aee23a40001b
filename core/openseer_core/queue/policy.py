"""Policies: pure functions from the known facts of a group to its place in the queue.

A policy computes the `priority` of a group (again after each change of its view) and the `bias` of a request within its
group (once, at submission). Some policies also assign requests to workers (see placement). The store only sorts.
"""

from collections.abc import Callable
from dataclasses import dataclass

from openseer_core.manifest.fleet import BINDING_POLICIES, LEAST_INFLIGHT, ROUND_ROBIN, RolloutSpec
from openseer_core.queue.group import GroupView, Priority
from openseer_core.queue.length_estimate import longest_possible

BATCH_STRIDE = 2.0**25
"""Distance in score of two successive batches of a tier: more than any score within one, with room for 30 million
batches. So the oldest open batch goes first, and the next ones use the capacity that it leaves."""

MOST_COUNTED = 2**23
"""Limit of a length in tokens that a policy uses. max_tokens may be larger than any context, and must not move a
request ahead of other batches or of probes."""

PROBES_FIRST = -(2.0**24)
"""Added to the score of a waiting probe: lower than every other score of its batch."""

TIER_STRIDE = 2e15
"""Distance in score of two tiers: more than any score within one. Whole tokens stay exact in a double for all six tiers
(those of TIERS, and each + RESERVE)."""

TIERS = {"high": -2, "normal": 0, "low": 2}
"""The tier of each priority of a batch."""

RESERVE = 1
"""Added to the tier of a group that may run only when no other request of any batch of its priority waits."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One named way to order and place requests. Build it with `policy(...)`."""

    name: str
    priority: Callable[[GroupView], Priority]
    bias: Callable[[int], float]
    """From a request's true length in tokens (0 = unknown) to its bias, its own term of the score, lowest first."""

    @property
    def divided(self) -> bool:
        """Whether a running request may be given back for a better one; policies that assign workers never do so."""
        return self.name not in BINDING_POLICIES


def policy(name: str, *, probe: bool = True, ageing: float = 0.0) -> Policy:
    """The policy called `name` in a manifest.

    ageing: tokens by which the score of a waiting group improves per second of earlier submission.
    All policies order by tier, then by the age of the batch. Raises KeyError for an unknown name.
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
