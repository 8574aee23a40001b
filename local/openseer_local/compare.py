"""Compares runs: the metrics that decide between policies, each relative to the first run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from openseer_driver.report.report import Report, make_report
from openseer_driver.report.trace import read_trace
from openseer_driver.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the table. `key`: the metric's name in JSON; `form`: number format; `relative`: adds the ratio to the
    first run's value."""

    title: str
    key: str
    value: Callable[[Report], float]
    form: str
    relative: bool = False


_COLUMNS = (
    _Column("makespan s", "makespan_seconds", lambda report: report.makespan_seconds, ",.1f", relative=True),
    _Column("tail s", "tail_seconds", lambda report: report.tail_seconds, ",.1f", relative=True),
    _Column("tok/s", "tokens_per_second", lambda report: report.tokens_per_second, ",.0f", relative=True),
    _Column("tok/step", "acceptance_length", lambda report: report.acceptance_length, ".2f"),
    _Column("requests", "requests_total", lambda report: report.requests_total, ",.0f"),
    _Column("tokens", "tokens_total", lambda report: report.tokens_total, ",.0f"),
    _Column("requeues", "requeues", lambda report: report.requeues, ",.0f"),
    _Column("moves", "moves", lambda report: report.moves, ",.0f"),
    _Column("preempted", "preemptions", lambda report: report.preemptions, ",.0f"),
    _Column("idle", "idle_share", lambda report: report.idle_share, ".1%"),
)


@dataclass(frozen=True, slots=True)
class ComparedRun:
    """One run's metrics by name. `relative`: ratios of times and rates to the first run's, if the latter are not 0."""

    name: str
    policy: str
    state: str
    workers: int
    metrics: dict[str, float]
    relative: dict[str, float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The compared runs in the given order, and notes on differences that limit the comparison."""

    runs: tuple[ComparedRun, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, object]:
        """Returns the comparison as JSON's types, for `--json`."""
        runs = [
            {
                "name": run.name,
                "policy": run.policy,
                "state": run.state,
                "workers": run.workers,
                **run.metrics,
                "relative": run.relative,
            }
            for run in self.runs
        ]
        return {"runs": runs, "notes": list(self.notes)}

    def table(self) -> Table:
        """Returns a table for the terminal, with one row per run."""
        table = Table(header_style="bold", caption="\n".join(self.notes) or None, caption_justify="left")
        table.add_column("run")
        table.add_column("policy")
        for column in _COLUMNS:
            table.add_column(column.title, justify="right")
        for position, run in enumerate(self.runs):
            cells = [_cell(run, column, show_relative=position > 0) for column in _COLUMNS]
            name = run.name if run.state == "complete" else f"{run.name} ({run.state})"
            table.add_row(Text(name), Text(run.policy), *cells)
        return table


def compare(runs: Sequence[RunFolder]) -> Comparison:
    """Computes the metrics of all runs and their ratios to the first run's. Raises InputError for a folder
    without a run."""
    reports = [make_report(read_trace(run)) for run in runs]
    names = [run.name for run in runs]
    compared = [_compared(name, report, reports[0]) for name, report in zip(names, reports, strict=True)]
    return Comparison(tuple(compared), tuple(_notes(names, reports)))


def _compared(name: str, report: Report, first: Report) -> ComparedRun:
    metrics = {column.key: column.value(report) for column in _COLUMNS}
    relative = {
        column.key: column.value(report) / column.value(first)
        for column in _COLUMNS
        if column.relative and column.value(first)
    }
    return ComparedRun(name, report.policy, report.state, len(report.workers), metrics, relative)


def _cell(run: ComparedRun, column: _Column, *, show_relative: bool) -> Text:
    text = Text(format(run.metrics[column.key], column.form))
    if show_relative and column.key in run.relative:
        text.append(f"  ×{run.relative[column.key]:.2f}", style="dim")
    return text


def _notes(names: Sequence[str], reports: Sequence[Report]) -> list[str]:
    notes: list[str] = []
    first = reports[0] if reports else None
    for name, report in zip(names, reports, strict=True):
        if report.state != "complete":
            notes.append(f"{name} is {report.state}: its metrics cover the finished requests.")
        if report.failures.failed:
            notes.append(f"{name}: {report.failures.text}.")
        if first and report.requests_total != first.requests_total:
            notes.append(f"{name} has {report.requests_total:,} results, {names[0]} {first.requests_total:,}.")
        if first and len(report.workers) != len(first.workers):
            notes.append(f"{name} ran on {_workers(report)}, {names[0]} on {_workers(first)}.")
    return notes


def _workers(report: Report) -> str:
    count = len(report.workers)
    return f"{count} worker{'s' if count != 1 else ''}"
