"""Scores (log-probabilities) are finite, or their response has failed: here those that an engine gives are looked at.

Of a token that was sampled no other value is right. NaN: its logits hold NaN or infinity. -inf: it was drawn from a
distribution that does not have it, for what topK, topP, minP and minTokens mask has no chance to be drawn. Appended
tokens are not sampled; the store gives them 0.
"""

from collections.abc import Sequence

from openseer_core.errors import LoadError
from openseer_core.token_scores import own_scores
from openseer_core.tokens import first_not_finite, unpack_logprobs
from openseer_worker.engine import EngineOutput


def first_wrong(output: EngineOutput) -> tuple[int, str] | None:
    """The place of the first of the output's tokens that has no finite score, and what it has; None when all have one.

    `unscored` says it of a response that records none.
    """
    if output.unscored is not None:
        return output.unscored, "NaN in its logits"
    if not output.logprobs:
        return None
    values = unpack_logprobs(own_scores(output.tokens, output.logprobs))
    place = first_not_finite(values)
    return None if place is None else (place, _named(values[place]))


def wrong_score(place: int, found: str, weights: str, dtype: str) -> str:
    """What is said of token `place` (of the response, or of what was scored) that has no finite score."""
    return (
        f"token {place}: found {found}, allowed: a finite number; {weights} are damaged, or their values too large for "
        f"{dtype}: publish others, or set spec.model.dtype"
    )


def check_finite(scored: Sequence[float], what: str, dtype: str) -> None:
    """Raises LoadError when a score of a sequence's tokens, from the second one on, is not finite. `what`: was done."""
    place = first_not_finite(scored)
    if place is not None:
        raise LoadError(f"{what}: {wrong_score(place + 1, _named(scored[place]), 'the weights', dtype)}")


def _named(value: float) -> str:
    return f"log-probability {value}"
