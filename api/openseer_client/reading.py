"""Streams that read a batch's results from a cursor until the batch is complete, and emit each result once."""

import itertools
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from openseer_client.checkpoint import RECENT_SECONDS, Checkpoint, Opened, Position
from openseer_client.errors import ConflictError, SubmissionLostError
from openseer_client.groups import Collector, FinishedGroup
from openseer_client.http import calls, flows
from openseer_client.http.calls import Call, ask
from openseer_client.http.flows import Emit, Flow, Pause, Stream
from openseer_core.wire.batches import Continue, Group, Verdicts
from openseer_core.wire.results import GroupItem, ResultItem, ResultPage

PAGE = 512
"""Limit of items in one read."""
ACKNOWLEDGE_SECONDS = 1.0
"""Shortest interval between two acknowledgements, each with a durable write of the checkpoint, in seconds."""
LAST_TURN = 2**31
"""Greater than every turn number: after a restart no result of a group that was processed before it is new."""

Environment = Callable[[ResultItem], Sequence[int] | None]
"""Maps a finished turn to the token ids to append before the response continues, or to None after the last turn."""
Judge = Callable[[FinishedGroup], bool]
"""Returns whether a whole group is valid for training."""
Keep = Callable[[FinishedGroup], Generator[Call[Any] | Pause, Any, bool]]
"""A flow that returns whether a group is to be emitted."""


@dataclass(slots=True)
class Own:
    """The writes of this process to a batch: the names of submitted groups, and whether it sealed the batch."""

    groups: set[str] = field(default_factory=set[str])
    sealed: bool = False

    def noted(self, groups: Iterable[Group]) -> Iterator[Group]:
        """Yields the groups and records their names. Raises TypeError for a value that is no Group."""
        _require(not _is_any(groups, Group, dict), "one", groups, "several of Group, as [Group(...)]")
        for group in groups:
            _require(_is_any(group, Group), "a", group, "Group")
            self.groups.add(group.id)
            yield group


def _is_any(value: object, *kinds: type) -> bool:
    return isinstance(value, kinds)


def _require(right: bool, article: str, found: object, allowed: str) -> None:
    """Raises TypeError unless `right`. `article`: of the type's name in the message."""
    if not right:
        raise TypeError(f"groups: found {article} {type(found).__name__}, allowed: {allowed}")


def results(
    batch: int, after: int | None, checkpoint: Checkpoint | None, *, acknowledge: bool, own: Own | None = None
) -> Stream[ResultItem | GroupItem]:
    """Emits every item after a cursor once. An item counts as processed when the next one is requested.

    If the store lost its last writes, the lost results are generated again, with other cursors; they are not emitted
    twice. A reader that was restarted meanwhile receives them again; a result is unique by group, index and turn.
    """
    opened = yield from _opened(batch, checkpoint)
    known = checkpoint.position(batch, opened) if checkpoint is not None else Position()
    position = known if after is None else Position(after)
    cursor, complete = position.cursor, position.complete
    news, note = _News(), _Notes(batch, checkpoint, opened, acknowledge=acknowledge)
    while not complete:
        page = yield from _next_page(batch, cursor, own)
        for item in page.items:
            if item.cursor > cursor and news.has(item):
                yield Emit(item)
            cursor = max(cursor, item.cursor)
            if checkpoint is not None:
                checkpoint.save(batch, Position(cursor), opened)
        complete = page.complete
        cursor = max(cursor, page.cursor)
        yield from note.page(Position(cursor, complete))


def groups(
    batch: int,
    checkpoint: Checkpoint | None,
    *,
    acknowledge: bool,
    environment: Environment | None = None,
    seal_after: int | None = None,
    keep: Keep | None = None,
    own: Own | None = None,
) -> Stream[FinishedGroup]:
    """Emits each group when it has ended, with its results, if `keep` returns True for it.

    The stored position is before the first result of every group that was not processed. So after a restart all results
    of these groups are read again, and processed groups are not emitted again.
    """
    opened = yield from _opened(batch, checkpoint)
    position = checkpoint.position(batch, opened) if checkpoint is not None else Position()
    cursor, complete, taken = position.cursor, position.complete, dict(position.taken)
    ended, recent = position.groups, dict(position.recent)
    turns = dict.fromkeys([*taken, *recent], LAST_TURN)
    collector, note = Collector(), _Notes(batch, checkpoint, opened, acknowledge=acknowledge)
    yield from _seal_at(batch, ended, None if complete else seal_after, own)
    while not complete:
        page = yield from _next_page(batch, cursor, own)
        for item in page.items:
            cursor = max(cursor, item.cursor)
            again = item.cursor <= taken.get(item.group, 0)
            if not again and isinstance(item, ResultItem) and item.turn <= turns.get(item.group, -1):
                continue  # the group was processed; the store lost this result, and it was generated again
            if isinstance(item, ResultItem):
                yield from _turn(item, collector, None if again else environment)
                continue
            group = collector.end(item)
            if group is None or again or (item.group in turns and not group.results):
                continue
            if keep is None or (yield from keep(group)):
                yield Emit(group)
            taken[item.group] = item.cursor
            turns[item.group] = max((result.turn for result in group.results), default=0)
            ended += 1
            if checkpoint is not None:
                _remember(recent, item.group, time.time())
                checkpoint.save(batch, _safe(collector, cursor, taken, ended, recent), opened)
            yield from _seal_at(batch, ended, seal_after, own)
        complete = page.complete
        cursor = max(cursor, page.cursor)
        safe = Position(cursor, complete=True) if complete else _safe(collector, cursor, taken, ended, recent)
        yield from note.page(safe)


