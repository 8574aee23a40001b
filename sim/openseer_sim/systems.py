"""Defines the systems that studies compare, all on the same engine model."""

from collections.abc import Callable, Sequence

from openseer_core.manifest.fleet import PolicyName, RolloutSpec
from openseer_core.queue.placement import Lanes
from openseer_core.queue.policy import Policy
from openseer_sim.divided import DividedRollout
from openseer_sim.fleet import ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.whole_groups import run_bound
from openseer_sim.work import GroupLengths

System = Callable[[ModelledFleet, Sequence[GroupLengths], int], Outcome]
"""A function from a fleet, groups and the token limit of a response to the outcome."""

OURS: PolicyName = "context-aware"
"""The policy that the product recommends."""


def bound_by(policy: str) -> System:
    """A system that assigns requests at submission: round-robin (each whole group to the next instance, as in veRL), or
    least-inflight (each request to the instance with the fewest requests so far)."""

    def system(fleet: ModelledFleet, groups: Sequence[GroupLengths], cap: int) -> Outcome:
        lanes = Lanes(policy, fleet.instances)
        bound = [[int(lane) for lane in lanes.bind(n, len(group.lengths))] for n, group in enumerate(groups)]
        return run_bound(fleet, groups, bound)

    return system


def divided_by(policy: PolicyName | Policy, quantum: int) -> System:
    """Divided rollout under a policy: a name of a manifest's policy, or any other Policy. `quantum`: in tokens."""
    own, name = (policy, OURS) if isinstance(policy, Policy) else (None, policy)
    rollout = RolloutSpec(policy=name, quantum_tokens=quantum)

    def system(fleet: ModelledFleet, groups: Sequence[GroupLengths], cap: int) -> Outcome:
        return DividedRollout(fleet, groups, cap, rollout, own).run()

    return system
