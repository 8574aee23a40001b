"""Computes log-probabilities of prompts in pieces, in the model runner that drafts (V1).

That runner allocates the logits of all tokens of a step at once, in float32, which its measurement of the engine's
memory does not cover: some GB with a large vocabulary. The V2 runner works in pieces of as many tokens by itself.
"""

from typing import Any

PIECE_TOKENS = 1024
"""Limit of tokens of one request whose logits exist at a time."""


def score_in_pieces(runner: Any, most: int = PIECE_TOKENS) -> None:
    """Makes vLLM's model runner compute prompt log-probabilities for at most `most` tokens of a request at once."""
    compute = runner._get_prompt_logprobs_dict

    def in_pieces(hidden_states: Any, num_scheduled_tokens: dict[str, int]) -> dict[str, Any]:
        """`hidden_states`: [tokens of the step, width], those of a request in one stretch."""
        counts = {key: num_scheduled_tokens[key] for key in runner.num_prompt_logprobs if key in num_scheduled_tokens}
        found: dict[str, Any] = {}
        for start in range(0, max(counts.values(), default=0), most):
            piece = {key: min(count - start, most) for key, count in counts.items() if count > start}
            # Tokens before the piece count as computed, and their hidden states are left out.
            for key in piece:
                runner.requests[key].num_computed_tokens += start
            found |= compute(hidden_states[start:], piece)
            for key in piece:
                runner.requests[key].num_computed_tokens -= start
        return found

    runner._get_prompt_logprobs_dict = in_pieces
