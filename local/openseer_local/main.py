"""Composition root of the command `openseer`: parses arguments, runs commands, turns errors into a message and an exit
code."""

import asyncio
import json
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from openseer_core.errors import AuditError, InputError, ManifestError, OpenseerError
from openseer_core.manifest.home import at_home
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_ended_job, parse_job
from openseer_core.wording import unreadable
from openseer_driver import VERSION
from openseer_driver.run_folder import RunFolder
from openseer_local import bench
from openseer_local.manifest_yaml import read_yaml
from openseer_local.remote import batches, fleet
from openseer_local.remote.connection import Token, TokenFile
from openseer_local.simulated import commands as simulated
from openseer_local.terminal.console import ERR, OPTIONS, OUT, AllowFailures, AsJson, end_by_failures
from openseer_local.terminal.option_errors import CheckedCommands

if TYPE_CHECKING:
    from openseer_driver.report.report import Report

INTERRUPTED = 130
"""Exit code of a command that a signal stopped."""
UNEXPECTED = 70
"""Exit code for a defect of openseer."""


class ExportFormat(StrEnum):
    """Formats of exported results."""

    PARQUET = "parquet"

    def check(self, output: Path) -> None:
        """Raises InputError if the file's suffix names another format; a name without a suffix is accepted."""
        if output.suffix.lower() not in ("", f".{self}"):
            named = output.with_suffix(f".{self}")
            raise InputError(f"--output: {output} ends in {output.suffix}, but the format is {self}; name it {named}")


app = typer.Typer(
    name="openseer",
    cls=CheckedCommands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Runs the rollout phase of LLM reinforcement learning: every response of every prompt group, "
    "synchronously and without loss, over a fleet of vLLM workers.\n\n"
    "Begin with `openseer run examples/arithmetic.yaml`.",
    epilog="Exit codes: 0 done · 2 wrong input · 3 results cannot be written · 4 store or API failed · "
    "5 the job failed · 6 an audit found a violation · 7 the engine failed · 8 a worker's GPU is sick · "
    "9 responses have failed · 70 a defect of openseer · 130 stopped (resumable).",
)


Manifest = Annotated[Path, typer.Argument(help="A RolloutJob in YAML, as for `kubectl apply`.")]
Runs = Annotated[list[Path], typer.Argument(help="Folders of runs, such as runs/arithmetic.")]


