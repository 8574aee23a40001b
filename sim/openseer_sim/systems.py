"""The systems that are compared, each on the same engine model."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from openseer_core.manifest.fleet import PolicyName, RolloutSpec
from openseer_core.queue.placement import Lanes
from openseer_sim.divided import DividedRollout
from openseer_sim.fleet import ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.whole_groups import run_bound
from openseer_sim.work import GroupLengths

System = Callable[[ModelledFleet, Sequence[GroupLengths], int], Outcome]
"""From a fleet, groups and the most tokens of a response to what came of it."""


def bound_by(policy: str) -> System:
    """Requests bound at submission: round-robin (each group whole to the next instance, as veRL does), or
    least-inflight (each request to the instance with the fewest)."""

    def system(fleet: ModelledFleet, groups: Sequence[GroupLengths], cap: int) -> Outcome:
        lanes = Lanes(policy, fleet.instances)
        bound = [[int(lane) for lane in lanes.bind(n, len(group.lengths))] for n, group in enumerate(groups)]
        return run_bound(fleet, groups, bound)

    return system


def divided_by(policy: PolicyName, quantum: int) -> System:
    """Divided rollout under a policy of the product; `quantum` in tokens."""

    def system(fleet: ModelledFleet, groups: Sequence[GroupLengths], cap: int) -> Outcome:
        rollout = RolloutSpec(policy=policy).model_copy(update={"quantum_tokens": max(1, quantum // fleet.block)})
        return DividedRollout(fleet, groups, cap, rollout).run()

    return system


def without_drafts(system: System) -> System:
    """The same, whatever drafts the fleet has."""

    def plain(fleet: ModelledFleet, groups: Sequence[GroupLengths], cap: int) -> Outcome:
        return system(replace(fleet, drafts=None), groups, cap)

    return plain
