"""A set of names ordered by score, then by name: the counterpart of a Redis sorted set in the reference queue."""

from bisect import bisect_left, insort


class SortedSet:
    """Names with scores, lowest first."""

    def __init__(self) -> None:
        self._scores: dict[str, float] = {}
        self._order: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, name: str) -> bool:
        return name in self._scores

    def put(self, name: str, score: float) -> None:
        """Adds `name`, or changes its score."""
        self.discard(name)
        self._scores[name] = score
        insort(self._order, (score, name))

    def discard(self, name: str) -> None:
        """Removes `name` if it is in the set."""
        if name in self._scores:
            del self._order[bisect_left(self._order, (self._scores.pop(name), name))]

    def score(self, name: str) -> float:
        """The score of `name`. Raises KeyError if it is absent."""
        return self._scores[name]

    def at(self, place: int) -> tuple[float, str] | None:
        """The (score, name) at `place` from the front, or None past the end."""
        return self._order[place] if place < len(self._order) else None

    def first(self, count: int) -> list[tuple[float, str]]:
        """The first `count` (score, name) pairs."""
        return self._order[:count]

    def up_to(self, score: float, limit: int) -> list[str]:
        """At most `limit` names whose score is at most `score`, lowest first."""
        end = bisect_left(self._order, (score, "\U0010ffff"))
        return [name for _, name in self._order[: min(end, limit)]]
