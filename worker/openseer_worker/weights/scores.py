"""Checks that the scores (log-probabilities) of an engine's tokens are finite; otherwise a response has failed.

A sampled token always has a finite score. NaN: its logits contain NaN or infinity. -inf: the token has no probability,
so it cannot have been sampled; topK, topP, minP and minTokens exclude the tokens that they mask. Appended tokens are
not sampled; their score in the store is 0.
"""

from collections.abc import Sequence

from openseer_core.errors import LoadError
from openseer_core.token_scores import own_scores
from openseer_core.tokens import first_not_finite, unpack_logprobs
from openseer_worker.engine import EngineOutput


def first_wrong(output: EngineOutput) -> tuple[int, str] | None:
    """Returns the index of the output's first token without a finite score, and its score as text; None if all scores
    are finite.

    For an output without log-probabilities the index is its `unscored`.
    """
    if output.unscored is not None:
        return output.unscored, "NaN in its logits"
    if not output.logprobs:
        return None
    values = unpack_logprobs(own_scores(output.tokens, output.logprobs))
    place = first_not_finite(values)
    return None if place is None else (place, _named(values[place]))


def wrong_score(place: int, found: str, weights: str, dtype: str) -> str:
    """Returns the message about token `place` (of the response, or of the scored tokens) without a finite score."""
    return (
        f"token {place}: found {found}, allowed: a finite number; {weights} are damaged, or their values too large for "
        f"{dtype}: publish others, or set spec.model.dtype"
    )


def check_finite(scored: Sequence[float], what: str, dtype: str) -> None:
    """Raises LoadError, with a message that begins with `what`, if a score is not finite. `scored`: of a sequence's
    tokens, from the second on."""
    place = first_not_finite(scored)
    if place is not None:
        raise LoadError(f"{what}: {wrong_score(place + 1, _named(scored[place]), 'the weights', dtype)}")


def _named(value: float) -> str:
    return f"log-probability {value}"
