"""Whether a fetch is worth its wait: how fast contexts come from the pool, and how fast the engine computes them."""

COUNTED_TOKENS = 128
"""A step of fewer tokens says nothing of how fast contexts are computed."""
KEPT = 0.7
"""Part of what is known that stays with each new measurement."""
TRIAL_EVERY = 16
"""While computing is faster, one in so many contexts is fetched all the same: the pool may be fast again."""


class _Rate:
    """Tokens over seconds of the latest measurements; long ones count for more."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self._tokens = KEPT * self._tokens + tokens
        self._seconds = KEPT * self._seconds + max(seconds, 1e-6)

    @property
    def value(self) -> float | None:
        """Tokens per second; None while nothing is known."""
        return self._tokens / self._seconds if self._seconds else None


class Rates:
    """The speed of both."""

    def __init__(self) -> None:
        self._fetching, self._computing = _Rate(), _Rate()
        self._step_tokens, self._step_at = 0, 0.0
        self._refused = 0

    def step(self, tokens: int, now: float) -> None:
        """The engine begins a step of so many tokens; the one before has ended by now."""
        if self._step_tokens >= COUNTED_TOKENS:
            self._computing.add(self._step_tokens, now - self._step_at)
        self._step_tokens, self._step_at = tokens, now

    def fetched(self, tokens: int, seconds: float) -> None:
        """A context of so many tokens came, after so long, its wait for others included."""
        self._fetching.add(tokens, seconds)

    def worth_a_fetch(self) -> bool:
        """Whether the next context should be fetched; asked once for each."""
        fetching, computing = self._fetching.value, self._computing.value
        if fetching is None or computing is None or fetching >= computing:
            return True
        self._refused += 1
        return self._refused % TRIAL_EVERY == 0
