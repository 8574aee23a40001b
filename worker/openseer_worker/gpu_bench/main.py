"""`openseer bench-gpu`: smoke test, then one process after another as the plan says, then the table."""

import json
import os
import shlex
import shutil
import signal
import subprocess
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
from openseer_worker.gpu_bench.figures import BenchFigures, check_header, read, remove, write
from openseer_worker.gpu_bench.forks import log_name
from openseer_worker.gpu_bench.options import CPU_MINUTES, GPU_MINUTES, BenchOptions
from openseer_worker.gpu_bench.plan import EXACT_BATCH, EXACTNESS, SMOKE, SUFFIX, WayJob, jobs, limit_seconds
from openseer_worker.gpu_bench.rates import SOURCE
from openseer_worker.gpu_bench.shapes import CPU, GPU, write_shape
from openseer_worker.gpu_bench.ways import TIERS, Order
from openseer_worker.vllm.environment import engine_version, is_cpu_build

INTERRUPTED = 130
_LEAST_SECONDS = {True: 8.0, False: 40.0}
"""On a CPU, on a GPU: in less time no engine comes to a figure."""
_SPARE_SECONDS = 5.0
"""A process is told to stop so long before it is ended."""
_EXACT_MODEL = Path(__file__).resolve().parents[3] / "examples/tiny-model/model"
Say = Callable[[str], None]


def run(options: BenchOptions, say: Say, progress: Say) -> int:
    """The exit code. `say`: for the result; `progress`: a line per measurement. Raises InputError and EngineError."""
    options.check()
    bench = Bench(options, progress)
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        bench.measure()
    except KeyboardInterrupt:
        progress(f"stopped; the same command goes on from here ({options.output})")
        return INTERRUPTED
    finally:
        signal.signal(signal.SIGTERM, previous)
    say(bench.result())
    return 0


