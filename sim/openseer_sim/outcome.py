"""The result of a simulated rollout."""

from dataclasses import dataclass, field

from openseer_core.queue.batch import tail_start


@dataclass(slots=True)
class Outcome:
    """The result. `ends`: seconds at which each response ended; `busy`: seconds in which each instance ran a response.

    `tokens`: tokens of all responses; `computed`: computed tokens of context, prompts included; `computed_again`: the
    part of `computed` that belongs to responses; `moves`: number of returns to the queue; `preemptions`: number of
    preemptions by engines; `claims`: (request, instance), in order.
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
        """Seconds of the whole rollout."""
        return max(self.ends)

    @property
    def tail_seconds(self) -> float:
        """Seconds in which only the last tenth of the responses ran (Seer, section 5)."""
        return self.seconds - tail_start(sorted(self.ends))

    @property
    def idle(self) -> float:
        """Share of all instances' time without a response."""
        return 1 - sum(self.busy) / (len(self.busy) * self.seconds)

    @property
    def throughput(self) -> float:
        """Tokens of responses per second."""
        return self.tokens / self.seconds
