"""Commands on the whole fleet: publishing weights, and lending GPUs to the trainer."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from openseer_core.errors import InputError
from openseer_core.weights.publish import OnFailure, PublishMode
from openseer_local.remote.connection import LONG_PATIENCE_SECONDS, PATIENCE_SECONDS, Token, TokenFile, Url, connected
from openseer_local.terminal.console import ERR, OUT, AsJson

if TYPE_CHECKING:
    from openseer_client import Client, Source, Transaction
    from openseer_core.wire.fleet import FleetState
    from openseer_core.wire.weights import Weights
    from openseer_local.remote.displays import WeightsDisplay

POLL_SECONDS = 0.2
"""Interval at which `weights publish` reads the transaction, in seconds."""

weights = typer.Typer(
    name="weights", no_args_is_help=True, help="Publishes new weights to the fleet, in one transaction."
)


Patience = Annotated[float, typer.Option(min=0, help="Timeout of waiting for all workers, in seconds.")]


def add_to(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.add_typer(weights)
    app.command()(release)
    app.command()(acquire)


@weights.command()
def publish(
    path: Annotated[str, typer.Argument(help="Folder of safetensors that all workers can read, or its http(s) URL.")],
    version: Annotated[str, typer.Option(help="Name of the new weights.")],
    mode: Annotated[
        PublishMode, typer.Option(help="Running responses: finish them, continue them on the new weights, or end them.")
    ] = "drain",
    on_failure: Annotated[
        OnFailure, typer.Option(help="After a worker's failure: return to the old weights, or continue without it.")
    ] = "abort",
    digest: Annotated[
        str | None, typer.Option(help="Digest of the files, if known: workers load no other files.")
    ] = None,
    wait: Annotated[bool, typer.Option(help="Wait until all workers have loaded them.")] = True,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Publishes weights: either all workers load them, or the fleet keeps its present weights.

    Repeating the command changes nothing: the same weights under the same version are one transaction.
    """
    from openseer_client import Publish, WeightsError  # noqa: PLC0415 - keeps other commands fast
    from openseer_local.remote.displays import WeightsDisplay, is_live  # noqa: PLC0415

    patience = LONG_PATIENCE_SECONDS if wait else PATIENCE_SECONDS
    with connected(url, token, token_file, patience=patience) as client:
        what = Publish(version=version, source=_source(path, digest), mode=mode, on_failure=on_failure)
        transaction = client.publish(what, wait=False)
        if wait:
            with WeightsDisplay(ERR if as_json else OUT, live=is_live(as_json=as_json)) as display:
                transaction = _follow(client, transaction, display)
        if transaction.phase == "failed":
            raise WeightsError(transaction, "not published")
    if as_json:
        typer.echo(transaction.model_dump_json())
    elif transaction.phase == "done":
        OUT.print(f"the fleet serves weights {version}", highlight=False)
    else:
        OUT.print("publishing; `openseer weights status` shows the progress", highlight=False)


def _source(path: str, digest: str | None) -> "Source":
    """Returns the source of the weights. A path is made absolute, since workers have another working directory."""
    from openseer_client import Source  # noqa: PLC0415 - as above

    if digest is not None and not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InputError(f"--digest: found {digest:.80}, allowed: 64 hexadecimal digits, in lower case")
    if path.startswith(("http://", "https://")):
        return Source(url=path, digest=digest)
    folder = Path(path).expanduser()
    if not folder.is_absolute() and not folder.is_dir():
        raise InputError(f"{path}: no such folder here; for a folder that only workers can read give its absolute path")
    return Source(path=str(folder.absolute()), digest=digest)


def _follow(client: "Client", transaction: "Transaction", display: "WeightsDisplay") -> "Transaction":
    """Displays the transaction until it ends or another one begins; returns its last state."""
    begun, offset = time.monotonic(), transaction.started_at
    while True:
        display.show(transaction, offset + time.monotonic() - begun)
        if transaction.phase in ("done", "failed"):
            return transaction
        time.sleep(POLL_SECONDS)
        now = client.weights()
        if now.transaction is None or now.transaction.id != transaction.id:
            phase = "done" if transaction.version in now.versions else "failed"
            return transaction.model_copy(update={"phase": phase, "waiting_for": []})
        transaction = now.transaction


@weights.command("status")
def weights_status(url: Url = None, token: Token = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Shows the fleet's weights, and the latest transaction with each of its workers."""
    with connected(url, token, token_file) as client:
        _show_weights(client.weights(), as_json=as_json)


@weights.command()
def abort(url: Url = None, token: Token = None, token_file: TokenFile = None, as_json: AsJson = False) -> None:
    """Aborts the running transaction: the fleet returns to the weights that it had."""
    with connected(url, token, token_file) as client:
        _show_weights(client.abort_weights(), as_json=as_json)


def _show_weights(now: "Weights", *, as_json: bool) -> None:
    from openseer_local.terminal.tables import (  # noqa: PLC0415 - as above
        adapter_lines,
        transaction_line,
        transaction_table,
        weights_problems,
    )

    if as_json:
        typer.echo(now.model_dump_json())
        return
    earlier = f" (before: {', '.join(now.versions[-6:-1])})" if len(now.versions) > 1 else ""
    OUT.print(f"the fleet serves weights {now.version}{earlier}", highlight=False, soft_wrap=True)
    for line in (*adapter_lines(now.adapters), *weights_problems(now.errors)):
        OUT.print(line, soft_wrap=True)
    if now.transaction is not None:
        OUT.print(transaction_line(now.transaction), soft_wrap=True)
        OUT.print(transaction_table(now.transaction))


def release(
    mode: Annotated[
        Literal["sleep", "stop"], typer.Option(help="sleep: engines free their memory. stop: all workers end.")
    ] = "sleep",
    patience: Patience = 600.0,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Lends the GPUs to the trainer; running responses continue after `acquire`."""
    from openseer_client import Release  # noqa: PLC0415 - as above

    with connected(url, token, token_file) as client, OUT.status("waiting for the workers to release the GPUs"):
        state = client.release(Release(mode=mode), patience=patience)
    _show_fleet(state, as_json=as_json)


def acquire(
    patience: Patience = 600.0,
    url: Url = None,
    token: Token = None,
    token_file: TokenFile = None,
    as_json: AsJson = False,
) -> None:
    """Takes the GPUs back and waits until the workers run."""
    with connected(url, token, token_file) as client, OUT.status("waiting for the workers"):
        state = client.acquire(patience=patience)
    _show_fleet(state, as_json=as_json)


def _show_fleet(state: "FleetState", *, as_json: bool) -> None:
    if as_json:
        typer.echo(state.model_dump_json())
        return
    spent = f"{state.busy_gpu_seconds:,.0f} busy, {state.idle_gpu_seconds:,.0f} idle"
    OUT.print(f"the fleet is {state.state}; GPU seconds of its workers: {spent}", highlight=False, soft_wrap=True)