class Bench:
    """One run: what it measures is in the folder, where the next run finds it."""

    def __init__(self, options: BenchOptions, progress: Say) -> None:
        self._options, self._progress = options, progress
        self._on_cpu = is_cpu_build()
        self._began = time.monotonic()
        self._seconds = 60 * (options.minutes or (CPU_MINUTES if self._on_cpu else GPU_MINUTES))
        folder = options.output
        folder.mkdir(parents=True, exist_ok=True)
        if options.fresh:
            remove(folder)
        name = options.shape or ("tiny" if self._on_cpu else "8b")
        self._dummy = options.model is None
        self._model = (options.model or write_shape(name, folder)).resolve()
        exact = options.exact_model or _EXACT_MODEL
        self._exact = exact if (exact / "config.json").is_file() else None
        header = _header(options, options.model.name if options.model else name, self._on_cpu)
        check_header(read(folder), header, folder)
        if not read(folder).header:
            write(folder, {"kind": "header", **header})
        self._seen = len(read(folder).steps)

    def measure(self) -> None:
        """All that is left, as far as time goes."""
        self._note_what_cannot_be()
        todo = self._todo()
        if not todo:
            self._progress("all of it is measured already")
            return
        with Children(self._options.output, self._model) as children:
            self._progress("vLLM is imported: 10 seconds, on a cold or busy machine a minute")
            self._progress(f"it took {children.warm_up():.0f} s; {self._left():.0f} s left")
            if todo[0].way == SMOKE:
                self._settle_tier(children, todo[0])
            for job in self._todo():
                if self._left() < _LEAST_SECONDS[self._on_cpu]:
                    self._progress("time is up; the same command goes on from here")
                    break
                self._carry_out(children, job, self._found().tier or next(iter(TIERS)))

    def result(self) -> str:
        """The table, or all of it for a program. Raises EngineError where not even `stock` was measured."""
        found = self._found()
        made = table.rows(found, self._options.batches)
        if not made:
            reason = "; ".join(f"{way}: {note}" for way, note in found.notes.items()) or "there was no time for it"
            raise EngineError(f"no step of an engine without drafts was measured: {reason}")
        ratios = table.draft_ratios(found, made)
        left = table.left_out(found, self._options.ways, self._options.batches)
        if self._options.as_json:
            return json.dumps(_as_json(found, made, ratios, left))
        rest = [f"no time for all of: {', '.join(left)}; the same command goes on"] if left else []
        lines = [table.text(found, made), *rest, f"rates of acceptance: {SOURCE}", *self._rows(made, ratios)]
        return "\n".join(lines)

    def _rows(self, made: list[table.BatchRow], ratios: list[dict[str, Any]]) -> list[str]:
        """Rows for the table of devices, or why there are none."""
        again = [f"batches {', '.join(map(str, busy))} were measured on a busy machine; --fresh measures anew"] * bool(
            busy := table.busy(made)
        )
        if ratios:
            return [*again, "rows for draft_ratios.json:", ",\n".join(f"  {json.dumps(ratio)}" for ratio in ratios)]
        return [
            *again,
            "no rows for draft_ratios.json"
            + (", whose rows of CPUs come from benchmarks/speculation.py" * self._on_cpu),
        ]

    def _note_what_cannot_be(self) -> None:
        notes = read(self._options.output).notes
        if SUFFIX in self._options.ways and find_spec("arctic_inference") is None and SUFFIX not in notes:
            text = "skipped: arctic-inference is not installed (docs/benchmarks.md says how)"
            write(self._options.output, {"kind": "note", "way": SUFFIX, "text": text})
        if self._exact is None and EXACTNESS not in notes:
            text = "skipped: there is no small real model here; give one as --exact-model"
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

    def _settle_tier(self, children: Children, job: WayJob) -> None:
        for tier in [*TIERS][:1] if self._on_cpu else TIERS:
            self._carry_out(children, job, tier)
            if self._found().tier is not None:
                return
        raise EngineError(f"vLLM does not run here: {self._found().notes.get(SMOKE, 'no reason is known')}")

    def _carry_out(self, children: Children, job: WayJob, tier: str) -> None:
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
        self._progress(f"{job.way}: an engine is built; {self._left():.0f} s left")
        notes = self._found().notes
        began = time.monotonic()
        outcome = children.run(order, limit, self._watch)
        if outcome and self._found().notes.get(job.way) == notes.get(job.way):
            write(options.output, {"kind": "note", "way": job.way, "text": outcome})
        if outcome:
            self._progress(f"{job.way}: {self._found().notes[job.way]} (see {options.output / log_name(job.way)})")
        else:
            took = f"{time.monotonic() - began:.0f} s ({children.cpu_seconds:.0f} s of computing)"
            self._progress(f"{job.way}: done in {took}; {self._left():.0f} s left")

    def _watch(self) -> None:
        """Shows the figures that have come since the last time."""
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


def device_name(*, on_cpu: bool) -> str:
    """Of the first GPU as its driver names it, or `cpu`. Nothing here may touch a GPU: engines are forked later."""
    program = shutil.which("nvidia-smi")
    if on_cpu:
        return "cpu"
    if program is None:
        return "unknown GPU"
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    listed = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return listed[0].strip() if listed else "unknown GPU"


def _header(options: BenchOptions, model: str, on_cpu: bool) -> dict[str, Any]:
    return {
        "device": device_name(on_cpu=on_cpu),
        "cores": os.cpu_count(),
        "model": model,
        "model_path": str(options.model.resolve()) if options.model else "",
        "largest_batch": max(options.batches),
        "vllm": engine_version(),
        "torch": metadata.version("torch") if find_spec("torch") else "",
        "python": ".".join(map(str, sys.version_info[:3])),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": options.command,
    }


def _as_json(found: BenchFigures, made: list[table.BatchRow], ratios: list[dict[str, Any]], left: list[str]) -> Any:
    return {
        **found.header,
        "tier": found.tier,
        "rates": SOURCE,
        "batches": [asdict(row) for row in made],
        "exactness": found.exactness,
        "notes": found.notes,
        "busy": table.busy(made),
        "left": left,
        "draft_ratios": ratios,
    }


def command_of(program: str, arguments: list[str]) -> str:
    """The command as it was given, for the figures to say what they came from."""
    return shlex.join([*program.split(), *arguments])


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
