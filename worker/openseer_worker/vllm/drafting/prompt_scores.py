"""Computes log-probabilities of prompts in pieces, in the model runner that drafts (V1).

That runner allocates the logits of all tokens of a step at once, in float32: some GB with a large vocabulary, which
vLLM's measurement of the engine's memory does not include. The V2 runner has pieces of the same size itself.
"""

from typing import Any

PIECE_TOKENS = 1024
"""Limit of tokens per request whose logits exist at the same time."""


def score_in_pieces(runner: Any, most: int = PIECE_TOKENS) -> None:
    """Makes vLLM's model runner compute prompt log-probabilities for at most `most` tokens of a request at once."""
    compute = runner._get_prompt_logprobs_dict

    def in_pieces(hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> dict[str, Any]:
        """Computes the log-probabilities of a step's prompts piece by piece. `hidden_states`: [tokens of the step,
        width], the tokens of a request in one stretch."""
        counts = {key: num_scheduled_tokens[key] for key in runner.num_prompt_logprobs if key in num_scheduled_tokens}
        found: dict[str, Any] = {}
        for start in range(0, max(counts.values(), default=0), most):
            piece = {key: min(count - start, most) for key, count in counts.items() if count > start}
            # Tokens before the piece count as computed, and their hidden states are omitted.
            for key in piece:
                runner.requests[key].num_computed_tokens += start
            found |= compute(hidden_states[start:], piece)
            for key in piece:
                runner.requests[key].num_computed_tokens -= start
        return found

    runner._get_prompt_logprobs_dict = in_pieces
