"""The number of waiting requests per lane, and the calls of workers to lanes in which requests wait."""

from collections.abc import Sequence

Lane = tuple[str, str]
"""Weights version and name of a lane."""

CALLS = 2
"""Limit of pending calls per lane. Each change of a lane's count that leaves requests waiting restores this number, so
that as many workers as are needed claim soon, but never all at once."""


class WaitingCounts:
    """A count per lane. Each change sets the lane's pending calls: CALLS if the new count is positive, else 0."""

    def __init__(self) -> None:
        self._counts: dict[Lane, int] = {}
        self._calls: dict[Lane, int] = {}

    def add(self, lane: Lane, by: int) -> None:
        """Adds `by` to a lane's count."""
        count = self._counts[lane] = self._counts.get(lane, 0) + by
        self._calls[lane] = CALLS if count else 0

    def of(self, lane: Lane) -> int:
        """Number of waiting requests in a lane."""
        return self._counts.get(lane, 0)

    def by_version(self) -> dict[str, int]:
        """Number of waiting requests by weights version. A version without waiting requests is left out."""
        found: dict[str, int] = {}
        for (version, _), count in self._counts.items():
            if count:
                found[version] = found.get(version, 0) + count
        return found

    def take_call(self, lanes: Sequence[Lane]) -> bool:
        """Removes a pending call of the first lane that has one. Returns whether there was a call."""
        for lane in lanes:
            if self._calls.get(lane, 0):
                self._calls[lane] -= 1
                return True
        return False
