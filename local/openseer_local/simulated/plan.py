"""`openseer plan JOB.yaml`: recommends a fleet for a job, with time, GPU-hours and cost of each size."""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from openseer_core.errors import InputError, OutputError
from openseer_core.manifest.job import RolloutJob
from openseer_driver.report.pace import duration
from openseer_local.terminal.console import ERR, OUT
from openseer_sim.history import group_count, history_of
from openseer_sim.planning import JobPlan, PlannedFleet, PlanOptions, Spread, brief, make_plan, spoken
from openseer_sim.profile import engine_of

GPUS = "8..256"
START_SECONDS = 300.0
"""Default time from the request for workers to their first request, in seconds."""
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
MOST_SIZES = 32
MOST_DRAWS = 50


@dataclass(frozen=True, slots=True)
class PlanCommand:
    """Options of the command. `tail_release`: None uses the manifest's workers.tailRelease; `lengths`: NAME:MEAN, in
    tokens; `price`: of a GPU-hour."""

    gpus: str = GPUS
    history: Sequence[Path] = field(default_factory=tuple[Path, ...])
    lengths: str = ""
    profile: Path | None = None
    kv_tokens: int = 0
    groups: int | None = None
    deadline: str = ""
    price: float | None = None
    start_seconds: float = START_SECONDS
    tail_release: bool | None = None
    draws: int = 3
    plot: Path | None = None
    as_json: bool = False


def show_plan(job: RolloutJob, command: PlanCommand, console: Console = OUT) -> None:
    """Plans a job and prints the table. Raises InputError if lengths, step times or the KV cache's size are unknown or
    an option is wrong, OutputError if the plot cannot be written."""
    options = _options(job, command)
    engine = engine_of(job, command.profile, command.kv_tokens)
    history = history_of(job, command.history, command.lengths)
    if command.plot is not None:
        _require_writable(command.plot)
    began = time.monotonic()
    with ERR.status(f"simulating {job.name}") as status:

        def note(done: int, of: int) -> None:
            left = f", about {spoken((time.monotonic() - began) / done * (of - done))} more" if done else ""
            status.update(f"simulating {job.name}: {done} of {of} rollouts{left}")

        plan = make_plan(job, history, engine, options, command.groups or group_count(job), note)
    if command.plot is not None:
        from openseer_local.simulated.plot import plan_plot  # noqa: PLC0415 - matplotlib takes a second

        try:
            command.plot.write_text(plan_plot(plan), encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{command.plot}: cannot be written: {error.strerror}") from error
    if command.as_json:
        console.file.write(json.dumps(asdict(plan)) + "\n")
    else:
        console.print(page(plan))


def _require_writable(path: Path) -> None:
    """Raises OutputError if the file cannot be written; called before the simulation, which may take hours."""
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise OutputError(f"{path}: cannot be written: the folder is missing or not writable")


def gpu_sizes(text: str) -> tuple[int, ...]:
    """The fleet sizes of `text`: "8..256" doubles from 8 on; "8,12,16" lists them. Raises InputError."""
    if found := re.fullmatch(r"(\d{1,6})\.\.(\d{1,6})", text):
        low, high = int(found[1]), int(found[2])
        sizes = tuple(low << step for step in range(MOST_SIZES) if 0 < low << step <= high)
    else:
        listed = re.fullmatch(r"\d{1,6}(,\d{1,6})*", text)
        sizes = tuple(sorted({int(part) for part in text.split(",")})) if listed else ()
    if not sizes or sizes[0] < 1 or len(sizes) > MOST_SIZES:
        raise InputError(
            f"--gpus: found {text}, allowed: a range such as 8..256, which is doubled from 8 on, or up to {MOST_SIZES} "
            "numbers between commas"
        )
    return sizes


def seconds_of(text: str) -> float:
    """Seconds of a time such as 2h, 90min, 45m, 30s, or of a number. Raises InputError."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*(s|m|min|h)?", text)
    if found is None or not float(found[1]):
        raise InputError(f"--deadline: found {text}, allowed: a time such as 2h, 90min or 600s")
    return float(found[1]) * _UNITS[found[2] or ""]


def page(plan: JobPlan) -> RenderableType:
    """The advice, the table of fleets, the gain of each step, and the assumptions."""
    size = f"{plan.job}: {plan.groups:,} groups, {plan.requests:,} responses"
    lines = [Text(f"assumed: {line}", style="dim") for line in plan.assumptions]
    gap = Text()
    on = plan.chosen or plan.fleets[-1]
    title = Text(f"Gain of each step on {on.gpus} GPU{'s' if on.gpus > 1 else ''}, start not counted", style="bold")
    return Group(
        Text(plan.advice, style="bold"),
        Text(size, style="dim"),
        gap,
        _fleets(plan),
        gap,
        title,
        _gains(plan),
        gap,
        *lines,
    )


def _options(job: RolloutJob, command: PlanCommand) -> PlanOptions:
    if command.price is not None and not 0 <= command.price < 1e6:
        raise InputError(f"--price: found {command.price}, allowed: euros for a GPU-hour, from 0")
    if not 0 <= command.start_seconds < 1e6:
        raise InputError(f"--start: found {command.start_seconds}, allowed: seconds, from 0")
    if not 1 <= command.draws <= MOST_DRAWS:
        raise InputError(f"--draws: found {command.draws}, allowed: 1 to {MOST_DRAWS}")
    if command.groups is not None and command.groups < 1:
        raise InputError(f"--groups: found {command.groups}, allowed: 1 and more")
    return PlanOptions(
        gpu_sizes(command.gpus),
        seconds_of(command.deadline) if command.deadline else None,
        command.price,
        command.start_seconds,
        job.spec.workers.tail_release if command.tail_release is None else command.tail_release,
        command.draws,
    )


def _fleets(plan: JobPlan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("")
    priced = plan.fleets[0].cost is not None
    for title in ("GPUs", "workers", "min:s", "interval", "tail", "idle", "GPU-hours", *(["EUR"] if priced else [])):
        table.add_column(title, justify="right")
    if plan.fleets[0].in_time is not None:
        table.add_column("in time")
    for fleet in plan.fleets:
        chosen = fleet is plan.chosen
        table.add_row("→" if chosen else "", *_cells(fleet), style="bold" if chosen else "")
    return table


def _cells(fleet: PlannedFleet) -> list[str]:
    cells = [
        str(fleet.gpus),
        str(fleet.workers),
        duration(fleet.seconds.median),
        _interval(fleet.seconds),
        duration(fleet.tail_seconds.median),
        f"{fleet.idle:.0%}",
        brief(fleet.gpu_hours.median),
    ]
    if fleet.cost is not None:
        cells.append(f"{fleet.cost.median:,.2f}")
    if fleet.in_time is not None:
        cells.append("yes" if fleet.in_time else "no")
    return cells


def _gains(plan: JobPlan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("rollout")
    for title in ("min:s", "tail", "speed-up", "interval"):
        table.add_column(title, justify="right")
    for gain in plan.gains:
        tail = duration(gain.tail_seconds.median) if gain.tail_seconds is not None else "–"
        ratio = gain.speedup
        interval = f"{ratio.low:.2f}–{ratio.high:.2f}"
        table.add_row(gain.name, duration(gain.seconds.median), tail, f"{ratio.median:.2f} ×", interval)
    return table


def _interval(span: Spread) -> str:
    return f"{duration(span.low)}–{duration(span.high)}"
