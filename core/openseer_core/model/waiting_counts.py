"""The number of waiting requests per lane, and the calls to workers with room for them."""

from collections.abc import Sequence

Lane = tuple[str, str]
"""Weights version and name of a lane."""

CALLS = 2
"""Limit of calls per lane that no worker has taken yet. A claim that leaves requests waiting restores this number:
as many workers as are needed claim soon, and never all at once."""


class WaitingCounts:
    """A count per lane; each change to a positive count sets the calls of the lane."""

    def __init__(self) -> None:
        self._counts: dict[Lane, int] = {}
        self._calls: dict[Lane, int] = {}

    def add(self, lane: Lane, by: int) -> None:
        """Changes a lane's count."""
        count = self._counts[lane] = self._counts.get(lane, 0) + by
        self._calls[lane] = CALLS if count else 0

    def of(self, lane: Lane) -> int:
        """Number of waiting requests in a lane."""
        return self._counts.get(lane, 0)

    def by_version(self) -> dict[str, int]:
        """Number of waiting requests by weights version; versions without any are left out."""
        found: dict[str, int] = {}
        for (version, _), count in self._counts.items():
            if count:
                found[version] = found.get(version, 0) + count
        return found

    def take_call(self, lanes: Sequence[Lane]) -> bool:
        """Takes a call of the first of the lanes that has one."""
        for lane in lanes:
            if self._calls.get(lane, 0):
                self._calls[lane] -= 1
                return True
        return False
