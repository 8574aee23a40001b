"""KV blocks: how many a response takes, so that what is admitted always fits."""

from bisect import bisect_right
from dataclasses import dataclass

from openseer_core.json_model import INT32_MAX

UNLIMITED = INT32_MAX
"""Stands for no limit to a number of blocks."""


def blocks_for(tokens: int, block_tokens: int) -> int:
    """Whole blocks that `tokens` tokens take."""
    return -(-tokens // block_tokens)


@dataclass(frozen=True, slots=True)
class KvGroup:
    """`count` groups of a model's layers that hold a request's tokens alike, each in blocks of its own.

    A group takes `fixed` blocks for the request, and one for each `block_tokens` tokens, but of these at most `most`,
    for attention that looks back over a window frees what it has passed; and at most `most_computing` while the engine
    computes a context, of which a step writes many tokens before any is freed.
    """

    block_tokens: int
    count: int = 1
    fixed: int = 0
    most: int = UNLIMITED
    most_computing: int = UNLIMITED

    def blocks(self, tokens: int, computing: int) -> int:
        """See KvLayout.blocks."""
        held = max(self.most, min(blocks_for(computing, self.block_tokens), self.most_computing))
        return self.count * (self.fixed + min(blocks_for(tokens, self.block_tokens), held))


@dataclass(frozen=True, slots=True)
class KvLayout:
    """How an engine holds the tokens of a request. All groups take their blocks from one pool."""

    groups: tuple[KvGroup, ...]

    def blocks(self, tokens: int, computing: int) -> int:
        """The most blocks that a request holds until it has so many tokens, prompt included.

        `computing`: the length of the context that the engine has to compute first; 0 once it generates.
        """
        return sum(group.blocks(tokens, computing) for group in self.groups)

    def tokens(self, blocks: int, most: int) -> int:
        """How many tokens, up to `most`, a request may have where there are so many blocks; it may be moved there
        shortly before its end, so all are computed."""
        return bisect_right(range(1, most + 1), blocks, key=lambda tokens: self.blocks(tokens, tokens))


def whole(block_tokens: int) -> KvLayout:
    """The layout of full attention: one group, which holds every token."""
    return KvLayout((KvGroup(block_tokens),))


LARGEST_SIZE = 24
"""No request has 2^25 tokens: they would take 128 MiB."""


def size_of(tokens: int) -> int:
    """The power of two at or below so many tokens: groups of one size wait in a set of their own, too."""
    return min(max(1, tokens).bit_length() - 1, LARGEST_SIZE)


def sizes_below(tokens: int) -> range:
    """Sizes of which some have fewer tokens."""
    return range(size_of(tokens - 1) + 1 if tokens > 1 else 0)


def sizes_to_claim(blocks: int, layout: KvLayout, context_tokens: int, *, ends: bool) -> list[int]:
    """Sizes of which some may fit a worker with so many free blocks; and those past its context, if it ends them."""
    fitting = [size for size in sizes_below(context_tokens) if layout.blocks(2**size, 2**size) <= blocks]
    return fitting + [size for size in range(size_of(context_tokens), LARGEST_SIZE + 1) if ends and size not in fitting]


@dataclass(frozen=True, slots=True)
class Footprint:
    """What one response takes: prompt, tokens so far, and up to `horizon` tokens of response promised to it.

    `longest`: the response's own end (max_tokens or the context's). `margin`: tokens that may be generated
    beyond the horizon before the next decision, drafts included. `computing`: as in KvLayout.blocks.
    """

    prompt_tokens: int
    generated: int
    horizon: int
    longest: int
    margin: int
    computing: int

    def blocks(self, layout: KvLayout) -> int:
        """Blocks reserved for it."""
        promised = max(self.generated, min(self.horizon, self.longest)) + self.margin
        return layout.blocks(self.prompt_tokens + min(promised, self.longest), self.computing)
