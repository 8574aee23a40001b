"""How often drafts come true, by position: what benchmarks/drafting.py found."""

SOURCE = "python benchmarks/drafting.py --positions, 2026-11-27 (benchmarks/results/2026-11-27-draft-positions.json)"
MOST = 8
"""Drafts of at most so many tokens are measured."""
GROUPED = (0.437, 0.317, 0.2, 0.128, 0.089, 0.059, 0.035, 0.023)
"""Chance that a draft and all before it come true, with 15 siblings known, made-up groups as alike as the paper's:
2.29 tokens a step (the paper's: 2.53). What was not drafted counts as not come true."""
PROMPT_LOOKUP = (0.115, 0.093, 0.08, 0.068, 0.059, 0.052, 0.045, 0.039)
"""The same of vLLM's `ngram` (2 to 5 tokens looked up) on the same texts: 1.55 tokens a step."""


def tokens_a_step(rates: tuple[float, ...], drafts: int) -> float:
    """Tokens that a request gains on average in a step that verifies so many drafts of it."""
    return 1.0 + sum(rates[:drafts])
