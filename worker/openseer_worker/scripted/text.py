"""The scripted engine's tokens, log-probabilities and lengths: pure functions of a response's group and index."""

from functools import cache, lru_cache
from hashlib import blake2b
from math import exp
from statistics import NormalDist

from openseer_core.manifest.job import Sampling
from openseer_core.queue.states import FinishReason
from openseer_core.tokens import (
    ITEM_BYTES,
    count_items,
    pack_logprobs,
    pack_tokens,
    unpack_logprobs,
    unpack_tokens,
)
from openseer_worker.engine import EngineRequest

VOCABULARY = 50021
"""A prime above all token ids. No token id recurs within this number of positions, so tests detect a lost or doubled
token."""

_STRIDE = 7919
_LOGPROB_LEVELS = 1009
# Drawn lengths: the median as a share of maxTokens, and the standard deviations of the logarithm between and within
# groups.
_MEDIAN_PART = 1 / 6
_SPREAD_OF_GROUPS = 0.9
_SPREAD_IN_GROUP = 0.35
_NORMAL = NormalDist()


def scripted_tokens(group: str, index: int, start: int, stop: int) -> bytes:
    """Returns the tokens `start` to `stop` of a response, packed (int32)."""
    return _ring_slice(_token_ring(), _hash(group, index) + start, stop - start)


def scripted_logprobs(group: str, index: int, start: int, stop: int) -> bytes:
    """Returns the log-probabilities of a response's tokens `start` to `stop`, packed (float32): negative, different at
    neighbouring positions."""
    return _ring_slice(_logprob_ring(), _hash(group, index) + start, stop - start)


def recorded(tokens: bytes, logprobs: bytes, sampling: Sampling) -> bytes:
    """Returns the records (core's token_scores) of packed tokens and their log-probabilities, as `sampling` requires.
    The likeliest tokens are the token itself and the next ids."""
    top = sampling.top_logprobs
    if sampling.logprobs == "none" or not top:
        return logprobs if sampling.logprobs != "none" else b""
    records: list[bytes] = []
    for token, value in zip(unpack_tokens(tokens), unpack_logprobs(logprobs), strict=True):
        records += (pack_logprobs([value]), pack_tokens([1]))
        for place in range(top):
            records += (pack_tokens([(token + place) % VOCABULARY]), pack_logprobs([value * (1 + place)]))
    return b"".join(records)


def scripted_scores(content: str, tokens: list[int]) -> list[float]:
    """Returns the log-probabilities of `tokens[1:]` by weights with the digest `content` (see hashing.digest); they
    differ for other weights."""
    prefixes = (f"{content}\x1f{tokens[: end + 1]}".encode() for end in range(1, len(tokens)))
    return [-(int.from_bytes(blake2b(prefix, digest_size=4).digest(), "big") + 1) / 2**28 for prefix in prefixes]


def planned_end(request: EngineRequest, context_tokens: int) -> tuple[int, FinishReason]:
    """Returns the length of the whole response, at least one token, and the reason of its end."""
    if request.sampling.score_from is not None:
        return 1, FinishReason.LENGTH  # one step scores all tokens
    forced = request.true_length > 0 and request.sampling.force_lengths
    if forced:
        length, reason = request.true_length, FinishReason.LENGTH
    else:
        length = max(_own_length(request), request.sampling.min_tokens)
        reason = FinishReason.STOP if length < request.max_tokens else FinishReason.LENGTH
        length = min(length, request.max_tokens)
    room = max(1, context_tokens - len(request.prompt))
    return (room, FinishReason.CONTEXT_FULL) if room < length else (length, reason)


def _own_length(request: EngineRequest) -> int:
    if request.true_length > 0:
        return request.true_length
    if request.sampling.ignore_eos:
        return request.max_tokens
    drawn = drawn_length(request.group, request.index, request.max_tokens)
    # A response that is longer already continues after an environment's turn, by a turn of the same length.
    return drawn if len(request.tokens) < drawn else len(request.tokens) + drawn


def drawn_length(group: str, index: int, max_tokens: int) -> int:
    """Draws a length in tokens from a log-normal distribution. The lengths of a group are similar; a length may exceed
    `max_tokens`."""
    of_group = _NORMAL.inv_cdf(_share(group, -1)) * _SPREAD_OF_GROUPS
    of_response = _NORMAL.inv_cdf(_share(group, index)) * _SPREAD_IN_GROUP
    return max(1, round(max_tokens * _MEDIAN_PART * exp(of_group + of_response)))


def _share(group: str, index: int) -> float:
    """Returns a pseudo-random number of a response between 0 and 1, both excluded."""
    return (_hash(group, index) % 2**32 + 0.5) / 2**32


@lru_cache(maxsize=65536)
def _hash(group: str, index: int) -> int:
    return int.from_bytes(blake2b(f"{group}\x1f{index}".encode(), digest_size=8).digest(), "big")


@cache
def _token_ring() -> bytes:
    return pack_tokens(value * _STRIDE % VOCABULARY for value in range(VOCABULARY))


@cache
def _logprob_ring() -> bytes:
    return pack_logprobs(-(value + 1) / 256 for value in range(_LOGPROB_LEVELS))


def _ring_slice(ring: bytes, start: int, count: int) -> bytes:
    """Returns `count` items of a ring from index `start` on, copied in one operation."""
    begin = start % count_items(ring)
    rounds = -(-(begin + count) // count_items(ring))
    whole = ring if rounds <= 1 else ring * rounds
    return whole[begin * ITEM_BYTES : (begin + count) * ITEM_BYTES]
