"""Tables of a serving job: its workers, its batches, its weights. Shared by `serve` and the commands."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from openseer_core.wire.batches import Batch
from openseer_core.wire.fleet import FleetState, JobStatus, WorkerInfo
from openseer_core.wire.weights import ServedAdapter, Transaction
from openseer_core.worker.metrics import WorkerMetrics
from openseer_driver.report.pace import duration
from openseer_local.terminal.draft_cells import draft_cell

STATE_STYLES = {
    "busy": "green",
    "idle": "dim",
    "starting": "cyan",
    "draining": "yellow",
    "sick": "red",
    "open": "cyan",
    "sealed": "green",
    "done": "green",
    "failed": "red",
    "rollback": "yellow",
}
BAR_WIDTH = 20


def job_line(job: JobStatus) -> str:
    """The job in one line."""
    return "  ".join(
        [
            f"{job.name}: weights {job.weights_version}",
            f"{job.workers_ready}/{job.workers} workers ready",
            f"{job.queue_depth:,} waiting",
            f"{job.running:,} running",
            *_fleet(job.fleet),
        ]
    )


def _fleet(state: FleetState) -> list[str]:
    """The state of the GPUs; empty while openseer has them."""
    if state.state == "awake":
        return []
    waiting = f", waiting for {', '.join(state.waiting_for)}" if state.waiting_for else ""
    return [f"GPUs {state.state}{waiting}"]


def workers_table(workers: Sequence[WorkerInfo], rates: Mapping[str, float] | None = None) -> Table:
    """Returns a table with a row per worker. `rates`: tokens per second, by worker; None shows total tokens."""
    amount = "tok/s" if rates is not None else "tokens"
    table = _table("worker", "state", "weights", right=("running", "KV", amount, "tok/step"))
    for worker in workers:
        metrics = WorkerMetrics(worker.figures)
        tokens = rates.get(worker.name, 0.0) if rates is not None else metrics.tokens
        table.add_row(
            escape(worker.name),
            Text(worker.state, style=STATE_STYLES.get(worker.state, "")),
            escape(worker.version or "–"),
            f"{worker.inflight}/{metrics.get('slots', '–')}",
            f"{metrics.kv_used:.0%}",
            f"{tokens:,.0f}",
            draft_cell(metrics.speculation, metrics.drafts),
        )
    return table


def adapter_lines(adapters: Sequence[ServedAdapter]) -> list[Text]:
    """A line for each served LoRA adapter: its version, and the version of its base weights."""
    return [Text(f"adapter {adapter.name}: {adapter.version}, on weights {adapter.base}") for adapter in adapters]


def weights_problems(errors: Mapping[str, str]) -> list[Text]:
    """Returns a line for each cause of a failure to load the fleet's weights. `errors`: causes by worker."""
    names: dict[str, list[str]] = {}
    for worker, error in errors.items():
        names.setdefault(error, []).append(worker)
    whose = ((", ".join(workers), error) for error, workers in names.items())
    return [Text(f"{workers}: the fleet's weights are not loaded: {error}", style="red") for workers, error in whose]


def errors_of(workers: Sequence[WorkerInfo]) -> dict[str, str]:
    """Returns by worker the cause of a failure to load the fleet's weights."""
    return {worker.name: worker.error for worker in workers if worker.error}


def batches_table(batches: Sequence[Batch]) -> Table:
    """Returns a table with a row per batch."""
    table = _table("batch", "state", "weights", "", right=("responses", "groups", "tok/s", "ETA"))
    for batch in batches:
        counts = batch.metrics
        closed = closed_of(batch)
        table.add_row(
            f"{batch.id}" + (" eval" if batch.purpose == "eval" else ""),
            Text(batch.state, style=STATE_STYLES.get(batch.state, "")),
            escape(batch.weights_version),
            ProgressBar(total=max(1, counts.requests), completed=closed, width=BAR_WIDTH),
            f"{closed:,}/{counts.requests:,}",
            f"{counts.groups_finished:,}/{counts.groups:,}",
            f"{counts.tokens_per_second:,.0f}",
            eta(batch),
        )
    return table


