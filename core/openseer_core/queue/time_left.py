"""The remaining time of a batch: expected remaining tokens divided by the speed."""

from math import inf

from openseer_core.queue.messages import BatchProgress


def tokens_left(counts: BatchProgress) -> float | None:
    """Expected remaining tokens of the unfinished responses; None while no length is known.

    The expected length of a response is its group's estimate. Without an estimate it is the mean length of the
    responses with status ok, or before the first of these the mean of the estimates.
    """
    unfinished = counts.requests - counts.closed
    if unfinished <= 0:
        return 0.0
    known = min(max(counts.open_known, 0), unfinished)
    if counts.ok_tokens > 0:
        mean = mean_length(counts)
    elif known and counts.open_expected > 0:
        mean = counts.open_expected / known
    else:
        return None
    expected = (max(counts.open_expected, 0) if known else 0) + (unfinished - known) * mean
    return max(0.0, expected - max(0, counts.tokens - counts.closed_tokens))


def seconds_left(left: float | None, tokens_per_second: float, *, unfinished: int, pace: float = inf) -> float | None:
    """Seconds until `left` tokens (the result of tokens_left) are generated; None while `left` or the speed is unknown.

    `unfinished`: number of unfinished responses; `pace`: tokens per second of one response. The speed is at most their
    product: in the tail `tokens_per_second` is too high, because it is an average over a time with more responses.
    None also if `left` is 0 and responses are unfinished: these are longer than expected, and their end is unknown.
    """
    if unfinished <= 0:
        return 0.0
    if not left or tokens_per_second <= 0:
        return None
    return max(left / tokens_per_second, left / unfinished / pace)


def mean_length(counts: BatchProgress) -> float:
    """Mean length of the responses with status ok, in tokens; 0 while there is none."""
    return counts.ok_tokens / counts.ok if counts.ok else 0.0
