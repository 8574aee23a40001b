"""Models the gain of drafts: accepted tokens per step, by the number of known siblings."""

from bisect import bisect_right
from dataclasses import dataclass

from openseer_sim.engine import StepTime


@dataclass(frozen=True, slots=True)
class DraftModel:
    """The acceptance of drafts. `accepted`: points (known siblings, probability that a drafted token is accepted),
    ascending, linear between them. `longest`: limit of a draft, in tokens."""

    accepted: tuple[tuple[float, float], ...]
    longest: int = 8

    @staticmethod
    def of_lengths(lengths: tuple[tuple[float, float], ...], longest: int = 8) -> "DraftModel":
        """Makes the model from points (known siblings, mean tokens per step with the engine's own) for drafts of
        `longest` tokens."""
        return DraftModel(tuple((known, _probability(tokens, longest)) for known, tokens in lengths), longest)

    def probability(self, known: float) -> float:
        """The probability that a drafted token is accepted with `known` siblings."""
        points = self.accepted
        end = bisect_right(points, known, key=lambda point: point[0])
        if end == 0 or end == len(points):
            return points[max(0, end - 1)][1]
        (left, low), (right, high) = points[end - 1], points[end]
        return low + (high - low) * (known - left) / (right - left)

    def length(self, step: StepTime, running: int, context: float, probability: float) -> int:
        """The draft length with the most tokens per second (Seer, section 3.3), the same for all `running` requests.
        `context`: tokens of all their contexts."""
        reading = step.per_context * context
        return max(
            range(self.longest + 1),
            key=lambda length: tokens_of_step(probability, length) / (step.base(running, running * length) + reading),
        )


def tokens_of_step(probability: float, length: int) -> float:
    """Mean tokens per step with drafts of `length`, including the engine's own token."""
    return (1 - probability ** (length + 1)) / (1 - probability)


def _probability(tokens: float, length: int) -> float:
    low, high = 0.0, 0.9999
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if tokens_of_step(middle, length) < tokens else (low, middle)
    return low
