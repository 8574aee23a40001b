"""Counters of the tokens of contexts: computed, cached, or fetched from the KV pool.

Heartbeats, samples and reports use the same names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

_PREFIX = "context_"
"""Prefix of each name in a heartbeat, which has all metrics in one mapping."""


@dataclass(frozen=True, slots=True)
class ContextCounts:
    """Counters of one worker since its boot, or their sums.

    An engine that begins or continues a request needs the KV cache of its context (the prompt and the response so far).
    For some tokens the engine itself has it (`cached`), for some it is `fetched` from the KV pool, and for the rest it
    is `computed`. `recomputed`: tokens computed for requests that had run before; `compute_seconds`: time for
    `computed`. The others count transfers with the KV pool: `fetched_bytes`, `saved_bytes`, `fetch_seconds`;
    `failed_fetches`, which returned fewer blocks than the pool had; `unsaved_blocks`, which the pool did not accept.
    """

    computed: int = 0
    recomputed: int = 0
    cached: int = 0
    fetched: int = 0
    fetched_bytes: int = 0
    fetch_seconds: float = 0.0
    failed_fetches: int = 0
    saved_bytes: int = 0
    unsaved_blocks: int = 0
    compute_seconds: float = 0.0

    @staticmethod
    def of(values: Mapping[str, float | int | str]) -> "ContextCounts":
        """Counts by the names of the fields; a missing one is 0."""
        counts = {field.name: float(values.get(field.name, 0)) for field in fields(ContextCounts)}
        fetching, computing = (round(counts.pop(name), 3) for name in ("fetch_seconds", "compute_seconds"))
        numbers = {name: int(count) for name, count in counts.items()}
        return ContextCounts(**numbers, fetch_seconds=fetching, compute_seconds=computing)

    @staticmethod
    def of_heartbeat(metrics: Mapping[str, float | int | str]) -> "ContextCounts":
        """Counts from a heartbeat's metrics; zeros if the worker reports none."""
        return ContextCounts.of({name.removeprefix(_PREFIX): metrics[name] for name in metrics.keys() & _NAMES.keys()})

    def metrics(self) -> dict[str, float | int | str]:
        """The counts as metrics of a heartbeat."""
        return {name: getattr(self, field) for name, field in _NAMES.items()}

    def values(self) -> dict[str, float]:
        """The counts by the names of the fields."""
        return asdict(self)


_NAMES = {_PREFIX + field.name: field.name for field in fields(ContextCounts)}
