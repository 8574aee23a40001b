"""How long a batch still takes: the tokens that are expected of its unfinished responses, at the speed that it has."""

from math import inf

from openseer_core.queue.messages import BatchProgress


def tokens_left(counts: BatchProgress) -> float | None:
    """Tokens that the unfinished responses are expected to gain; None while no length is known.

    A response is expected to be as long as its group's estimate says. Where nothing of a group is known it is the mean
    of what is known: of the whole responses, else of the estimates.
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


def seconds_left(
    left: float | None, tokens_per_second: float, *, unfinished: int = 1, pace: float = inf
) -> float | None:
    """`left`: of tokens_left. None while it or the speed is unknown.

    `unfinished`, `pace`: how many responses that is, and the tokens per second that one gains. With a speed that is not
    of late, the few that are left in the tail would otherwise count as if as many ran as before.
    """
    if left is None or (left and tokens_per_second <= 0):
        return None
    return max(left / tokens_per_second, left / unfinished / pace) if left else 0.0


def mean_length(counts: BatchProgress) -> float:
    """Of the whole responses, in tokens; 0 while there is none."""
    return counts.ok_tokens / counts.ok if counts.ok else 0.0