def fill(
    batch: int,
    supply: Iterable[Group],
    judge: Judge,
    checkpoint: Checkpoint | None,
    *,
    acknowledge: bool,
    environment: Environment | None,
) -> Stream[FinishedGroup]:
    """Submits groups until the batch's target is met, and emits the valid groups."""
    source = iter(supply)

    def keep(group: FinishedGroup) -> Flow[bool]:
        valid = group.whole and judge(group)
        verdicts = Verdicts(valid=[group.name]) if valid else Verdicts(invalid=[group.name])
        yield from flows.top_up((yield from ask(calls.verdicts(batch, verdicts))), source)
        return valid

    yield from flows.top_up((yield from ask(calls.status(batch))), source)
    yield from groups(batch, checkpoint, acknowledge=acknowledge, environment=environment, keep=keep)


def go_on(item: ResultItem, token_ids: Sequence[int]) -> Call[Any]:
    """Returns the call that continues a finished request."""
    return calls.go_on(item.batch, item.group, item.index, Continue(turn=item.turn, token_ids=list(token_ids)))


def _turn(item: ResultItem, collector: Collector, environment: Environment | None) -> Flow[None]:
    if not collector.add(item) or environment is None or item.status != "ok":
        return
    tokens = environment(item)
    if tokens is None:
        return
    try:
        yield from ask(go_on(item, tokens))
    except ConflictError:
        # The response has no room for more tokens, or the batch has ended: this turn was the last one.
        return
    collector.goes_on(item)


def _seal_at(batch: int, ended: int, seal_after: int | None, own: Own | None) -> Flow[None]:
    if ended == seal_after:
        if own is not None:
            own.sealed = True
        yield from ask(calls.seal(batch))


def _next_page(batch: int, cursor: int, own: Own | None) -> Flow[ResultPage]:
    """Returns the next page that has items, or is the last one."""
    while True:
        page = yield from ask(calls.results(batch, cursor, PAGE, flows.POLL_SECONDS))
        if page.items or page.complete:
            return page
        if own is not None and own.sealed:
            yield from _seal_again(batch, own)
        yield Pause(0.05)


def _seal_again(batch: int, own: Own) -> Flow[None]:
    """Seals the batch again if it is open, after a poll without results: if store and API failed together, the seal may
    be lost. Raises SubmissionLostError if groups are lost too."""
    found = yield from ask(calls.status(batch))
    if found.state != "open":
        return
    if found.metrics.groups < len(own.groups):
        raise SubmissionLostError(batch, found.metrics.groups, len(own.groups))
    yield from ask(calls.seal(batch))


def _opened(batch: int, checkpoint: Checkpoint | None) -> Flow[Opened]:
    """Reads the data that identify the batch; without a checkpoint makes no call."""
    if checkpoint is None:
        return Opened()
    found = yield from ask(calls.status(batch))
    return Opened(found.job, found.opened_at)


class _Notes:
    """Records the processed results of a batch: in the checkpoint, and as acknowledgements to the API."""

    def __init__(self, batch: int, checkpoint: Checkpoint | None, opened: Opened, *, acknowledge: bool) -> None:
        self._batch = batch
        self._checkpoint = checkpoint
        self._opened = opened
        self._acknowledge = acknowledge
        self._last = -math.inf

    def page(self, position: Position) -> Flow[None]:
        """Records a processed page: first in the checkpoint, then at the API, which deletes acknowledged results."""
        now = time.monotonic()
        acknowledges = self._acknowledge and (position.complete or now - self._last >= ACKNOWLEDGE_SECONDS)
        if self._checkpoint is not None:
            self._checkpoint.save(self._batch, position, self._opened, durable=acknowledges)
        if acknowledges and position.cursor:
            self._last = now
            yield from ask(calls.acknowledge(self._batch, position.cursor))


def _safe(collector: Collector, cursor: int, taken: dict[str, int], ended: int, recent: dict[str, float]) -> Position:
    safe = collector.safe(cursor)
    return Position(safe, taken={name: at for name, at in taken.items() if at > safe}, groups=ended, recent=recent)


def _remember(recent: dict[str, float], name: str, now: float) -> None:
    """Adds a processed group, and removes groups older than RECENT_SECONDS, which are the first entries of the dict."""
    recent[name] = now
    for first in list(itertools.takewhile(lambda first: recent[first] < now - RECENT_SECONDS, recent)):
        del recent[first]


class _News:
    """Detects new items of a stream: a new turn of a request, or the first end of a group after a new turn."""

    def __init__(self) -> None:
        self._results: set[tuple[str, int, int]] = set()
        self._ended: set[str] = set()

    def has(self, item: ResultItem | GroupItem) -> bool:
        if isinstance(item, GroupItem):
            is_new = item.group not in self._ended
            self._ended.add(item.group)
            return is_new
        key = (item.group, item.index, item.turn)
        if key in self._results:
            return False
        self._results.add(key)
        self._ended.discard(item.group)
        return True
