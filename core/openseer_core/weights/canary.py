"""The canary: one sequence that publisher and workers both score; equal scores prove equal weights."""

from collections.abc import Sequence
from math import isfinite

from openseer_core.weights.publish import Canary

CANARY_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.05}
"""Limit of the difference by the engine's number format, where the publisher states none.

Measured on the tiny model against a forward pass in fp32: fp32 0.0001; bf16 0.05 on its own responses and 0.22 on
random tokens, with log-probabilities down to -42.
"""


def canary_difference(canary: Canary, scored: Sequence[float]) -> float:
    """The greatest difference, infinite when it is unknown; for log-probabilities below -1, relative to their size.

    A number format has relative errors: the error of an improbable token's log-probability grows with its size.
    """
    if len(scored) != len(canary.logprobs):
        return float("inf")
    pairs = zip(scored, canary.logprobs, strict=True)
    differences = [abs(scored_value - published) / max(1.0, abs(published)) for scored_value, published in pairs]
    return max(differences) if all(isfinite(difference) for difference in differences) else float("inf")


def canary_tolerance(canary: Canary, dtype: str) -> float:
    """The publisher's limit, else that of the number format; an unknown format counts as the coarsest."""
    return canary.tolerance or CANARY_TOLERANCE.get(dtype, max(CANARY_TOLERANCE.values()))
