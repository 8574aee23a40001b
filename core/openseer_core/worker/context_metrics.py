"""What becomes of the contexts that engines take up: one set of names for heartbeats, samples and reports."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

_PREFIX = "context_"
"""Before each name in a heartbeat, where metrics of all kinds are in one mapping."""


@dataclass(frozen=True, slots=True)
class ContextCounts:
    """Counters of one worker since its boot, or their sums.

    A context is what a request has when an engine takes it up: its prompt, and its response so far. Of its tokens some
    are `cached` by the engine itself, some `fetched` from the KV pool, and the rest is `computed`; `recomputed`: of
    these, of requests that had been running before. `compute_seconds`: of the engine's time for `computed`. Bytes and
    `fetch_seconds` are of the pool; `failed_fetches` brought less than was found, `unsaved_blocks` the pool did not
    take.
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
        """By the names of the fields; one that is missing is 0."""
        counts = {field.name: float(values.get(field.name, 0)) for field in fields(ContextCounts)}
        fetching, computing = (round(counts.pop(name), 3) for name in ("fetch_seconds", "compute_seconds"))
        numbers = {name: int(count) for name, count in counts.items()}
        return ContextCounts(**numbers, fetch_seconds=fetching, compute_seconds=computing)

    @staticmethod
    def of_heartbeat(metrics: Mapping[str, float | int | str]) -> "ContextCounts":
        """Of a heartbeat's metrics; zeros of a worker that counts none."""
        return ContextCounts.of({name.removeprefix(_PREFIX): metrics[name] for name in metrics.keys() & _NAMES.keys()})

    def metrics(self) -> dict[str, float | int | str]:
        """For a heartbeat."""
        return {name: getattr(self, field) for name, field in _NAMES.items()}

    def values(self) -> dict[str, float]:
        """By the names of the fields."""
        return asdict(self)


_NAMES = {_PREFIX + field.name: field.name for field in fields(ContextCounts)}
