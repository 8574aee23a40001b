"""Serves the page on the loopback interface, protected by a token that is printed at the start."""

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

from openseer_api.http.auth import BearerAuth
from openseer_api.http.server import WebServer
from openseer_api.job.context import JobContext
from openseer_api.page.app import page_app
from openseer_api.page.feed import JobFeed
from openseer_api.page.shown import Shown
from openseer_core.errors import InputError, ModelError
from openseer_core.manifest.job import RolloutJob
from openseer_driver.recorded_job import recorded_job
from openseer_driver.run_folder import RunFolder
from openseer_local.page.ended_run import EndedRun
from openseer_local.serve.plan import Address
from openseer_local.session import stop_on_signals
from openseer_store.port import Store
from openseer_text.reading import Reader
from openseer_text.rendering import open_codec

HOST = "127.0.0.1"
TOKEN_BYTES = 8
"""Number of random bytes of the token."""
CONNECTIONS = 64
"""Limit of open connections, because the run needs the other file descriptors of this process."""
FINISH_SECONDS = 1
"""Timeout of unfinished responses when the server stops, in seconds."""

OnAddress = Callable[[str, str], None]
"""Called with the page's address and its token once it listens."""


async def serve_page(shown: Shown, port: int, on_address: OnAddress) -> None:
    """Serves the page until cancelled. Raises InputError for a port that is not free."""
    bound, token = Address(HOST, port).bind(), secrets.token_hex(TOKEN_BYTES)
    address = f"http://{HOST}:{bound.getsockname()[1]}/page/"
    server = WebServer(
        page_app(shown, BearerAuth(token)),
        finish_seconds=FINISH_SECONDS,
        on_start=lambda: on_address(address, token),
        connections=CONNECTIONS,
    )
    task = asyncio.create_task(server.serve(sockets=[bound]))
    try:
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        await asyncio.wait({task}, timeout=2 * FINISH_SECONDS)


async def serve_running(job: RolloutJob, store: Store, on_address: OnAddress) -> None:
    """Serves the page of a running job until cancelled. The store stays open: it belongs to the run."""
    context = JobContext(job, store, run_code=True)
    text = asyncio.create_task(_load_text(context))
    try:
        await serve_page(JobFeed(context), 0, on_address)
    finally:
        text.cancel()


async def _load_text(context: JobContext) -> None:
    """Loads the tokenizer. Without one, the page shows responses as token ids."""
    try:
        await context.codec()
    except ModelError:
        return


def view_run(folder: RunFolder, port: int, on_address: OnAddress) -> None:
    """Serves the page of an ended run until SIGINT or SIGTERM. Raises InputError."""
    job, _ = recorded_job(folder, folder.read_run())
    if folder.is_written:
        raise InputError(
            f"{folder.path}: this run has not ended: view it with openseer run --page, or after its end with openseer "
            "view"
        )
    if job.spec.mode != "batch":
        raise InputError(f"{folder.path}: the folder of a job of mode {job.spec.mode}, which keeps no results to view")
    reader, no_text = reader_of(job)
    shown = EndedRun(folder, job, reader, no_text)

    async def until_stopped() -> None:
        stopped = asyncio.Event()
        stop_on_signals(stopped.set)
        served = asyncio.create_task(serve_page(shown, port, on_address))
        stop = asyncio.create_task(stopped.wait())
        await asyncio.wait({served, stop}, return_when=asyncio.FIRST_COMPLETED)
        if served.done():
            served.result()
        served.cancel()
        await asyncio.gather(served, return_exceptions=True)

    asyncio.run(until_stopped())


def reader_of(job: RolloutJob) -> tuple[Reader | None, str]:
    """Loads the model's tokenizer; returns None and the reason if it is not on this machine. Runs no model code."""
    try:
        return open_codec(job.spec.model, lambda _: None, run_code=False).read, ""
    except ModelError as error:
        place = job.spec.model.tokenizer_path
        there = Path(place)
        hint = "" if there.is_absolute() or there.exists() else ": view the run from the folder where it was started"
        return None, f"no tokenizer at {place} here, so token ids are shown{hint} ({error})"