def closed_of(batch: Batch) -> int:
    """Responses of a batch that have ended."""
    return round(batch.progress * batch.metrics.requests)


def eta(batch: Batch) -> str:
    """Returns the time left, marked in the tail; "–" for an ended batch or an unknown time."""
    if batch.state in ("complete", "acknowledged"):
        return "–"
    left = duration(batch.eta_seconds) if batch.eta_seconds is not None else "–"
    return f"{left} tail" if batch.tail else left


def batch_facts(batch: Batch) -> Table:
    """Returns a table of one batch with one fact per row."""
    counts = batch.metrics
    ended = {
        "whole": counts.requests_ok,
        "aborted": counts.requests_aborted,
        "failed": counts.requests_infra_failed,
        "carried over": counts.requests_carried_over,
    }
    facts = {
        "state": batch.state,
        "weights": batch.weights_version,
        "purpose": f"{batch.purpose}, priority {batch.priority}",
        "groups": f"{counts.groups_finished:,} of {counts.groups:,} ended, {counts.groups_whole:,} whole",
        "responses": f"{closed_of(batch):,} of {counts.requests:,} ended: "
        + ", ".join(f"{count:,} {what}" for what, count in ended.items() if count or what == "whole"),
        "tokens": f"{counts.tokens:,}, {counts.tokens_per_second:,.0f} a second",
        "drafts": f"{counts.acceptance_length:.2f} tokens a step; {counts.accepted_tokens:,} of "
        f"{counts.drafted_tokens:,} drafted tokens accepted, {counts.draft_share:.0%} of all tokens",
        "lengths": f"mean {counts.length_mean:,.0f}, longest {counts.length_max:,}",
        "time": f"{duration(counts.seconds)}, on the last tenth {duration(counts.tail_seconds)}; left: {eta(batch)}",
        "results": f"{batch.last_cursor:,} entries, {batch.acknowledged_cursor:,} acknowledged",
    }
    if not counts.drafted_tokens:
        del facts["drafts"]
    if batch.target is not None:
        met = "met" if batch.target_met else f"{batch.wanted:,} more groups wanted"
        facts["target"] = f"{batch.target.groups:,} {batch.target.count} groups, then {batch.target.rest}: {met}"
    table = Table.grid(padding=(0, 2))
    for name, fact in facts.items():
        table.add_row(Text(name, style="dim"), escape(fact))
    return table


def transaction_line(transaction: Transaction, now: float | None = None) -> Text:
    """A transaction in one line. `now`: seconds of the store's clock, for the duration of a running one."""
    end = transaction.finished_at if transaction.finished_at is not None else now
    what = f"adapter {transaction.adapter}" if transaction.adapter else "weights"
    old = f"{transaction.previous} → " if transaction.previous else ""
    parts = [
        f"{what} {old}{transaction.version} ({transaction.mode}): ",
        (transaction.phase, STATE_STYLES.get(transaction.phase, "bold")),
    ]
    if end is not None:
        parts.append(f", {max(0.0, end - transaction.started_at):.1f} s")
    if transaction.waiting_for and transaction.phase != "failed":
        parts.append(f", waiting for {', '.join(transaction.waiting_for)}")
    if transaction.message:
        parts.append(f", {transaction.message}")
    return Text.assemble(*parts)


def transaction_table(transaction: Transaction) -> Table:
    """Returns a table of the last phase that each worker has confirmed, with its times and its error."""
    table = _table("worker", "serves", "confirmed", right=("attempt", "prefetch", "load", "canary"))
    for worker in transaction.workers:
        seconds = worker.seconds
        table.add_row(
            escape(worker.worker),
            escape(worker.version or "–"),
            escape(worker.phase or "–"),
            f"{worker.attempt + 1}",
            *(f"{seconds[name]:.2f} s" if name in seconds else "–" for name in ("prefetch", "load")),
            f"{worker.canary_difference:.1e}" if worker.canary_difference is not None else "–",
        )
        if worker.error:
            table.add_row("", Text(worker.error, style="red"))
    return table


def _table(*titles: str, right: Sequence[str] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in titles:
        table.add_column(title)
    for title in right:
        table.add_column(title, justify="right")
    return table
