"""KV blocks: how many a response takes, so that what is admitted always fits."""

from dataclasses import dataclass


def blocks_for(tokens: int, block_tokens: int) -> int:
    """Whole blocks that `tokens` tokens take."""
    return -(-tokens // block_tokens)


def size_of(tokens: int) -> int:
    """The power of two at or below so many tokens: groups of one size wait in a set of their own, too."""
    return max(1, tokens).bit_length() - 1


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one response takes: prompt, tokens so far, and up to `horizon` tokens of response promised to it.

    `longest`: the response's own end (max_tokens or the context's). `margin`: tokens that may be generated
    beyond the horizon before the next decision, drafts included.
    """

    prompt_tokens: int
    generated: int
    horizon: int
    longest: int
    margin: int

    def blocks(self, block_tokens: int) -> int:
        """Blocks reserved for it."""
        promised = max(self.generated, min(self.horizon, self.longest)) + self.margin
        return blocks_for(self.prompt_tokens + min(promised, self.longest), block_tokens)
