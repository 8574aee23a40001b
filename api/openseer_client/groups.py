"""Collects results into groups, over which a trainer computes advantages. No I/O."""

from dataclasses import dataclass, field

from openseer_core.wire.results import GroupItem, ResultItem


@dataclass(frozen=True, slots=True)
class FinishedGroup:
    """A group whose requests have all ended. `results`: the last turn of each request, by index.

    Train only on a group with `whole`. In any other group responses are missing; `end` contains their number by
    outcome.
    """

    end: GroupItem
    results: tuple[ResultItem, ...]

    @property
    def name(self) -> str:
        """The group's id in its batch. The id of a carried group contains its origin."""
        return self.end.group

    @property
    def original_name(self) -> str:
        """The id with which the group was submitted."""
        return self.end.carried_from.group if self.end.carried_from is not None else self.end.group

    @property
    def whole(self) -> bool:
        """Whether every response is complete and contained in `results`."""
        return self.end.whole and len(self.results) == self.end.size


@dataclass(slots=True)
class _Open:
    first: int
    results: dict[int, ResultItem] = field(default_factory=dict[int, ResultItem])
    going_on: set[int] = field(default_factory=set[int])


class Collector:
    """Collects the results of unfinished groups."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def add(self, item: ResultItem) -> bool:
        """Adds a result; returns False if it was added before.

        For a request with another turn (`goes_on`), a known turn with a later cursor is new: the store has lost the
        next turn and generated this one again.
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
        """Records that this request has another turn: its group has not ended, also if its end was read."""
        self._open[item.group].going_on.add(item.index)

    def end(self, item: GroupItem) -> FinishedGroup | None:
        """Removes and returns the finished group; None while one of its requests continues."""
        group = self._open.get(item.group)
        if group is not None and group.going_on:
            return None
        self._open.pop(item.group, None)
        results = group.results if group is not None else {}
        return FinishedGroup(item, tuple(results[index] for index in sorted(results)))

    def safe(self, cursor: int) -> int:
        """Returns the greatest position up to `cursor` that precedes all results of the unfinished groups."""
        return min((group.first - 1 for group in self._open.values()), default=cursor)
