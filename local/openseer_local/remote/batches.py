"""Commands on the batches of a served job: submit, results, status, cancel."""

import json
import re
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from openseer_core.admission import ModelLimits
from openseer_core.errors import InputError
from openseer_core.wire.batches import PriorityName, Purpose
from openseer_core.worker.metrics import WorkerMetrics
from openseer_local.remote.connection import LONG_PATIENCE_SECONDS, PATIENCE_SECONDS, Token, TokenFile, Url, connected
from openseer_local.terminal.console import ERR, OUT, AllowFailures, AsJson, end_by_failures

if TYPE_CHECKING:
    from openseer_client import Batch, BatchHandle, Client
    from openseer_core.wire.results import ResultPage
    from openseer_driver.report.failures import Failures
    from openseer_local.remote.displays import BatchDisplay
    from openseer_local.remote.results_file import ResultsFile

POLL_SECONDS = 0.5
"""Interval at which `submit --wait` reads the batch's state, in seconds."""
FOLLOW_SECONDS = 20.0
"""Time for which the API may delay its reply until there are results, in seconds."""
PAGE = 512
"""Limit of entries in one reply with results."""
_KEY = re.compile(r"[\x21-\x7e]{1,200}")

Number = Annotated[int, typer.Argument(metavar="BATCH", min=1, help="Number of a batch.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    for command in (submit, results, status, cancel):
        app.command()(command)


def submit(
    prompts: Annotated[
        Path, typer.Argument(help="Groups: a file of JSON lines (plain or gzip) or Parquet, or a dataset's folder.")
    ],
    batch: Annotated[int | None, typer.Option(min=1, help="Add to this batch, in place of opening a new one.")] = None,
    key: Annotated[str | None, typer.Option(help="Open a batch under this key; the same key finds it again.")] = None,
    version: Annotated[str | None, typer.Option(help="Weights that generate; default: the fleet's.")] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", min=1, max=1024, help="Responses per prompt.")] = None,
    target: Annotated[
        int | None, typer.Option(min=1, help="Number of finished groups at which the batch stops.")
    ] = None,
    rest: Annotated[Literal["cancel", "carry"], typer.Option(help="Treatment of the other groups then.")] = "cancel",
    carry: Annotated[bool, typer.Option("--carry", help="Take over groups that earlier batches carried over.")] = False,
    purpose: Annotated[Purpose, typer.Option(help="eval: runs next to training batches.")] = "train",
    priority: Annotated[PriorityName, typer.Option(help="Priority of the batch's requests.")] = "normal",
    seal: Annotated[bool, typer.Option(help="These are the batch's last groups.")] = True,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the batch is complete.")] = False,
    allow_failures: AllowFailures = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Opens a batch, or adds to one, and queues the groups of a file.

    Groups that the batch already has are not changed: after an interruption give the same command with --key or
    --batch again.
    """
    from openseer_client import BatchSpec, Target  # noqa: PLC0415 - keeps other commands fast
    from openseer_driver.report.failures import Failures  # noqa: PLC0415
    from openseer_local.remote.displays import BatchDisplay, is_live  # noqa: PLC0415
    from openseer_local.remote.sending import send  # noqa: PLC0415
    from openseer_local.remote.upload import GroupsFile  # noqa: PLC0415

    if key is not None and not _KEY.fullmatch(key):
        raise InputError("--key: allowed are 1 to 200 ASCII characters without spaces")
    groups = GroupsFile(prompts, n)
    if groups.lengths:
        ERR.print("note: lengths are for studies in batch jobs; a serving job ignores them", highlight=False)
    patience = LONG_PATIENCE_SECONDS if wait else PATIENCE_SECONDS
    with (
        connected(url, token, token_file, patience=patience) as client,
        BatchDisplay(ERR if as_json else OUT, live=is_live(as_json=as_json)) as display,
    ):
        spec = BatchSpec(
            weights_version=version,
            purpose=purpose,
            priority=priority,
            target=Target(groups=target, rest=rest) if target is not None else None,
            carry=carry,
        )
        if batch is not None and (key is not None or spec != BatchSpec()):
            raise InputError("--batch: that batch exists; --key, --version, --target … are allowed only for a new one")
        groups.require_fit([ModelLimits.of(worker.figures) for worker in client.workers()])
        handle = client.batch(batch) if batch is not None else client.open_batch(spec, key=key)
        receipt = send(handle, groups, display, is_own=batch is None and key is None)
        state = handle.seal() if seal else handle.status()
        if wait:
            state = _wait(handle, display)
    if as_json:
        typer.echo(json.dumps({**receipt.model_dump(), "batch": state.model_dump()}))
    else:
        present = f", {receipt.present:,} were already there" if receipt.present else ""
        OUT.print(f"batch {state.id} ({state.state}): {receipt.accepted:,} groups accepted{present}", highlight=False)
        OUT.print(f"read them with: openseer results {state.id} --output FILE --follow", highlight=False)
    if wait:
        failures = Failures(state.metrics.requests, state.metrics.requests_infra_failed)
        end_by_failures(failures.text, allowed=allow_failures)


def _wait(handle: "BatchHandle", display: "BatchDisplay") -> "Batch":
    while True:
        state = handle.status()
        display.show(state)
        if state.state in ("complete", "acknowledged"):
            return state
        time.sleep(POLL_SECONDS)


def results(
    batch: Number,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to append to; reading resumes after its last entry.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for further results until the batch is complete.")
    ] = False,
    acknowledge: Annotated[
        bool,
        typer.Option(
            "--acknowledge",
            help="Acknowledge results that are safe in the file; the API deletes the batch's data at the end.",
        ),
    ] = False,
    allow_failures: AllowFailures = False,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Reads a batch's results: one entry per line, of kind result or, at the end of a group, group.

    With --output the same command resumes after the file's last entry; each entry is written once. Without it, entries
    go to standard output.
    """
    from openseer_local.remote.displays import BatchDisplay, is_live  # noqa: PLC0415 - as above
    from openseer_local.remote.results_file import ResultsFile  # noqa: PLC0415

    if acknowledge and output is None:
        raise InputError("--acknowledge: needs --output, because only results in a file are safe")
    patience = LONG_PATIENCE_SECONDS if follow else PATIENCE_SECONDS
    with connected(url, token, token_file, patience=patience) as client:
        if output is None:
            failures = _print_results(client, batch, follow=follow)
            end_by_failures(failures.text, allowed=allow_failures)
            return
        with (
            ResultsFile(output, batch) as file,
            BatchDisplay(ERR, live=is_live(as_json=as_json)) if follow and not as_json else nullcontext() as display,
        ):
            state = _write_results(client.batch(batch), file, display, follow=follow, acknowledge=acknowledge)
        failures = file.failures.counted()
    if as_json:
        found = {"batch": batch, "results": file.results, "cursor": file.cursor, "state": state.state}
        typer.echo(msgspec.json.encode({**found, "failures": failures}).decode())
    else:
        OUT.print(f"{output}: {file.results:,} results of batch {batch}, which is {state.state}", highlight=False)
    end_by_failures(failures.text, allowed=allow_failures)


def _print_results(client: "Client", batch: int, *, follow: bool) -> "Failures":
    from openseer_driver.report.failures import FailureCount  # noqa: PLC0415 - as above

    cursor, failures = 0, FailureCount()
    while True:
        page = _page(client, batch, cursor, follow=follow)
        for item in page.items:
            typer.echo(item.model_dump_json())
            if item.kind == "result":
                failures.take(item.status, item.group, item.index, item.stop_reason)
        cursor = page.cursor
        if page.complete or not (follow or page.items):
            return failures.counted()


def _write_results(
    handle: "BatchHandle", file: "ResultsFile", display: "BatchDisplay | None", *, follow: bool, acknowledge: bool
) -> "Batch":
    while True:
        state = handle.status()
        if display is not None:
            display.show(state)
        if state.state == "acknowledged" and file.cursor >= state.last_cursor:
            return state
        page = _page(handle.client, handle.id, file.cursor, follow=follow)
        file.write(page.items)
        if display is not None:
            display.note("entries fetched", file.cursor, max(file.cursor, state.last_cursor))
        if acknowledge and file.cursor > state.acknowledged_cursor:
            file.sync()
            state = handle.acknowledge(file.cursor)
        if page.complete or not (follow or page.items):
            return handle.status()


def _page(client: "Client", batch: int, cursor: int, *, follow: bool) -> "ResultPage":
    from openseer_client.http import calls  # noqa: PLC0415 - as above

    return client.do(calls.results(batch, cursor, PAGE, FOLLOW_SECONDS if follow else 0.0))


def status(
    batch: Annotated[int | None, typer.Argument(min=1, help="Number of a batch; default: the whole job.")] = None,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Shows the job with its workers and batches, or one batch."""
    from openseer_local.terminal.draft_cells import draft_notes  # noqa: PLC0415
    from openseer_local.terminal.tables import (  # noqa: PLC0415
        batch_facts,
        batches_table,
        errors_of,
        job_line,
        transaction_line,
        weights_problems,
        workers_table,
    )

    with connected(url, token, token_file) as client:
        if batch is not None:
            state = client.batch(batch).status()
            if as_json:
                typer.echo(state.model_dump_json())
            else:
                OUT.print(batches_table([state]), batch_facts(state), sep="\n")
            return
        job, workers, batches = client.job(), client.workers(), client.batches()
    if as_json:
        shown = {"workers": workers, "batches": batches}
        lists = {name: [item.model_dump() for item in parts] for name, parts in shown.items()}
        typer.echo(json.dumps({"job": job.model_dump(), **lists}))
        return
    OUT.print(job_line(job), highlight=False, soft_wrap=True)
    if workers:
        notes = draft_notes(WorkerMetrics(worker.figures).speculation for worker in workers)
        OUT.print(workers_table(workers), *notes, *weights_problems(errors_of(workers)), sep="\n")
    if batches:
        OUT.print(batches_table(batches))
    if job.transaction is not None:
        OUT.print(transaction_line(job.transaction), soft_wrap=True)


def cancel(
    batch: Number,
    group: Annotated[list[str] | None, typer.Option(help="Only this group; may be given several times.")] = None,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Ends a batch's unfinished responses, or those of some groups; their tokens so far are reported."""
    with connected(url, token, token_file) as client:
        handle = client.batch(batch)
        count = handle.cancel(group or None)
        state = handle.status()
    if as_json:
        typer.echo(json.dumps({"count": count, "batch": state.model_dump()}))
    else:
        OUT.print(f"batch {batch} ({state.state}): {count:,} responses ended", highlight=False)