@app.callback()
def _options(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    OPTIONS.debug = debug


@app.command()
def run(
    manifest: Manifest,
    output: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: the manifest's, or runs/NAME.")
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Start over: deletes an earlier run in the folder.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Serve a live page of the run on this machine.")] = False,
    allow_failures: AllowFailures = False,
    as_json: AsJson = False,
) -> None:
    """Runs a batch job on this machine, with its own Redis and workers.

    Writes results.jsonl, report.json and report.html to the run's folder. Ctrl-C stops cleanly, and the same command
    resumes the run. For a complete run it shows the report again and starts nothing.
    """
    from openseer_driver.report.html import write_report  # noqa: PLC0415
    from openseer_local.job_checks import has_pool  # noqa: PLC0415 - keeps `version` and `--help` fast
    from openseer_local.run.progress import ProgressDisplay  # noqa: PLC0415
    from openseer_local.run.runner import plan_run, run_job  # noqa: PLC0415

    document, job = load(manifest)
    _note_without_effect(job)
    folder = RunFolder(output or job.output_path)
    with ProgressDisplay(ERR if as_json else OUT, live=sys.stdout.isatty() and not as_json) as progress:
        progress.phase("reading prompts")
        plan = plan_run(job, document, folder, fresh=fresh, note=progress.detail)
        ran_before = plan.is_complete
        state = "complete" if ran_before else run_job(plan, progress, page=page)
    if ran_before:
        _note(f"{folder.path}: already complete, so nothing was started; --fresh starts over")
    again = f"to view the run: openseer view {folder.path}"
    if state == "stopped":
        if page:
            ERR.print(again, highlight=False, soft_wrap=True)
        ERR.print(f"stopped; the same command resumes from here ({folder.path})", highlight=False)
        raise typer.Exit(INTERRUPTED)
    report = write_report(folder)
    if as_json:
        typer.echo(report.to_json().decode(), nl=False)
    else:
        _show_report(report, folder, pool=has_pool(job))
    if page:
        (ERR if as_json else OUT).print(again, highlight=False, soft_wrap=True)
    end_by_failures(report.failures.text, allowed=allow_failures)


@app.command()
def serve(
    manifest: Manifest,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 8000,
    token: Annotated[str | None, typer.Option(help="Bearer token that callers must have.")] = None,
    token_file: Annotated[Path | None, typer.Option(help="File with that token; default: a new token.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder of store and logs; default: runs/NAME.")] = None,
    no_token_from: Annotated[
        str, typer.Option(help="Address of a machine whose calls need no token, for clients that cannot send one.")
    ] = "",
    fresh: Annotated[bool, typer.Option(help="Start over: deletes an earlier session's files in the folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Serves a job of mode serve on this machine: the trainers' API, with its own Redis and workers.

    Ctrl-C stops cleanly, and the same command resumes: open batches, results and weights are kept.
    """
    from openseer_local.bearer import given_token  # noqa: PLC0415 - as above
    from openseer_local.serve.plan import Address, ServingPlan  # noqa: PLC0415

    document, job = load(manifest)
    _note_without_effect(job)
    folder = RunFolder(output or f"runs/{job.name}")
    address = Address(host, port)
    plan = ServingPlan(job, document, folder, address, given_token(token, token_file), fresh, no_token_from)
    plan.check()
    bound = plan.address.bind()
    from openseer_local.serve.display import ServingDisplay  # noqa: PLC0415
    from openseer_local.serve.serving import (  # noqa: PLC0415 - a slow import; wrong input is reported before
        serve_job,
    )

    with ServingDisplay(ERR if as_json else OUT, live=sys.stdout.isatty() and not as_json) as display:

        def announce(url: str) -> None:
            token_at = None if plan.given_token else str(plan.token_file)
            if as_json:
                typer.echo(json.dumps({"url": url, "token_file": token_at, "output": str(folder.path)}))
            message = f"serving {url}; for clients:\n  export OPENSEER_URL={url}"
            message += f"\n  export OPENSEER_TOKEN_FILE={token_at}" if token_at else ""
            display.message(f"{message}\nlive page {url}/page/ (needs the token)")

        serve_job(plan, display, announce, bound)  # returns after a signal
    ERR.print(f"stopped; the same command resumes from here ({folder.path})", highlight=False)
    raise typer.Exit(INTERRUPTED)


@app.command()
def validate(manifest: Manifest, as_json: AsJson = False) -> None:
    """Checks a manifest, its prompts and its model's tokenizer, without starting anything."""
    from openseer_local.terminal.display import Display  # noqa: PLC0415 - as above
    from openseer_local.validation import checked  # noqa: PLC0415 - as above

    document, job = load(manifest)
    _note_without_effect(job)
    facts: dict[str, object] = {"name": job.name, "policy": job.spec.rollout.policy}
    with Display(ERR, live=ERR.is_terminal, quiet=True) as progress:
        facts |= checked(job, document, progress, _note)
    facts["workers"] = job.spec.workers.replicas
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        OUT.print(
            f"{manifest}: valid. " + ", ".join(f"{name} {value}" for name, value in facts.items()), highlight=False
        )


@app.command()
def audit(runs: Runs, as_json: AsJson = False) -> None:
    """Checks with a run's journal and store that every request has exactly one complete result.

    A run in a cluster is audited at its end, since its store is deleted then: for its folder that audit is shown.
    """
    from openseer_driver.audit.run import audit_run, kept_audit  # noqa: PLC0415 - as above

    reports: dict[str, dict[str, object]] = {}
    sound = True
    for path in runs:
        folder = RunFolder(path)
        folder.read_run()
        _, job = load(folder.job_file, ended=True)
        if job.spec.mode != "batch":
            raise InputError(f"{path}: found a serving job, whose results go to its trainer; allowed: a batch job")
        kept = kept_audit(folder)
        report = kept or asyncio.run(audit_run(folder, job))
        sound = sound and report.ok
        reports[str(path)] = report.as_dict()
        if not as_json:
            if kept:
                OUT.print(f"{path}: has no store/; this is the audit from the end of the run", highlight=False)
            for line in report.lines():
                OUT.print(f"{path}: {line}", highlight=False, markup=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps(reports))
    if not sound:
        raise typer.Exit(AuditError.exit_code)


@app.command()
def compare(runs: Runs, as_json: AsJson = False) -> None:
    """Shows the metrics of several runs in a table, relative to the first run."""
    from openseer_local.compare import compare as compared  # noqa: PLC0415 - as above

    comparison = compared([RunFolder(path) for path in runs])
    if as_json:
        typer.echo(json.dumps(comparison.as_dict()))
    else:
        OUT.print(comparison.table())


@app.command()
def view(
    run: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/arithmetic.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0: any free one.")] = 0,
) -> None:
    """Shows an ended run in the live page: serves the page on this machine until Ctrl-C."""
    from openseer_local.page.serving import view_run  # noqa: PLC0415 - as above

    view_run(RunFolder(run), port, lambda address, token: OUT.print(f"page {address}\ntoken {token}", highlight=False))


@app.command()
def explain(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN|URL",
            help="Folder of a run, running or ended, of this machine or a cluster; or the address of a running job: "
            "its API or page, or behind a gateway http(s)://…/jobs/NAMESPACE/NAME.",
        ),
    ],
    profile: Annotated[
        Path | None,
        typer.Option(help="An engine's step times, for a run with too few samples (docs/planning.md)."),
    ] = None,
    kv_tokens: Annotated[
        int, typer.Option(min=0, help="Capacity of a worker's KV cache in tokens, if the manifest does not state it.")
    ] = 0,
    token: Token = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Explains a run's time: its parts, the lower bound, and advice; for a running job, the time so far.

    Only a running job needs a token.
    """
    if not run.startswith(("http://", "https://")):
        from openseer_local.explained import show_explanation  # noqa: PLC0415 - as above

        show_explanation(RunFolder(run), profile=profile, kv_tokens=kv_tokens, as_json=as_json)
        return
    if profile is not None or kv_tokens:
        raise InputError("--profile, --kv-tokens: allowed only for the folder of a run: a running job is not simulated")
    from openseer_local.remote.explaining import show_running  # noqa: PLC0415 - as above

    show_running(run, token, token_file, as_json=as_json)


@app.command()
def trace(
    run: Annotated[Path, typer.Argument(help="Folder of a run, running or ended, of this machine or a cluster.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file, compressed if .gz; default: RUN/trace.json.gz.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Writes a run as a trace file for https://ui.perfetto.dev: workers, leases, moves, stalls, counts over time."""
    from openseer_driver.traces.trace_file import write_trace  # noqa: PLC0415 - as above

    folder = RunFolder(run)
    file = output or folder.trace_file
    counts = write_trace(folder, file)
    report = {"output": str(file), "workers": counts.workers, "leases": counts.leases, "moves": counts.moves}
    line = f"{file}: {counts.leases:,} leases of {counts.workers} workers, {counts.moves:,} moves; open it in Perfetto"
    typer.echo(json.dumps(report) if as_json else line)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a run, such as runs/arithmetic.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file; an existing one is replaced.")],
    form: Annotated[ExportFormat, typer.Option("--format", help="Format of the file.")] = ExportFormat.PARQUET,
    as_json: AsJson = False,
) -> None:
    """Writes a run's results as a table for pandas and `datasets`."""
    from openseer_driver.export import export_parquet  # noqa: PLC0415 - as above

    form.check(output)
    rows = export_parquet(RunFolder(run), output)
    report = {"output": str(output), "format": form, "results": rows}
    typer.echo(json.dumps(report) if as_json else f"{output}: {rows} results")


@app.command()
def version(as_json: AsJson = False) -> None:
    """Prints the version."""
    typer.echo(json.dumps({"openseer": VERSION}) if as_json else f"openseer {VERSION}")


batches.add_to(app)
fleet.add_to(app)
bench.add_to(app)
simulated.add_to(app, lambda path: load(path))


def load(path: Path, *, ended: bool = False) -> tuple[dict[str, Any], RolloutJob]:
    """Reads a manifest; returns its document and its job. `ended`: the run has ended. Raises ManifestError."""
    source = str(path)
    try:
        data = path.read_bytes()
        if data.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ManifestError(source, ["found UTF-16 text, allowed: UTF-8; save it as UTF-8"])
        document = read_yaml(data.decode("utf-8"), source)
    except OSError as error:
        raise ManifestError(source, [unreadable(error, Path.cwd)]) from error
    except UnicodeDecodeError as error:
        raise ManifestError(source, [f"not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8"]) from error
    document = at_home(document, os.environ.get("HOME"))
    return document, (parse_ended_job if ended else parse_job)(document, source)


def _note_without_effect(job: RolloutJob) -> None:
    from openseer_local.job_checks import without_effect  # noqa: PLC0415 - as above

    for line in without_effect(job):
        _note(line)


def _note(message: str) -> None:
    ERR.print(f"note: {message}", highlight=False, markup=False)


def _show_report(report: "Report", folder: RunFolder, *, pool: bool) -> None:
    from openseer_driver.report.contexts import pool_line  # noqa: PLC0415 - as above

    OUT.print(report.summary, highlight=False)
    if pool:
        OUT.print(pool_line(report.contexts, report.moves), highlight=False, soft_wrap=True)
    OUT.print(f"results {folder.results_file}\nreport  {folder.report_page}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the command `openseer`."""
    try:
        app(standalone_mode=True)
    except OpenseerError as error:
        if OPTIONS.debug:
            raise
        ERR.print(f"openseer: {error}", highlight=False, markup=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if OPTIONS.debug:
            raise
        ERR.print(
            f"openseer: defect: {type(error).__name__}: {error}; run again with `openseer --debug …` for the traceback",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        sys.exit(UNEXPECTED)
