"""What came of a simulated rollout."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class Outcome:
    """`ends`: seconds at which each response ended; `busy`: seconds in which each instance ran anything.

    `tokens`: of all responses; `computed`: tokens of context that were computed, prompts included, of them
    `computed_again` those of responses; `moves`: how often a response went back to go on elsewhere; `preemptions`:
    responses that an engine threw out; `claims`: which request went to which instance, in order.
    """

    ends: list[float]
    busy: list[float]
    tokens: int
    computed: float = 0.0
    computed_again: float = 0.0
    moves: int = 0
    preemptions: int = 0
    claims: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    @property
    def seconds(self) -> float:
        """Of the whole rollout."""
        return max(self.ends)

    @property
    def tail_seconds(self) -> float:
        """Time spent on the last tenth of the responses alone (Seer, section 5)."""
        return self.seconds - sorted(self.ends)[max(0, len(self.ends) * 9 // 10 - 1)]

    @property
    def idle(self) -> float:
        """The part of all instances' time in which they ran nothing."""
        return 1 - sum(self.busy) / (len(self.busy) * self.seconds)

    @property
    def throughput(self) -> float:
        """Tokens of responses per second."""
        return self.tokens / self.seconds
