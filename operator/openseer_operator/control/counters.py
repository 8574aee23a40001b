"""The counters of jobs that Prometheus reads. It takes a counter that falls for one that began anew, and adds all of
it: these do not fall while the operator runs, though a store is silent, comes back older, or forgets batches."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from openseer_core.plan.observation import DRIVER, GpuSeconds

KEPT_BATCHES = 64
"""Batches of a job that are gone and are remembered one by one: an older store may have them again."""


@dataclass(slots=True)
class BatchTokens:
    """Tokens generated in a job's batches, those included that are gone. `uid`: of the job."""

    uid: str
    total: int = 0
    _most: dict[int, int] = field(default_factory=dict[int, int])

    def note(self, batches: Mapping[int, int]) -> None:
        """Tokens generated in each batch that is there (own_tokens), by its number."""
        for number, tokens in batches.items():
            known = self._most.pop(number, 0)  # so that those which are gone come first
            self._most[number] = max(known, tokens)
            self.total += max(0, tokens - known)
        while len(self._most) > len(batches) + KEPT_BATCHES:
            del self._most[next(iter(self._most))]


@dataclass(slots=True)
class JobCounters:
    """Of one job. `uid`: the job's; `tokens`: generated; `gpu_seconds`: so far; `ended`: ends of workers and of the
    driver that nobody asked for, since this process first saw the job."""

    uid: str
    tokens: int = 0
    gpu_seconds: GpuSeconds = field(default_factory=GpuSeconds)
    ended: Counter[str] = field(default_factory=Counter[str])

    def note(self, tokens: int, gpu_seconds: GpuSeconds) -> None:
        """What is known now, which may be less than was known before."""
        self.tokens = max(self.tokens, tokens)
        self.gpu_seconds = gpu_seconds.at_least(self.gpu_seconds)

    def note_ends(self, components: Iterable[str]) -> None:
        """Each ended once more."""
        self.ended.update("driver" if component == DRIVER else "worker" for component in components)
