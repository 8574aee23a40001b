"""`openseer simulate --replay RUN`: simulates all policies with a run's lengths and compares them with the run."""

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from openseer_driver.run_folder import RunFolder
from openseer_local.terminal.console import ERR, OUT
from openseer_sim.bound import BOUND
from openseer_sim.recorded import read_run
from openseer_sim.replay import ORACLE, PolicyRow, Replay, engine_of_run, replay

TOLD = 1.02
"""Least ratio of speeds at which a policy is called faster: simulations have an error of about 2 %."""


def show_replay(
    run: Path, *, profile: Path | None = None, kv_tokens: int = 0, as_json: bool = False, console: Console = OUT
) -> None:
    """Simulates a run folder's lengths under all policies and prints the table. `profile`: step times in place of the
    manifest's; `kv_tokens`: KV tokens of one worker, if the profile does not state them. Raises InputError."""
    recorded = read_run(RunFolder(run))
    engine = engine_of_run(recorded, profile, kv_tokens)
    with ERR.status(f"simulating {recorded.folder.name} under every policy"):
        shown = replay(recorded, engine)
    if as_json:
        console.file.write(json.dumps(asdict(shown)) + "\n")
    else:
        console.print(page(shown))


def page(shown: Replay) -> RenderableType:
    """The sentence, the table, and the unknowns of the simulation."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("policy")
    for title in ("makespan s", "× the run", "tail s", "idle", "moves", "preempted"):
        table.add_column(title, justify="right")
    measured = shown.measured
    table.add_row(f"{measured.policy}, measured", *_cells(measured, measured), style="bold")
    for row in shown.rows:
        table.add_row(row.policy, *_cells(row, measured))
    size = f"{shown.requests:,} responses, {shown.tokens:,} tokens, {shown.workers} workers; steps: {shown.source}"
    lines = [Text(f"not known here: {line}", style="dim") for line in shown.unknown]
    return Group(Text(sentence(shown)), Text(size, style="dim"), Text(), table, Text(), *lines)


def sentence(shown: Replay) -> str:
    """Returns the main result: whether another policy would have been faster, and the error of the simulation."""
    if not shown.partial:
        return _found(shown)
    limit = "Responses of this run were cut or did not finish, and with their full lengths another policy may be best."
    return f"{limit} With what is known: {_found(shown)}"


def _found(shown: Replay) -> str:
    own, measured = shown.own, shown.measured
    open_ones = [row for row in shown.rows if row.policy not in (ORACLE, BOUND)]
    best = min(open_ones, key=lambda row: row.seconds)
    off = f"The simulation of the run itself is off by {own.seconds / measured.seconds - 1:+.1%}"
    if not shown.steady:
        off = f"The run itself is not simulated, for not all of {shown.workers} workers were there all the time"
    least = f"no order brings more than {own.seconds / shown.rows[-1].seconds:.2f} ×"
    if own.seconds <= TOLD * best.seconds:
        return (
            f"No policy does better with these lengths than {own.policy}, the run's own, by {TOLD - 1:.0%} or more; "
            f"{least}. {off}."
        )
    ratio = own.seconds / best.seconds
    return f"{best.policy} would have been {ratio:.2f} × as fast as {own.policy}; {least}. {off}."


def _cells(row: PolicyRow, measured: PolicyRow) -> list[str]:
    ratio = f"{measured.seconds / row.seconds:.2f}"
    if row.tail_seconds is None or row.idle is None:
        return [f"{row.seconds:,.1f}", ratio, "–", "–", "–", "–"]
    counts = (f"{row.moves:,}", f"{row.preemptions:,}")
    return [f"{row.seconds:,.1f}", ratio, f"{row.tail_seconds:,.1f}", f"{row.idle:.1%}", *counts]
