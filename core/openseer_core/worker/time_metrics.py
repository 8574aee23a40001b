"""A worker's time by use: one set of names for heartbeats, samples and explanations of runs."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields

_PREFIX = "seconds_"
"""Prefix of each name in a heartbeat, where metrics of all kinds are in one mapping."""


@dataclass(frozen=True, slots=True)
class WorkerSeconds:
    """Counters of one worker since its boot, in seconds, or their sums.

    `running`: the engine had a response; `responses`: the same, summed over its responses. `store_idle`, `store_below`:
    the worker waited for a reply of the store while the engine had no response, or free slots, although requests
    may have waited or responses had ended. `weights`: the engine had none because of a change of weights, or slept.
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
    """Tokens per second that a response gained, the mean of workers, by their tokens and seconds; 0 while nothing was
    counted."""
    known = [(tokens, seconds.responses) for tokens, seconds in counters if seconds is not None]
    responses = sum(each for _, each in known)
    return sum(tokens for tokens, _ in known) / responses if responses > 0 else 0.0


_NAMES = {_PREFIX + field.name: field.name for field in fields(WorkerSeconds)}
