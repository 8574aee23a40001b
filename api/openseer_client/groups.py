"""Collects results into groups, over which a trainer computes advantages. No I/O."""

from dataclasses import dataclass, field

from openseer_core.wire.batches import GroupItem, ResultItem


@dataclass(frozen=True, slots=True)
class FinishedGroup:
    """A group all of whose requests have ended, with its results by index (of each its last turn).

    Only a `whole` one may be trained on: another has lost requests, and `end` says how many to what.
    """

    end: GroupItem
    results: tuple[ResultItem, ...]

    @property
    def name(self) -> str:
        """The group's id in its batch, which of a carried group names its origin, too."""
        return self.end.group

    @property
    def original_name(self) -> str:
        """The id that the group was submitted with."""
        return self.end.carried_from.group if self.end.carried_from is not None else self.end.group

    @property
    def whole(self) -> bool:
        """Whether every response is whole, and here."""
        return self.end.whole and len(self.results) == self.end.size


@dataclass(slots=True)
class _Open:
    first: int
    results: dict[int, ResultItem] = field(default_factory=dict[int, ResultItem])
    going_on: set[int] = field(default_factory=set[int])


class Collector:
    """Holds the results of groups that have not ended."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def add(self, item: ResultItem) -> bool:
        """Takes a result; False for one that is here already.

        Of a request that goes on, an earlier turn under a later cursor is news: the store has lost what came after it.
        """
        group = self._open.setdefault(item.group, _Open(item.cursor))
        known = group.results.get(item.index)
        is_lost = item.index in group.going_on and known is not None and known.cursor < item.cursor
        if known is not None and known.turn >= item.turn and not is_lost:
            return False
        group.results[item.index] = item
        group.going_on.discard(item.index)
        return True

    def goes_on(self, item: ResultItem) -> None:
        """The request of this result has another turn: its group has not ended, whatever was reported before."""
        self._open[item.group].going_on.add(item.index)

    def end(self, item: GroupItem) -> FinishedGroup | None:
        """The group that has ended; None while one of its requests goes on."""
        group = self._open.get(item.group)
        if group is not None and group.going_on:
            return None
        self._open.pop(item.group, None)
        results = group.results if group is not None else {}
        return FinishedGroup(item, tuple(results[index] for index in sorted(results)))

    def safe(self, cursor: int) -> int:
        """The greatest cursor, up to `cursor`, from which a restart loses no result of an unfinished group."""
        return min((group.first - 1 for group in self._open.values()), default=cursor)
