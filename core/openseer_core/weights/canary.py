"""The canary: a sequence that publisher and workers both score; scores that differ show that the weights differ."""

from collections.abc import Sequence
from math import isfinite

from openseer_core.weights.publish import Canary

CANARY_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.3, "float16": 0.05}
"""Greatest allowed difference, by the engine's number format, if the publisher states none.

Differences measured on the tiny model against a forward pass in fp32: fp32 0.0001; bf16 0.05 on its own responses and
0.22 on random tokens, with log-probabilities down to -42.
"""


def canary_difference(canary: Canary, scored: Sequence[float]) -> float:
    """The greatest difference between a worker's scores and the publisher's; infinity if the numbers of scores differ
    or a score is not finite.

    For log-probabilities below -1 the difference is relative to the publisher's value, because rounding errors of a
    number format are relative: the error of an improbable token's log-probability grows with its size.
    """
    if len(scored) != len(canary.logprobs):
        return float("inf")
    pairs = zip(scored, canary.logprobs, strict=True)
    differences = [abs(scored_value - published) / max(1.0, abs(published)) for scored_value, published in pairs]
    return max(differences) if all(isfinite(difference) for difference in differences) else float("inf")


def canary_tolerance(canary: Canary, dtype: str) -> float:
    """The publisher's limit; if it states none, that of the number format, the largest for an unknown format."""
    return canary.tolerance or CANARY_TOLERANCE.get(dtype, max(CANARY_TOLERANCE.values()))
