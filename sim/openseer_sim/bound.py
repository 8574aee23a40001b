"""Computes a lower bound of the time of a rollout, for every order of its responses."""

from collections.abc import Sequence

from openseer_sim.fleet import ModelledFleet
from openseer_sim.work import GroupLengths, tokens_of

BOUND = "bound"
"""The bound's name in tables."""


def least_seconds(fleet: ModelledFleet, groups: Sequence[GroupLengths]) -> float:
    """The bound without drafts, in seconds: the larger of two times. First, the time if all instances work to the end,
    with steps as full as slots and KV cache allow; second, the time of the slowest response if it runs alone.

    The bound holds if a step of twice the tokens takes at most twice as long, and the time of a step is convex in its
    tokens, as for a decoder.
    """
    tokens = tokens_of(groups)
    read = sum(length * (group.prompt + length / 2) for group in groups for length in group.lengths)
    prompts = sum(group.prompt for group in groups)
    steps = max(tokens / fleet.slots, read / fleet.kv_tokens)
    together = steps * fleet.step.base(tokens / steps) + fleet.step.per_context * read
    together += prompts * fleet.step.per_prefill
    alone = max(_alone(fleet, group.prompt, length) for group in groups for length in group.lengths)
    return max(together / fleet.instances, alone)


def _alone(fleet: ModelledFleet, prompt: int, length: int) -> float:
    step = fleet.step
    return length * step.base(1) + step.per_context * length * (prompt + length / 2) + prompt * step.per_prefill
