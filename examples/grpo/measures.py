"""Measurements of a training: seconds by phase, a log of figures, and the interval of a share."""

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Phases:
    """Measures the seconds of phases. The time of an inner phase is not counted for the outer one."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._within = 0.0

    @contextmanager
    def __call__(self, name: str) -> Generator[None]:
        """Adds the time of the block to the phase `name`."""
        begun, outside, self._within = time.monotonic(), self._within, 0.0
        try:
            yield
        finally:
            passed = time.monotonic() - begun
            self._seconds[name] = self._seconds.get(name, 0.0) + passed - self._within
            self._within = outside + passed

    def take(self) -> dict[str, float]:
        """Returns the seconds of each phase since the last call, and resets them."""
        taken, self._seconds = self._seconds, {}
        return {name: round(seconds, 3) for name, seconds in taken.items()}


class Log:
    """Writes figures of a training to a new file, one JSON object per line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        self._path = path

    def write(self, row: Mapping[str, object]) -> None:
        """Appends a line."""
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def share_interval(hits: float, count: int) -> tuple[float, float]:
    """Returns the 95 % interval (Wilson) of the share `hits` / `count` of independent trials."""
    z = 1.96
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return centre - half, centre + half
