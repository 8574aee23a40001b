"""The suspects of a reference queue: requests that lost so many workers that a worker holds one of them at a time."""

from collections import Counter, defaultdict

from openseer_core.ids import RequestId
from openseer_core.model.sorted_set import SortedSet
from openseer_core.queue import budgets


class Suspects:
    """Those that wait, apart from all other requests so that they stand in nobody's way, and how many a worker holds.

    They wait per (weights version, lane), in the order of the scores that they came with.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], SortedSet] = defaultdict(SortedSet)
        self._held: Counter[str] = Counter()

    def put(self, place: tuple[str, str], request: RequestId, score: float) -> None:
        """It waits at `place`."""
        self._waiting[place].put(str(request), score)

    def discard(self, place: tuple[str, str], request: RequestId) -> None:
        """It does not wait there any more."""
        self._waiting[place].discard(str(request))

    def first(self, place: tuple[str, str], worker: str) -> list[RequestId]:
        """Of which a claim may lease one: none where the worker holds one by now."""
        names = [] if self._held[worker] else self._waiting[place].first(budgets.HEAD_WINDOW)
        return [RequestId.parse(name) for _, name in names]

    def hold(self, worker: str, number: int) -> None:
        """The worker holds so many more (less, where negative)."""
        self._held[worker] += number
