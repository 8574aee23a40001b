"""`openseer explain RUN`: a run's worker-seconds by use, the best possible times, and advice."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from openseer_core.errors import InputError
from openseer_core.explain.findings import Finding
from openseer_core.wire.page import PartOfTime, StandsOut
from openseer_driver.explain.explained import explain
from openseer_driver.explain.explanation import BestTimes, Explanation, TimePart
from openseer_driver.report.trace import Trace, read_trace
from openseer_driver.run_folder import RunFolder
from openseer_local.terminal.console import ERR, OUT
from openseer_sim.recorded import run_of
from openseer_sim.replay import best_times, engine_of_run

NOT_KNOWN = "not known"
MOST_SIMULATED = 16_384
"""Largest number of responses of a run whose best times are simulated; the simulation of so many takes a minute."""


def show_explanation(
    folder: RunFolder,
    *,
    profile: Path | None = None,
    kv_tokens: int = 0,
    as_json: bool = False,
    console: Console = OUT,
) -> None:
    """Prints the explanation of a run. `profile`, `kv_tokens`: as for `openseer simulate --replay`. Raises InputError
    for a folder without a run, or a run without results."""
    trace = read_trace(folder)
    if not trace.facts:
        raise InputError(f"{folder.path}: this folder has no results to explain")
    with ERR.status(f"simulating {folder.name} on healthy engines"):
        best, why = possible(folder, trace, profile, kv_tokens)
    found = explain(trace, best, why)
    if as_json:
        console.file.write(found.to_json().decode())
    else:
        console.print(page(found))


def possible(
    folder: RunFolder, trace: Trace, profile: Path | None = None, kv_tokens: int = 0
) -> tuple[BestTimes | None, str]:
    """Returns the best possible times and "", or None and the reason: the run is too large, or the engine's step times
    or KV cache are not known. If `profile` is given, the latter raises InputError instead."""
    if len(trace.facts) > MOST_SIMULATED:
        return None, f"{len(trace.facts):,} responses take minutes: see `openseer simulate --replay {folder.path}`"
    try:
        run = run_of(folder, trace)
        return best_times(run, engine_of_run(run, profile, kv_tokens)), ""
    except InputError as error:
        if profile is not None:
            raise
        return None, str(error)


def page(found: Explanation) -> RenderableType:
    """The findings, the parts of the time, the best times and the notes, for the terminal."""
    workers = f"{len(found.workers)} worker{'s' if len(found.workers) != 1 else ''}"
    size = (
        f"makespan {found.makespan_seconds:,.1f} s; before it {found.startup_seconds:,.1f} s, of them "
        f"{found.unqueued_seconds:,.1f} s before the first request was queued; {workers}, {found.worker_seconds:,.1f} "
        "worker-seconds"
    )
    notes = [Text(f"note: {line}", style="dim") for line in found.notes]
    unknown = found.best.unknown if found.best is not None else []
    notes += [Text(f"not known here: {line}", style="dim") for line in unknown]
    lines = finding_lines(found.findings)
    return Group(*lines, Text(), Text(size), parts_table(found.parts), Text(), _possible(found), *notes)


def finding_lines(findings: Sequence[Finding | StandsOut]) -> list[Text]:
    """One text per finding, with its cost and its advice."""
    lines = [Text(f"{at.says}. Cost: {at.share:.0%} of all workers' time.\n  → {at.advice}") for at in findings]
    return lines or [Text("Nothing stands out.")]


def parts_table(parts: Sequence[TimePart | PartOfTime]) -> Table:
    """Worker-seconds and share of each part."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("where the time went")
    for title in ("worker-seconds", "share"):
        table.add_column(title, justify="right")
    for part in parts:
        if part.worker_seconds is None or part.share is None:
            table.add_row(part.label, NOT_KNOWN, "")
        else:
            table.add_row(part.label, f"{part.worker_seconds:,.1f}", f"{part.share:.1%}")
    return table


def _possible(found: Explanation) -> Text:
    best, makespan = found.best, found.makespan_seconds
    if best is None:
        return Text(f"The best time possible is {NOT_KNOWN}: {found.no_best}")
    return Text(
        f"Possible makespans for these lengths, simulated on healthy engines: {best.known:,.1f} s with the lengths "
        f"known at each time (policy {best.policy}), {best.oracle:,.1f} s with an oracle, {best.bound:,.1f} s as the "
        f"lower bound (all engines full to the end). The run took {makespan / best.known:.2f}, "
        f"{makespan / best.oracle:.2f} and {makespan / best.bound:.2f} times as long."
    )
