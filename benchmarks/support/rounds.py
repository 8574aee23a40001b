"""The arms of a comparison: their order, their folders, and the interval of a ratio between two of them."""

import math
import re
import statistics
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats

SHARE = 0.95
"""Of the intervals."""
ALWAYS_FULL = "always full"
"""The arm of the bound: as many tokens in responses of equal length, a multiple of all slots, so that no engine ever
waits and nothing is left to order."""


class Interval(NamedTuple):
    """A mean ratio with its 95 % interval; after a single round without bounds."""

    mean: float
    low: float | None
    high: float | None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if self.low is None else f" ({self.low:.2f}–{self.high:.2f})")


def order(arms: Sequence[str], seed: int) -> list[str]:
    """The arms in the order of one seed: rotated by one per seed, so that each arm takes each place."""
    first = seed % len(arms)
    return [*arms[first:], *arms[:first]]


@contextmanager
def folder_of(keep: Path | None, arm: str, seed: int) -> Generator[Path]:
    """A new folder of one run: within `keep`, else a temporary one."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="openseer-bench-") as folder:
            yield Path(folder)
    else:
        name = re.sub(r"\W+", "-", arm).strip("-")
        folder = keep / f"{seed}-{name}"
        folder.mkdir(parents=True)
        yield folder


def interval(ratios: Sequence[float]) -> Interval:
    """The geometric mean of ratios of independent rounds, and its interval: Student's t over their logarithms."""
    logarithms = [math.log(ratio) for ratio in ratios]
    mean = statistics.mean(logarithms)
    if len(ratios) < 2:
        return Interval(math.exp(mean), None, None)
    student: Any = stats.t
    reach = float(student.ppf((1 + SHARE) / 2, len(ratios) - 1)) * statistics.stdev(logarithms) / math.sqrt(len(ratios))
    return Interval(math.exp(mean), math.exp(mean - reach), math.exp(mean + reach))


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """The ratios by seed, without those with a zero divisor."""
    return [one / other for one, other in zip(above, below, strict=True) if one and other]
