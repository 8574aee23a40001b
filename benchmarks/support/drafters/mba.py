"""The draft lengths of the Seer paper: marginal-benefit-aware, one length for probes and one for the rest."""

from support.drafters.replay import Row, StepTime

MOST_TOKENS = 8
PREFERENCE = 2.0
"""Factor by which the benefit of a token of another request must exceed that of a probe's token."""
_FORGET = 0.999
"""Factor of the counts per measured draft."""
_TRY_EVERY = 32
"""Period of steps with the greatest drafts, without which some positions are never measured (open in the paper)."""


class MarginalBenefit:
    """Measures the acceptance of each position of a draft, and divides a budget of tokens accordingly.

    As the paper prints it, the benefit of a further token is the drop of acceptance from one position to the next;
    `beta[0]`, which the paper does not define, is 1. With `marginal` the benefit is as the paper's text describes it:
    the expected accepted tokens, which is the product of the acceptances up to the position.
    """

    def __init__(self, model: StepTime, *, marginal: bool = False) -> None:
        self._model, self._marginal = model, marginal
        self._steps = 0
        self._tried = [1.0] * (MOST_TOKENS + 2)
        self._right = [0.5] * (MOST_TOKENS + 2)

    def limits(self, rows: list[Row]) -> list[int]:
        """γ of each row: probes are the first request of each group."""
        self._steps += 1
        if self._steps % _TRY_EVERY == 0:
            return [MOST_TOKENS] * len(rows)
        probes = sum(row.index == 0 for row in rows)
        for_probes, for_rest = self._split(probes, len(rows) - probes)
        return [for_probes if row.index == 0 else for_rest for row in rows]

    def learn(self, drafted: int, accepted: int) -> None:
        """Takes the outcome of one draft: the first `accepted` positions were right, and the next one was not."""
        for position in range(1, min(drafted, accepted + 1, MOST_TOKENS) + 1):
            self._tried[position] = _FORGET * self._tried[position] + 1
            self._right[position] = _FORGET * self._right[position] + (position <= accepted)

    def _beta(self, position: int) -> float:
        if position == 0:
            return 1.0
        return self._right[position] / self._tried[position] if position <= MOST_TOKENS else 0.0

    def _benefit(self, length: int) -> float:
        if not self._marginal:
            return self._beta(length) - self._beta(length + 1)
        product = 1.0
        for position in range(1, length + 2):
            product *= self._beta(position)
        return product

    def _split(self, probes: int, rest: int) -> tuple[int, int]:
        rows = probes + rest
        length = min(range(MOST_TOKENS + 1), key=lambda length: self._seconds_per_token(rows, length))
        budget = length * rows
        if budget < rows:
            return 0, 0
        for_probes, for_rest = 1, 0
        left = budget - probes
        while left > 0:
            of_probe, of_rest = probes * self._benefit(for_probes), rest * self._benefit(for_rest)
            if of_probe > PREFERENCE * of_rest and for_probes < MOST_TOKENS and left >= max(1, probes):
                for_probes += 1
                left -= probes
            elif rest > 0 and for_rest < MOST_TOKENS and left >= rest:
                for_rest += 1
                left -= rest
            else:
                break
        return for_probes, for_rest

    def _seconds_per_token(self, rows: int, length: int) -> float:
        """T_SD of the paper; drafting itself costs nothing here."""
        alpha = min(0.999, sum(self._right[1:-1]) / sum(self._tried[1:-1]))
        return (1 - alpha) * self._model.seconds(rows * (1 + length)) / (1 - alpha ** (length + 1))
