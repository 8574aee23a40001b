"""The number of KV blocks that a response needs. A worker admits a response only if its blocks are free."""

from bisect import bisect_right
from dataclasses import dataclass

from openseer_core.json_model import INT32_MAX

UNLIMITED = INT32_MAX
"""Value of a limit of blocks if there is no limit."""


def blocks_for(tokens: int, block_tokens: int) -> int:
    """The number of whole blocks for `tokens` tokens."""
    return -(-tokens // block_tokens)


@dataclass(frozen=True, slots=True)
class KvGroup:
    """`count` KV-cache groups (vLLM) with the same block size and window.

    Each takes `fixed` blocks per request and, in addition, one block per `block_tokens` tokens. `most`: limit of these
    additional blocks during decode (sliding-window attention frees the blocks behind the window); `most_computing`:
    their limit during prefill, where one step writes many tokens before blocks are freed.
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
    """The layout of a request's tokens in an engine. All groups take their blocks from one pool."""

    groups: tuple[KvGroup, ...]

    def blocks(self, tokens: int, computing: int) -> int:
        """The largest number of blocks that a request holds at any time up to `tokens` tokens, prompt included.

        `computing`: length of the context that the engine must compute first, in tokens; 0 once it generates.
        """
        return sum(group.blocks(tokens, computing) for group in self.groups)

    def tokens(self, blocks: int, most: int) -> int:
        """The length of the largest context, at most `most` tokens, that fits into `blocks` blocks.

        Assumes that all of it is prefilled (the worst case after a move).
        """
        return bisect_right(range(1, most + 1), blocks, key=lambda tokens: self.blocks(tokens, tokens))


def whole(block_tokens: int) -> KvLayout:
    """The layout of full attention: one group, which contains every token."""
    return KvLayout((KvGroup(block_tokens),))


LARGEST_SIZE = 24
"""The largest size class: contexts of 2^24 tokens or more. Contexts of 2^25 tokens do not occur in practice: their
int32 ids alone would take 128 MiB."""


def size_of(tokens: int) -> int:
    """The size class of a context: the exponent of the largest power of two not above `tokens`, up to LARGEST_SIZE.

    Each lane also has one sorted set of groups per size class.
    """
    return min(max(1, tokens).bit_length() - 1, LARGEST_SIZE)


def sizes_below(tokens: int) -> range:
    """The size classes that contain contexts of fewer than `tokens` tokens."""
    return range(size_of(tokens - 1) + 1 if tokens > 1 else 0)


def sizes_to_claim(blocks: int, layout: KvLayout, context_tokens: int, *, ends: bool) -> list[int]:
    """The size classes that a claim searches.

    These are the classes of which the smallest context fits into `blocks` free blocks and is below `context_tokens`.
    With `ends` also the classes with contexts of at least `context_tokens` tokens: the worker ends such requests, which
    needs no blocks.
    """
    fitting = [size for size in sizes_below(context_tokens) if layout.blocks(2**size, 2**size) <= blocks]
    return fitting + [size for size in range(size_of(context_tokens), LARGEST_SIZE + 1) if ends and size not in fitting]


@dataclass(frozen=True, slots=True)
class Footprint:
    """The KV use of one request: its prompt, and its response up to `horizon` tokens plus `margin`, at most `longest`.

    `horizon` is a number of tokens from the beginning of the response; if the response has more, `generated` is used in
    its place. `margin`: tokens that may be generated beyond the horizon before the next decision, drafts included.
    `longest`: upper limit of the response in tokens, by max_tokens and by the context. `computing`: as in
    KvLayout.blocks.
    """

    prompt_tokens: int
    generated: int
    horizon: int
    longest: int
    margin: int
    computing: int

    def blocks(self, layout: KvLayout) -> int:
        """The number of blocks to reserve for it."""
        promised = max(self.generated, min(self.horizon, self.longest)) + self.margin
        return layout.blocks(self.prompt_tokens + min(promised, self.longest), self.computing)
