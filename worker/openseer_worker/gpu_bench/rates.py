"""Acceptance rates of draft tokens by position, measured by benchmarks/drafting.py."""

SOURCE = "python benchmarks/drafting.py --positions, 2026-11-27 (benchmarks/results/2026-11-27-draft-positions.json)"
MOST = 8
"""Length of the longest measured draft, in tokens."""
GROUPED = (0.437, 0.317, 0.2, 0.128, 0.089, 0.059, 0.035, 0.023)
"""Probabilities that a draft token and all tokens before it are accepted, with 15 siblings, in synthetic groups as
similar as the paper's: 2.29 tokens per step (the paper's: 2.53). A token that was not drafted counts as not accepted.
"""
PROMPT_LOOKUP = (0.115, 0.093, 0.08, 0.068, 0.059, 0.052, 0.045, 0.039)
"""These probabilities for vLLM's `ngram` (which looks up 2 to 5 tokens) on the same texts: 1.55 tokens per step."""


def tokens_a_step(rates: tuple[float, ...], drafts: int) -> float:
    """Returns the mean number of tokens that a request gets in a step that verifies `drafts` draft tokens."""
    return 1.0 + sum(rates[:drafts])
