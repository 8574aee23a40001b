"""Suspects of the reference queue: requests with several losses, of which a worker holds one at a time."""

from collections import Counter, defaultdict

from openseer_core.ids import RequestId
from openseer_core.model.sorted_set import SortedSet
from openseer_core.queue import budgets


class Suspects:
    """Waiting suspects, kept apart from all other requests so that they do not block them, and the number that each
    worker holds. They wait per (weights version, lane), in the order of their scores.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], SortedSet] = defaultdict(SortedSet)
        self._held: Counter[str] = Counter()

    def put(self, place: tuple[str, str], request: RequestId, score: float) -> None:
        """Adds a request that waits at `place`."""
        self._waiting[place].put(str(request), score)

    def discard(self, place: tuple[str, str], request: RequestId) -> None:
        """Removes a request that does not wait at `place` any longer."""
        self._waiting[place].discard(str(request))

    def first(self, place: tuple[str, str], worker: str) -> list[RequestId]:
        """The suspects of which a claim may lease one: empty while the worker holds one."""
        names = [] if self._held[worker] else self._waiting[place].first(budgets.HEAD_WINDOW)
        return [RequestId.parse(name) for _, name in names]

    def hold(self, worker: str, number: int) -> None:
        """Adds `number`, possibly negative, to the suspects that the worker holds."""
        self._held[worker] += number
