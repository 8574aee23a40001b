"""What a training is measured by: seconds by phase, and a share with its interval."""

import json
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path


class Phases:
    """Seconds by phase. A phase within another one counts for itself alone."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._within = 0.0

    @contextmanager
    def __call__(self, name: str) -> Generator[None]:
        """Counts the time inside as this phase."""
        begun, outside, self._within = time.monotonic(), self._within, 0.0
        try:
            yield
        finally:
            passed = time.monotonic() - begun
            self._seconds[name] = self._seconds.get(name, 0.0) + passed - self._within
            self._within = outside + passed

    def take(self) -> dict[str, float]:
        """Phase → seconds since the last call."""
        taken, self._seconds = self._seconds, {}
        return {name: round(seconds, 3) for name, seconds in taken.items()}


class Log:
    """Figures of a training, a JSON object a line."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        self._path = path

    def write(self, row: Mapping[str, object]) -> None:
        """Adds a line."""
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def share_interval(hits: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of independent trials (Wilson's)."""
    z = 1.96
    share = hits / count
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return centre - half, centre + half
