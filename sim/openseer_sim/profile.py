"""Finds the step times and the capacity of a simulated engine: from a manifest, a measured file or a run's samples."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, NamedTuple

import msgspec

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob, Scripted
from openseer_core.wording import unreadable
from openseer_driver.run_lines import SampleLine
from openseer_sim.engine import StepTime

FAR = 1024.0
"""Tokens of the second point of step times that are a straight line."""
SLOWEST = 3600.0
"""Limit of each time in a profile, in seconds."""
WINDOW = 5
"""Number of intervals between samples in a window. One interval is too short, because each worker reports its tokens
once a second, at a moment of its own."""
LEAST_WINDOWS = 10
"""Least number of windows from which step times are computed."""
LOG_LINE = "vLLM logs it at its start: `GPU KV cache size: … tokens`"


@dataclass(frozen=True, slots=True)
class EngineModel:
    """One instance for `kv_tokens` tokens of context and `slots` running responses. `source`: origin of the step times,
    as text; `notes`: limitations for the reader; `one_gpu`: the step times are of one GPU, even if a worker has more;
    `move_seconds`: as in ModelledFleet; `of_run`: the step times are the run's own means, drafts included."""

    step: StepTime
    kv_tokens: int
    slots: int
    source: str
    notes: tuple[str, ...] = ()
    one_gpu: bool = False
    move_seconds: float | None = None
    of_run: bool = False


class ProfileFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of step times. `points`: (computed tokens of a step, its seconds), in any order; `kv_tokens`, `slots`: of
    one instance, 0 if the file does not state them. Other fields as in StepTime."""

    points: list[tuple[float, float]]
    per_context: float = 0.0
    per_prefill: float = 0.0
    per_draft: float = 0.0
    kv_tokens: int = 0
    slots: int = 0


class _Batch(msgspec.Struct, frozen=True):
    batch: Annotated[int, msgspec.Meta(ge=1)]
    context: int
    stock_ms: float


class _BenchReport(msgspec.Struct, frozen=True):
    """The used fields of a report of `openseer bench-gpu`."""

    device: str
    batches: list[_Batch]
    model: str = "not named"
    largest_batch: int = 0


def engine_of(job: RolloutJob, profile: Path | None, kv_tokens: int = 0) -> EngineModel:
    """The engine of a job: `profile` if given, else the scripted engine's settings. `kv_tokens`: replaces their size of
    the KV cache; 0: it does not. Raises InputError if step times or capacity are unknown."""
    model, most = job.spec.model, job.spec.workers.max_inflight
    if profile is None and model.engine == "scripted":
        engine = scripted_engine(model.scripted)
        return replace(engine, slots=min(engine.slots, most or engine.slots), kv_tokens=kv_tokens or engine.kv_tokens)
    if profile is None:
        raise InputError(
            f"{job.name}: no step times are known for engine {model.engine}; measure them with `openseer bench-gpu "
            "--json > profile.json` and pass --profile profile.json"
        )
    engine, gpus = read_profile(profile), job.spec.workers.parallelism.gpus
    if engine.one_gpu and gpus > 1:
        raise InputError(
            f"{profile}: found step times of one GPU, but a worker of {job.name} takes {gpus}; pass a file of points "
            "that were measured on such a worker (docs/planning.md)"
        )
    return _room(engine, most or model.engine_args.get("max_num_seqs"), kv_tokens)


def engine_of_samples(job: RolloutJob, samples: Sequence[SampleLine], kv_tokens: int = 0) -> EngineModel:
    """The engine of a run from its own samples: a step of b responses takes a + c b seconds, by least squares over all
    windows in which a worker ran responses in each sample. In a run with drafts, a step is the time in which each
    response gains one token. Raises InputError if there are too few windows."""
    windows = list(_windows(samples))
    if len(windows) < LEAST_WINDOWS:
        raise InputError(
            f"{job.name}: the run has too few samples for its step times; measure them with `openseer "
            "bench-gpu --json > profile.json` and pass --profile profile.json"
        )
    fixed, each = _line(windows)
    most = max(window.running for window in windows)
    step = StepTime(((1.0, fixed + each), (max(2.0, most), fixed + each * max(2.0, most))), 0.0, each)
    notes = ("step times are the run's own means: orders with other contexts and prefills would take other times",)
    room = max(worker.kv_tokens for sample in samples for worker in sample.workers.values())
    engine = EngineModel(step, room, math.ceil(most), "the run's own samples", notes, of_run=True)
    return _room(engine, job.spec.workers.max_inflight or job.spec.model.engine_args.get("max_num_seqs"), kv_tokens)


class _Window(NamedTuple):
    """A window of one worker: its seconds, mean number of running responses, and the tokens that they gained."""

    seconds: float
    running: float
    tokens: int


def _windows(samples: Sequence[SampleLine]) -> Iterator[_Window]:
    names = {name for sample in samples for name in sample.workers}
    for start in range(0, len(samples) - WINDOW, WINDOW):
        part = samples[start : start + WINDOW + 1]
        for name in sorted(names):
            seen = [sample.workers[name] for sample in part if name in sample.workers]
            if len(seen) < len(part) or not all(worker.running for worker in seen):
                continue
            tokens = seen[-1].tokens - seen[0].tokens
            running = fmean(worker.running for worker in seen)
            if tokens > 0 and part[-1].at > part[0].at:
                yield _Window(part[-1].at - part[0].at, running, tokens)


def _line(windows: Sequence[_Window]) -> tuple[float, float]:
    """The seconds per step (`fixed`) and per response in it (`each`), neither below 0, by least squares: seconds of a
    window = fixed x steps + each x tokens."""
    steps = [window.tokens / window.running for window in windows]
    square, mixed = sum(n * n for n in steps), sum(n * w.tokens for n, w in zip(steps, windows, strict=True))
    tokens = sum(window.tokens**2 for window in windows)
    left = sum(n * w.seconds for n, w in zip(steps, windows, strict=True))
    right = sum(window.tokens * window.seconds for window in windows)
    whole = square * tokens - mixed * mixed
    fixed = (left * tokens - right * mixed) / whole if whole > 1e-9 * square * tokens else -1.0
    each = (right * square - left * mixed) / whole if fixed >= 0 else right / tokens
    return (fixed, each) if fixed >= 0 <= each else (left / square, 0.0) if each < 0 else (0.0, right / tokens)


def scripted_engine(scripted: Scripted) -> EngineModel:
    """The step times of the scripted engine."""
    each = scripted.step_seconds_per_request
    points = tuple((tokens, scripted.step_seconds + each * tokens) for tokens in (1.0, FAR))
    step = StepTime(points, per_context=0.0, per_prefill=1 / scripted.prefill_tokens_per_second)
    kv_tokens = scripted.kv_blocks * scripted.block_tokens
    pool = scripted.pool
    move_seconds = pool.bytes_per_token / pool.bytes_per_second if pool is not None else None
    return EngineModel(step, kv_tokens, scripted.slots, "model.scripted of the manifest", move_seconds=move_seconds)


def read_profile(path: Path) -> EngineModel:
    """Reads a report of `openseer bench-gpu`, or a ProfileFile. Raises InputError."""
    try:
        data = path.read_bytes()
        kinds = msgspec.json.decode(data)
        if isinstance(kinds, dict) and "batches" in kinds:
            return _of_bench(msgspec.json.decode(data, type=_BenchReport), path)
        own = msgspec.json.decode(data, type=ProfileFile)
    except OSError as error:
        raise InputError(f"{path}: {unreadable(error, Path.cwd)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: no step profile: {error}; allowed: the JSON of `openseer bench-gpu`, or points, per_context and "
            "per_prefill (docs/planning.md)"
        ) from error
    step = StepTime(_points(own.points, path), own.per_context, own.per_prefill, own.per_draft)
    seconds = own.per_context, own.per_prefill, own.per_draft
    if min(*seconds, own.kv_tokens, own.slots) < 0 or max(seconds) > SLOWEST:
        raise InputError(
            f"{path}: found a number below 0, or a time above {SLOWEST:,.0f} s, allowed: numbers of at least 0, and no "
            "longer times"
        )
    return EngineModel(step, own.kv_tokens, own.slots, str(path))


def _of_bench(report: _BenchReport, path: Path) -> EngineModel:
    points = _points([(row.batch, row.stock_ms / 1000) for row in report.batches], path)
    (first, low), (last, high) = points[0], points[-1]
    each = max(0.0, (high - low) / (last - first))
    longest = max(row.context for row in report.batches)
    notes = (
        f"steps were measured with the model {report.model} on one {report.device}; the job's model may differ",
        f"steps were measured at a context of {longest:,} tokens: longer contexts take longer than simulated",
        f"computing a prompt's token is assumed to cost as much as one more response in a step, {each * 1e6:,.0f} µs",
    )
    step = StepTime(points, per_context=0.0, per_prefill=each)
    return EngineModel(step, 0, report.largest_batch or round(last), f"{path} ({report.device})", notes, one_gpu=True)


def _points(points: list[tuple[float, float]], path: Path) -> tuple[tuple[float, float], ...]:
    found = tuple(sorted(points))
    if len(found) < 2 or found[0][0] < 1 or not all(0 < seconds <= SLOWEST for _, seconds in found):
        raise InputError(
            f"{path}: found points {found}, allowed: at least two, of 1 token or more, over 0 and up to {SLOWEST:,.0f} "
            "seconds"
        )
    if len({tokens for tokens, _ in found}) < len(found):
        raise InputError(f"{path}: found two points with the same number of tokens, allowed: one")
    (fewer, longer), (most, shorter) = found[-2:]
    if shorter < longer:
        raise InputError(
            f"{path}: found a step of {most:,.0f} tokens in {shorter:g} s and one of {fewer:,.0f} in {longer:g} s, "
            "allowed: no less time for the most tokens, since larger steps are extrapolated from these two"
        )
    return found


def _room(engine: EngineModel, slots: object, kv_tokens: int) -> EngineModel:
    most, measured = slots if isinstance(slots, int) else engine.slots, engine.step.points[-1][0]
    kv_tokens = kv_tokens or engine.kv_tokens
    if not most:
        raise InputError(f"{engine.source}: the number of concurrent responses is unknown: set workers.maxInflight")
    if not kv_tokens:
        raise InputError(
            f"{engine.source}: the size of the KV cache is unknown: pass --kv-tokens, of one worker ({LOG_LINE})"
        )
    notes = engine.notes
    if most > measured:
        notes = (
            *notes,
            f"steps of more than {measured:,.0f} tokens were not measured: they are extrapolated",
        )
    return replace(engine, kv_tokens=kv_tokens, slots=most, notes=notes)
