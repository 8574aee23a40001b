"""Whether weights are the publisher's: log-probabilities of one sequence, scored by both sides, must agree."""

from collections.abc import Sequence
from math import isfinite

from openseer_core.wire_fleet import Canary

CANARY_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.15, "float16": 0.02}
"""Greatest allowed difference of a log-probability by the engine's number format, where the publisher states none."""


def canary_difference(canary: Canary, scored: Sequence[float]) -> float:
    """The greatest absolute difference; infinite when it cannot be told."""
    if len(scored) != len(canary.logprobs):
        return float("inf")
    differences = [abs(one - other) for one, other in zip(scored, canary.logprobs, strict=True)]
    return max(differences) if all(isfinite(one) for one in differences) else float("inf")


def canary_tolerance(canary: Canary, dtype: str) -> float:
    """What the publisher allows, else what the number format does; an unknown format is taken for the coarsest."""
    return canary.tolerance or CANARY_TOLERANCE.get(dtype, max(CANARY_TOLERANCE.values()))
