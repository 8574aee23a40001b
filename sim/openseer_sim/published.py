"""Simulates StreamRL as published, and oracles with errors, on the same engine model."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from openseer_core.queue.policy import policy
from openseer_sim.fleet import ModelledFleet
from openseer_sim.outcome import Outcome
from openseer_sim.systems import System, divided_by
from openseer_sim.whole_groups import run_bound
from openseer_sim.work import GroupLengths


def streamrl(fleet: ModelledFleet, groups: Sequence[GroupLengths], _cap: int) -> Outcome:
    """StreamRL with true lengths: assigns groups in descending order of their tokens, each whole group to the instance
    with the fewest tokens so far. No request moves."""
    ordered = sorted(groups, key=lambda group: sum(group.lengths), reverse=True)
    loads = [0] * fleet.instances
    lanes: list[list[int]] = []
    for group in ordered:
        least = loads.index(min(loads))
        loads[least] += sum(group.lengths)
        lanes.append([least] * len(group.lengths))
    return run_bound(fleet, ordered, lanes)


def streamrl_dedicated(fleet: ModelledFleet, groups: Sequence[GroupLengths], _cap: int) -> Outcome:
    """StreamRL with instances reserved for long groups: divides the groups, sorted by their longest response, into one
    sequence per instance with equal use of KV over time (sum of the squares of lengths), so that long responses run in
    small batches."""
    ordered = sorted(groups, key=lambda group: max(group.lengths), reverse=True)
    held = [sum(length * length for length in group.lengths) for group in ordered]
    share, before = sum(held) / fleet.instances, 0
    lanes: list[list[int]] = []
    for group, own in zip(ordered, held, strict=True):
        lanes.append([min(fleet.instances - 1, int((before + own / 2) / share))] * len(group.lengths))
        before += own
    return run_bound(fleet, ordered, lanes)


def oracle_with_error(chunk: int, error: float, seed: int = 0) -> System:
    """Longest first by erroneous lengths, which are true lengths times a random factor. `error`: standard deviation of
    the factor's logarithm."""
    product = policy("longest-first-oracle")
    chance = random.Random(seed)

    def bias(true_length: int) -> float:
        return -true_length * math.exp(chance.gauss(0.0, error))

    return divided_by(replace(product, bias=bias), chunk)
