"""The counters of jobs that Prometheus reads. Prometheus treats a decrease as a reset. So these counters never decrease
while the operator runs, even if a store does not answer, is restored from an older log, or deletes batches."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from openseer_core.plan.observation import DRIVER, GpuSeconds

KEPT_BATCHES = 64
"""Number of deleted batches whose tokens are remembered: a store restored from an older log may list them again."""


@dataclass(slots=True)
class BatchTokens:
    """Tokens generated in a job's batches, deleted ones included. `uid`: the job's uid."""

    uid: str
    total: int = 0
    _most: dict[int, int] = field(default_factory=dict[int, int])

    def note(self, batches: Mapping[int, int]) -> None:
        """Adds the tokens generated since the last call. `batches`: own_tokens of each listed batch, by its number."""
        for number, tokens in batches.items():
            known = self._most.pop(number, 0)  # moves the batch to the end: deleted ones come first
            self._most[number] = max(known, tokens)
            self.total += max(0, tokens - known)
        while len(self._most) > len(batches) + KEPT_BATCHES:
            del self._most[next(iter(self._most))]


@dataclass(slots=True)
class JobCounters:
    """Counters of one job. `uid`: the job's uid; `tokens`, `gpu_seconds`: the job's totals; `ended`: unrequested ends
    of workers and of the driver, by component, since this process first saw the job."""

    uid: str
    tokens: int = 0
    gpu_seconds: GpuSeconds = field(default_factory=GpuSeconds)
    ended: Counter[str] = field(default_factory=Counter[str])

    def note(self, tokens: int, gpu_seconds: GpuSeconds) -> None:
        """Raises the counters to the present values. A value below an earlier one is ignored."""
        self.tokens = max(self.tokens, tokens)
        self.gpu_seconds = gpu_seconds.at_least(self.gpu_seconds)

    def note_ends(self, components: Iterable[str]) -> None:
        """Counts one more end of each component."""
        self.ended.update("driver" if component == DRIVER else "worker" for component in components)
