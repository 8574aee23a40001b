"""A worker's time by use. Heartbeats, samples and explanations of runs use the same names."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

_PREFIX = "seconds_"
"""Prefix of each name in a heartbeat, which has all metrics in one mapping."""


@dataclass(frozen=True, slots=True)
class WorkerSeconds:
    """Counters of one worker since its boot, in seconds, or their sums.

    `running`: time in which the engine had at least one response; `responses`: sum, over all responses, of their time
    in the engine. `store_idle`, `store_below`: time of waits for a reply of the store, while requests may have waited
    or responses had ended, and the engine had no response (`store_idle`) or free slots (`store_below`). `weights`: time
    without a response because of a change of weights or of sleep.
    """

    running: float = 0.0
    responses: float = 0.0
    store_idle: float = 0.0
    store_below: float = 0.0
    weights: float = 0.0

    @staticmethod
    def of(values: Mapping[str, float]) -> "WorkerSeconds":
        """Seconds by the names of the fields; a missing one is 0."""
        return WorkerSeconds(**{field.name: round(values.get(field.name, 0.0), 3) for field in fields(WorkerSeconds)})

    @staticmethod
    def of_heartbeat(metrics: Mapping[str, float | int | str]) -> "WorkerSeconds | None":
        """Seconds from a heartbeat's metrics; None if the worker reports none of them."""
        found = {name: float(metrics[key]) for key, name in _NAMES.items() if key in metrics}
        return WorkerSeconds.of(found) if found else None

    def metrics(self) -> dict[str, float | int | str]:
        """The seconds as metrics of a heartbeat."""
        return {key: getattr(self, name) for key, name in _NAMES.items()}

    def values(self) -> dict[str, float]:
        """The seconds by the names of the fields."""
        return asdict(self)


def mean_pace(counters: Iterable[tuple[float, WorkerSeconds | None]]) -> float:
    """Mean tokens per second of a response, over all workers; 0 if no time was counted.

    `counters`: (generated tokens, seconds) of each worker; workers without seconds are left out.
    """
    known = [(tokens, seconds.responses) for tokens, seconds in counters if seconds is not None]
    responses = sum(each for _, each in known)
    return sum(tokens for tokens, _ in known) / responses if responses > 0 else 0.0


_NAMES = {_PREFIX + field.name: field.name for field in fields(WorkerSeconds)}
