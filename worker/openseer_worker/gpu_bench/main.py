"""Runs `openseer bench-gpu`: the smoke test, then one process after the other by the plan, then the table."""

import hashlib
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

from openseer_core.errors import EngineError
from openseer_worker.gpu_bench import table
from openseer_worker.gpu_bench.children import Children
from openseer_worker.gpu_bench.device import device_name, processor_name
from openseer_worker.gpu_bench.figures import FORMAT, BenchFigures, alone, check_header, read, remove, write, writing
from openseer_worker.gpu_bench.forks import log_name
from openseer_worker.gpu_bench.options import CPU_MINUTES, GPU_MINUTES, BenchOptions
from openseer_worker.gpu_bench.plan import DRAFTS, EXACT_BATCH, EXACTNESS, SMOKE, SUFFIX, WayJob, jobs, limit_seconds
from openseer_worker.gpu_bench.rates import SOURCE
from openseer_worker.gpu_bench.ratios import SKIPPED, DraftRatios, draft_ratios, rows_text
from openseer_worker.gpu_bench.shapes import CPU, GPU, write_shape
from openseer_worker.gpu_bench.ways import DEFAULT_TIER, TIERS, Order
from openseer_worker.vllm.environment import check_version, engine_version, is_cpu_build

INTERRUPTED = 130
_LEAST_SECONDS = {True: 8.0, False: 40.0}
"""Least remaining time with which a process is started, in seconds (True: on a CPU): in less time it yields no figure.
"""
_WITH_DRAFTER = (DRAFTS, EXACTNESS)
_SPARE_SECONDS = 5.0
"""Time between a process's own deadline and its kill, in seconds."""
_EXACT_MODEL = Path(__file__).resolve().parents[3] / "examples/tiny-model/model"
Say = Callable[[str], None]


def run(options: BenchOptions, say: Say, progress: Say) -> int:
    """Runs the bench; returns the exit code. `say`: prints the result; `progress`: prints a line per measurement.

    Raises InputError, OutputError and EngineError.
    """
    options.check()
    check_version()
    with alone(options.output):
        bench = Bench(options, progress)
        previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
        try:
            bench.measure()
        except KeyboardInterrupt:
            progress(f"stopped; the same command resumes from here ({options.output})")
            return INTERRUPTED
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        say(bench.result())
    return 0


