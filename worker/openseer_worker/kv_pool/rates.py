"""Decides whether to fetch or to compute a context, by the measured speeds of both."""

COUNTED_TOKENS = 128
"""Least number of tokens in a step that measures the engine's prefill speed."""
KEPT = 0.7
"""Factor of the earlier measurements' weight at each new one."""
TRIAL_EVERY = 16
"""While computing is faster, one in this many contexts is still fetched, to detect a pool that is faster again."""


class _Rate:
    """Tokens per second over the latest measurements, weighted by duration."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        self._tokens = KEPT * self._tokens + tokens
        self._seconds = KEPT * self._seconds + max(seconds, 1e-6)

    @property
    def value(self) -> float | None:
        """Tokens per second; None before the first measurement."""
        return self._tokens / self._seconds if self._seconds else None


class Rates:
    """The speeds of fetching and of computing contexts."""

    def __init__(self) -> None:
        self._fetching, self._computing = _Rate(), _Rate()
        self._step_tokens, self._step_at = 0, 0.0
        self._refused = 0

    def step(self, tokens: int, now: float) -> None:
        """Notes the start of a step of `tokens` tokens at `now`, in seconds; the step before ends at that time."""
        if self._step_tokens >= COUNTED_TOKENS:
            self._computing.add(self._step_tokens, now - self._step_at)
        self._step_tokens, self._step_at = tokens, now

    def fetched(self, tokens: int, seconds: float) -> None:
        """Notes a fetched context of `tokens` tokens; `seconds` include its wait for other fetches."""
        self._fetching.add(tokens, seconds)

    def worth_a_fetch(self) -> bool:
        """Decides whether to fetch the next context; to be called once per context, since it counts refusals."""
        fetching, computing = self._fetching.value, self._computing.value
        if fetching is None or computing is None or fetching >= computing:
            return True
        self._refused += 1
        return self._refused % TRIAL_EVERY == 0
