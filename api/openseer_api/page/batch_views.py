"""The page's view of a batch: its groups by state, the lengths of its responses, and the tail."""

from collections.abc import Mapping, Sequence

from openseer_api.page.book import BatchBook, GroupBook, LeaseBar
from openseer_core.ids import RequestId
from openseer_core.wire.batches import Batch
from openseer_core.wire.page import MOST_GROUPS, MOST_IN_TAIL, BatchView, GroupColumns, TailRequest


def group_columns(book: BatchBook) -> GroupColumns:
    """Returns at most MOST_GROUPS groups, in the order of submission. Leaves out the oldest ended groups first."""
    groups = list(book.groups.items())
    if len(groups) > MOST_GROUPS:
        chosen = {name for name, group in groups if group.is_open}
        room = MOST_GROUPS - len(chosen)
        over = [name for name, group in groups if not group.is_open][-room:] if room > 0 else []
        chosen |= set(over)
        groups = [(name, group) for name, group in groups if name in chosen][:MOST_GROUPS]
    books = [group for _, group in groups]
    return GroupColumns(
        name=[name for name, _ in groups],
        size=[group.view.size for group in books],
        waiting=[group.waiting for group in books],
        running=[group.words["running"] for group in books],
        ok=[group.words["ok"] for group in books],
        failed=[_lost(group) for group in books],
        longest=[group.longest for group in books],
        estimate=[group.estimate for group in books],
        left_out=len(book.groups) - len(groups),
    )


def _lost(group: GroupBook) -> int:
    words = group.words
    return words["failed"] + words["aborted"] + words["cancelled"] + words["carried"]


def likely_last(book: BatchBook, running: Sequence[LeaseBar], now: float) -> list[LeaseBar]:
    """Returns at most MOST_IN_TAIL running responses that are expected to end last: those with the most remaining
    tokens, and of equally many those with the longest present lease. A group without an estimate counts with its
    `max_tokens`."""

    def left(bar: LeaseBar) -> tuple[float, float]:
        group = book.groups.get(RequestId.parse(bar.request).group.name)
        expected = group.estimate if group is not None else None
        unknown = group.view.max_tokens if group is not None else 0
        return float(expected or unknown) - bar.tokens, now - bar.start

    return sorted(running, key=left, reverse=True)[:MOST_IN_TAIL]


def tail_of(
    book: BatchBook, bars: Sequence[LeaseBar], lengths: Mapping[str, int], paces: Mapping[str, float], now: float
) -> list[TailRequest]:
    """Returns the running responses `bars`, the one expected to end last first. `lengths`: their present tokens, by
    request; `paces`: tokens per second of one response, by worker."""
    found: list[TailRequest] = []
    for bar in bars:
        group = book.groups.get(RequestId.parse(bar.request).group.name)
        expected = group.estimate if group is not None else None
        tokens, pace = lengths.get(bar.request, bar.tokens), paces.get(bar.worker)
        ends_in = None
        if expected is not None and pace:
            ends_in = round(max(0.0, expected - tokens) / pace, 1)
        found.append(
            TailRequest(
                request=bar.request,
                worker=bar.worker,
                since=bar.start,
                tokens=tokens,
                expected=expected,
                ends_in=ends_in,
                chunks=bar.chunks,
            )
        )
    return sorted(found, key=lambda one: one.ends_in if one.ends_in is not None else float("inf"), reverse=True)


def batch_view(
    book: BatchBook, batch: Batch, tail: list[TailRequest], running: int, now: float, *, live: bool
) -> BatchView:
    """Returns the view of a batch. `running`: number of its running responses; `tail`: some of them."""
    return BatchView(
        now=now,
        live=live,
        batch=batch,
        groups=group_columns(book),
        histogram=book.histogram(),
        estimates=[known for known, _ in book.pairs],
        lengths=[length for _, length in book.pairs],
        tail=tail,
        tail_left_out=running - len(tail),
        in_tail_since=book.tail_since if running else None,
    )