class Bench:
    """One run; its figures are in the output folder, from which the next run resumes."""

    def __init__(self, options: BenchOptions, progress: Say) -> None:
        self._options, self._progress = options, progress
        self._on_cpu = is_cpu_build()
        self._began = time.monotonic()
        self._seconds = 60 * (options.minutes or (CPU_MINUTES if self._on_cpu else GPU_MINUTES))
        self._stopped = ""
        """The reason why the run ended before the end of its plan; "" without one."""
        folder = options.output
        if options.fresh:
            remove(folder)
        name = options.shape or ("tiny" if self._on_cpu else "8b")
        self._dummy = options.model is None
        with writing(folder):
            self._model = (options.model or write_shape(name, folder)).resolve()
        exact = options.exact_model or _EXACT_MODEL
        self._exact = exact.resolve() if (exact / "config.json").is_file() else None
        header = _header(options, options.model.name if options.model else name, self._exact, self._on_cpu)
        before = read(folder)
        check_header(before, header, folder)
        if not before.header or before.header["exact_model"] != header["exact_model"]:
            write(folder, {"kind": "header", **header})
        self._seen = len(read(folder).steps)

    def measure(self) -> None:
        """Measures the remaining parts of the plan, until the time is over."""
        self._note_what_cannot_be()
        todo = self._todo()
        if not todo:
            self._progress("all of it is measured already")
            return
        with Children(self._options.output, self._model) as children:
            if todo[0].way == SMOKE and not self._settle_tier(children, todo[0]):
                return
            for job in self._todo():
                if not self._ready(children):
                    return
                self._carry_out(children, job, self._found().tier or DEFAULT_TIER)

    def result(self) -> str:
        """Returns the table, or JSON for a program. Raises EngineError if `stock` was not measured at any batch."""
        found = self._found()
        made = table.rows(found, self._options.batches)
        if not made:
            reasons = [self._stopped] * bool(self._stopped) + [f"{way}: {note}" for way, note in found.notes.items()]
            reason = "; ".join(reasons) or "there was no time for it"
            raise EngineError(f"no step of an engine without drafts was measured: {reason}")
        ratios = draft_ratios(found, made)
        left = table.left_out(found, self._options.ways, self._options.batches)
        if self._options.as_json:
            return json.dumps(_as_json(found, made, ratios, left))
        why = self._stopped or "no time for all of it"
        rest = [f"left: {', '.join(left)} ({why}); the same command resumes"] if left else []
        busy = ", ".join(map(str, table.busy(made)))
        again = [f"batches {busy} were measured on a busy machine; --fresh measures anew"] * bool(busy)
        return "\n".join([table.text(found, made), *rest, f"rates of acceptance: {SOURCE}", *again, *rows_text(ratios)])

    def _note_what_cannot_be(self) -> None:
        notes = read(self._options.output).notes
        if SUFFIX in self._options.ways and find_spec("arctic_inference") is None and SUFFIX not in notes:
            text = f"{SKIPPED}arctic-inference is not installed (docs/benchmarks.md says how)"
            write(self._options.output, {"kind": "note", "way": SUFFIX, "text": text})
        if self._exact is None and EXACTNESS not in notes:
            text = f"{SKIPPED}there is no small real model here; give one as --exact-model"
            write(self._options.output, {"kind": "note", "way": EXACTNESS, "text": text})

    def _found(self) -> BenchFigures:
        return read(self._options.output)

    def _todo(self) -> list[WayJob]:
        found = self._found()
        settled: set[str] = set()
        if found.tier is not None and (found.texts is not None or self._exact is None):
            settled.add(SMOKE)
        if found.exactness is not None or self._exact is None:
            settled.add(EXACTNESS)
        if find_spec("arctic_inference") is None:
            settled.add(SUFFIX)
        left = jobs(self._options.ways, self._options.batches, found.steps, settled)
        return left if any(job.way != SMOKE for job in left) else []

    def _ready(self, children: Children) -> bool:
        """Whether a process can be started; if not, reports the reason."""
        if self._left() < _LEAST_SECONDS[self._on_cpu]:
            self._stop(f"time is up after {self._seconds:.0f} s (--minutes)")
            return False
        if not children.warm:
            self._progress("vLLM is imported: 10 seconds, on a cold or busy machine a minute")
            try:
                self._progress(f"it took {children.warm_up(self._left()):.0f} s; {self._left():.0f} s left")
            except EngineError as error:
                self._stop(f"time is up (--minutes): {error}" if not self._left() else str(error))
                return False
        return True

    def _stop(self, reason: str) -> None:
        self._stopped = reason
        self._progress(f"{reason}; the same command resumes from here")

    def _settle_tier(self, children: Children, job: WayJob) -> bool:
        """Whether an engine runs here: with the small real model, or, if this model fails, with the measured model."""
        if self._try_tiers(children, job):
            return True
        if self._exact is not None and not self._stopped:
            text = f"{self._exact} does not run: {self._found().notes[SMOKE]}"
            write(self._options.output, {"kind": "note", "way": EXACTNESS, "text": text})
            self._exact = None
            if self._try_tiers(children, job):
                return True
        if not self._stopped:
            self._stop(f"vLLM does not run here: {self._found().notes[SMOKE]}")
        return False

    def _try_tiers(self, children: Children, job: WayJob) -> bool:
        for tier in [DEFAULT_TIER] if self._on_cpu else TIERS:
            if not self._ready(children):
                return False
            if self._carry_out(children, job, tier):
                return True
        return False

    def _carry_out(self, children: Children, job: WayJob, tier: str) -> bool:
        """Runs a job; returns whether it succeeded. After a failure a note has the reason."""
        options = self._options
        limit = limit_seconds(self._left(), self._seconds)
        on_exact = job.way in (SMOKE, EXACTNESS) and self._exact is not None
        order = Order(
            way=job.way,
            parts=job.parts,
            folder=str(options.output.resolve()),
            model=str(self._exact if on_exact else self._model),
            dummy=self._dummy and not on_exact,
            exact=on_exact,
            most=EXACT_BATCH if job.way in (SMOKE, EXACTNESS) else max(options.batches),
            scale=CPU if self._on_cpu else GPU,
            tier=tier,
            seconds=max(1.0, limit - _SPARE_SECONDS),
            on_cpu=self._on_cpu,
        )
        compiled = (
            ", and the drafter compiled (at first half a minute without output)" if job.way in _WITH_DRAFTER else ""
        )
        self._progress(f"{job.way}: an engine is built{compiled}; {self._left():.0f} s left")
        if job.way in self._found().notes:
            # Removes the note of an earlier run.
            write(options.output, {"kind": "note", "way": job.way, "text": ""})
        began = time.monotonic()
        outcome = children.run(order, limit, self._watch)
        if outcome and job.way not in self._found().notes:
            write(options.output, {"kind": "note", "way": job.way, "text": outcome})
        if outcome:
            self._progress(f"{job.way}: {self._found().notes[job.way]} (see {options.output / log_name(job.way)})")
        else:
            took = f"{time.monotonic() - began:.0f} s ({children.cpu_seconds:.0f} s of computing)"
            self._progress(f"{job.way}: done in {took}; {self._left():.0f} s left")
        return not outcome

    def _watch(self) -> None:
        """Reports the figures since the last call."""
        figures = [*self._found().steps.values()]
        for figure in figures[self._seen :]:
            milliseconds = median(figure.step_ms)
            rate = figure.batch * figure.tokens_per_step / milliseconds * 1e3
            self._progress(
                f"{figure.way}: batch {figure.batch}, {figure.drafts} drafts: {milliseconds:.2f} ms a step, "
                f"about {rate:,.0f} tok/s; {self._left():.0f} s left"
            )
        self._seen = len(figures)

    def _left(self) -> float:
        return max(0.0, self._seconds - (time.monotonic() - self._began))


