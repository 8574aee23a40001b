"""Seeds of a response: each position from which an engine continues it gets one of its own."""

from hashlib import blake2b

_SEED_BITS = 63


def derive_seed(seed: int, group: str, index: int, position: int) -> int:
    """The engine's seed for response `index` of `group`, taken up after `position` tokens.

    An engine starts its generator anew when it is given a seed. With the same seed after a move, the response would
    repeat the same draws; so the position is a part of it. Stable over machines and releases.
    """
    text = f"{seed}\x1f{group}\x1f{index}\x1f{position}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> (64 - _SEED_BITS)
