"""The options of a run of the bench."""

from dataclasses import dataclass
from pathlib import Path

from openseer_core.errors import InputError
from openseer_worker.gpu_bench.plan import BATCHES, STOCK, WAYS
from openseer_worker.gpu_bench.shapes import SHAPES

OUTPUT = Path("runs/bench-gpu")
GPU_MINUTES, CPU_MINUTES = 8.0, 4.5


@dataclass(frozen=True)
class BenchOptions:
    """The options. `minutes`: time limit; `shape` or `model` (a folder): the measured model; if they are unset, the
    device decides. `exact_model`: a small real model, for exactness; None: examples/tiny-model, if the bench runs in
    the repository."""

    minutes: float | None = None
    model: Path | None = None
    shape: str = ""
    batches: tuple[int, ...] = BATCHES
    ways: tuple[str, ...] = WAYS
    output: Path = OUTPUT
    exact_model: Path | None = None
    as_json: bool = False
    fresh: bool = False
    """Whether existing figures are deleted."""
    command: str = "openseer bench-gpu"

    def check(self) -> None:
        """Raises InputError for an invalid option."""
        self._check_models()
        if unknown := sorted(set(self.ways) - set(WAYS)):
            raise InputError(f"--ways: found {', '.join(unknown)}, allowed: {', '.join(WAYS)}")
        if STOCK not in self.ways:
            raise InputError(f"--ways: {STOCK} is not among them; the others are compared with it")
        if not self.batches or min(self.batches) < 1 or max(self.batches) > 4096:
            raise InputError("--batches: at least one, from 1 to 4096")
        if self.minutes is not None and not 0 < self.minutes <= 24 * 60:
            raise InputError("--minutes: more than 0, a day at most")

    def _check_models(self) -> None:
        if self.model is not None and self.shape:
            raise InputError("--model and --shape: give one of them")
        if self.shape and self.shape not in SHAPES:
            raise InputError(f"--shape: found {self.shape!r}, allowed: {', '.join(SHAPES)}")
        if self.model is not None and not (self.model / "config.json").is_file():
            raise InputError(f"--model: {self.model} is no folder with a config.json")
        if self.exact_model is not None and not (self.exact_model / "config.json").is_file():
            raise InputError(f"--exact-model: {self.exact_model} is no folder with a config.json")


def listed(text: str) -> tuple[str, ...]:
    """Splits names at commas."""
    return tuple(filter(None, (name.strip() for name in text.split(","))))


def numbers(text: str) -> tuple[int, ...]:
    """Parses whole numbers between commas. Raises InputError."""
    try:
        return tuple(int(name) for name in listed(text))
    except ValueError as error:
        raise InputError(f"--batches: found {text!r}, allowed: whole numbers between commas, such as 1,8,32") from error
