"""A worker's counters, which begin with 0 at each boot, and their sums over its boots."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Protocol

from openseer_core.worker.context_metrics import ContextCounts
from openseer_core.worker.time_metrics import WorkerSeconds


class Counters(Protocol):
    """The counters of one worker at one time. `boot`: "" if unknown; `seconds`: None if not counted."""

    @property
    def boot(self) -> str: ...

    @property
    def tokens(self) -> int: ...

    @property
    def contexts(self) -> ContextCounts: ...

    @property
    def seconds(self) -> WorkerSeconds | None: ...


class CounterSums:
    """The sums of one worker's counters of seconds and contexts. The first sample counts in full."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = defaultdict(float)
        self._before: dict[str, float] = {}
        self._boot: str | None = None

    def note(self, now: Counters) -> None:
        """Adds the increase since the last sample; after a restart of the worker, the counters themselves."""
        values = now.contexts.values() | (now.seconds.values() if now.seconds is not None else {})
        self._boot = now.boot if self._boot is None else self._boot
        began_anew = now.boot != self._boot or any(
            value < self._before.get(name, 0.0) for name, value in values.items()
        )
        for name, value in values.items():
            self.sums[name] += value if began_anew else value - self._before.get(name, 0.0)
        self._before, self._boot = values, now.boot


def counted(samples: Iterable[Counters]) -> dict[str, float]:
    """The sums of a worker's counters over its samples, by the counters' names; the first sample counts in full."""
    found = CounterSums()
    for sample in samples:
        found.note(sample)
    return found.sums
