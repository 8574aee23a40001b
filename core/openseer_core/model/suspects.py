"""Suspects in the reference queue: requests with several losses. A worker holds one suspect at a time."""

from collections import Counter, defaultdict

from openseer_core.ids import RequestId
from openseer_core.model.sorted_set import SortedSet
from openseer_core.queue import budgets


class Suspects:
    """The waiting suspects, and the number of suspects that each worker holds. Suspects wait apart from all other
    requests, so that they do not block them: per (weights version, lane), in the order of their scores.
    """

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], SortedSet] = defaultdict(SortedSet)
        self._held: Counter[str] = Counter()

    def put(self, place: tuple[str, str], request: RequestId, score: float) -> None:
        """Adds a suspect that waits at `place` (weights version, lane)."""
        self._waiting[place].put(str(request), score)

    def discard(self, place: tuple[str, str], request: RequestId) -> None:
        """Removes a suspect that no longer waits at `place`."""
        self._waiting[place].discard(str(request))

    def first(self, place: tuple[str, str], worker: str) -> list[RequestId]:
        """The suspects at `place` of which a claim of the worker may lease one; none while the worker holds a
        suspect."""
        names = [] if self._held[worker] else self._waiting[place].first(budgets.HEAD_WINDOW)
        return [RequestId.parse(name) for _, name in names]

    def hold(self, worker: str, number: int) -> None:
        """Adds `number` (it may be negative) to the number of suspects that the worker holds."""
        self._held[worker] += number