def _header(options: BenchOptions, model: str, exact: Path | None, on_cpu: bool) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "device": device_name(on_cpu=on_cpu),
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "model": model,
        "model_path": str(options.model.resolve()) if options.model else "",
        "exact_model": _identity(exact) if exact else "",
        "largest_batch": max(options.batches),
        "vllm": engine_version(),
        "torch": metadata.version("torch") if find_spec("torch") else "",
        "python": ".".join(map(str, sys.version_info[:3])),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": options.command,
    }


def _identity(model: Path) -> str:
    """Returns a model's folder, with a digest of its configuration and of its files' sizes and times."""
    digest = hashlib.sha256((model / "config.json").read_bytes())
    for path in sorted(model.iterdir()):
        state = path.stat()
        digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}".encode())
    return f"{model} ({digest.hexdigest()[:12]})"


def _as_json(found: BenchFigures, made: list[table.BatchRow], ratios: DraftRatios, left: list[str]) -> Any:
    return {
        **found.header,
        "tier": found.tier,
        "rates": SOURCE,
        "batches": [asdict(row) for row in made],
        "exactness": found.exactness,
        "notes": found.notes,
        "busy": table.busy(made),
        "left": left,
        "draft_ratios": ratios.rows,
        "no_draft_ratios": ratios.missing,
    }


def command_of(program: str, arguments: list[str]) -> str:
    """Returns the command line, as the source of the figures."""
    return shlex.join([*program.split(), *arguments])


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
