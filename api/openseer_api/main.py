"""The gateway's process, `python -m openseer_api.main`: serves jobs of mode serve, and shows all jobs on its page."""

import asyncio
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from pathlib import Path

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from openseer_api import heap
from openseer_api.app import create_app
from openseer_api.cluster.auth import KubernetesAuth
from openseer_api.cluster.client import Kube
from openseer_api.cluster.controlled_job import ControlledJob
from openseer_api.cluster.directory import KubeDirectory
from openseer_api.cluster.jobs import KubeJobs
from openseer_api.cluster.rows import RowsOfPod
from openseer_api.cluster.rows_memory import ALL_BYTES, RowsMemory
from openseer_api.http.server import WebServer
from openseer_api.job.context import JobContext, UnopenedJob
from openseer_api.job.metrics import calls_of
from openseer_core.errors import InputError, OpenseerError
from openseer_core.manifest.job import RolloutJob
from openseer_process.families import Collected
from openseer_process.logs import start_log
from openseer_process.pod_http import PodHttp
from openseer_process.span_export import SpanTaker, span_export
from openseer_process.store_access import StoreAccess
from openseer_store.connect import open_store
from openseer_store.redis_link import TELL_SECONDS

STORE_SECONDS = 5.0
"""Time for which a call to a job's store is retried, in seconds; then the HTTP response is 503."""
LOOKED_SECONDS = 120.0
"""Time for which stores of jobs of mode batch stay open after the page's last call, in seconds. The page calls at least
every 60 s, because its streams end then."""
FINISH_SECONDS = 15
"""Time in which open HTTP responses may end after a signal to stop, in seconds.
Clients continue streams at another replica."""

log = logging.getLogger("openseer_api")


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The gateway's settings. `watched`: namespaces whose jobs are served, empty: all. `audiences`: see KubernetesAuth.
    `metrics_port`: of the process's own metrics for Prometheus. `stores`: keys and rules for
    the access to jobs' stores."""

    watched: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    port: int = 8080
    metrics_port: int = 8081
    stores: StoreAccess = field(default_factory=lambda: StoreAccess(Path()))

    @staticmethod
    def read(environment: Mapping[str, str] = os.environ) -> "GatewaySettings":
        """Reads the environment variables OPENSEER_*. Raises InputError with the name of a wrong variable."""

        def names(name: str) -> tuple[str, ...]:
            return tuple(filter(None, environment.get(name, "").split(",")))

        def number(name: str, usual: int) -> int:
            value = environment.get(name, str(usual))
            if not value.isdecimal():
                raise InputError(f"{name}: found {value!r}, allowed: a number")
            return int(value)

        watched, audiences = names("OPENSEER_WATCH_NAMESPACES"), names("OPENSEER_API_AUDIENCES")
        ports = number("OPENSEER_HTTP_PORT", 8080), number("OPENSEER_METRICS_PORT", 8081)
        return GatewaySettings(watched, audiences, *ports, StoreAccess.read(environment))


class ServedJobs:
    """The directory of the gateway. `open`: jobs of mode serve; `find` marks a job as used. `shown`: jobs of mode
    batch, which only the page shows: their stores are open while a browser has the page open, without a batch
    controller."""

    def __init__(self, jobs: KubeJobs, batch: KubeJobs, access: StoreAccess, spans: SpanTaker | None = None) -> None:
        opened = partial(_open_job, access, RowsMemory(ALL_BYTES), spans)
        self.open = KubeDirectory(jobs, opened, ControlledJob.end, _renew_job, attrgetter("is_troubled"))
        self.shown = KubeDirectory(batch, partial(_open_shown, access), JobContext.close, JobContext.renew)
        self._looked_at = float("-inf")

    def is_looked_at(self) -> bool:
        """Whether the page was called in the last LOOKED_SECONDS."""
        return time.monotonic() - self._looked_at < LOOKED_SECONDS

    async def find(self, namespace: str, name: str) -> JobContext | None:
        """Returns the job's context, and marks the job as used; None if no such job serves."""
        controlled = await self.open.find(namespace, name)
        if controlled is None:
            return None
        controlled.mark_used()
        return controlled.context

    async def find_shown(self, namespace: str, name: str) -> JobContext | None:
        """Returns the context of a job of either mode; None if the job does not exist or has ended."""
        self._looked_at = time.monotonic()
        return await self.find(namespace, name) or await self.shown.find(namespace, name)

    def open_jobs(self) -> list[JobContext]:
        """Returns the jobs that are open in this process."""
        self._looked_at = time.monotonic()
        return [*(controlled.context for controlled in self.open.opened()), *self.shown.opened()]

    def unopened(self) -> list[UnopenedJob]:
        """Returns the jobs that should be open and are not."""
        found = [*self.open.unopened(), *self.shown.unopened()]
        return [UnopenedJob(job.namespace, job.name, job.spec.mode, reason) for job, reason in found]


async def _open_job(
    access: StoreAccess, memory: RowsMemory, spans: SpanTaker | None, job: RolloutJob, url: str
) -> ControlledJob:
    """Opens a job of mode serve and starts its controller. Raises StoreUnavailableError if the store does not respond,
    or its address is not allowed."""
    store = await open_store(
        url,
        job.name,
        job.namespace,
        retry_seconds=STORE_SECONDS,
        tells_again=True,
        others_seconds=TELL_SECONDS,
        dial=access.dial(job),
    )
    captures = job.spec.routing.capture is not None
    rows = RowsOfPod(job, url, access.dial(job), memory) if captures else None
    context = JobContext(job, store, on_codec=heap.keep, rows=rows, spans=spans)
    if rows is not None:
        context.closing.append(rows.close)
    return ControlledJob(context)


async def _open_shown(access: StoreAccess, job: RolloutJob, url: str) -> JobContext:
    """Opens a job of mode batch, which is only read: its driver controls it. Raises StoreUnavailableError."""
    store = await open_store(url, job.name, job.namespace, retry_seconds=STORE_SECONDS, dial=access.dial(job))
    return JobContext(job, store, on_codec=heap.keep)


def _renew_job(controlled: ControlledJob, job: RolloutJob) -> None:
    controlled.context.renew(job)


def gateway(kube: Kube, settings: GatewaySettings, directory: ServedJobs, refused: Counter[int]) -> FastAPI:
    """Returns the application, with tasks that watch the cluster's jobs. `refused`: see create_app."""

    @asynccontextmanager
    async def watching(_app: FastAPI) -> AsyncGenerator[None]:
        tasks = [
            asyncio.create_task(directory.open.watch(), name="watch jobs"),
            asyncio.create_task(directory.shown.watch(directory.is_looked_at), name="watch jobs of mode batch"),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
            await directory.open.close()
            await directory.shown.close()

    auth = KubernetesAuth(kube, settings.audiences)
    synced = partial(attrgetter("open.synced"), directory)
    return create_app(directory, auth, many=True, ready=synced, lifespan=watching, refused=refused)


def _metrics_server(port: int, directory: ServedJobs, refused: Counter[int]) -> PodHttp:
    """Returns the server of the process's metrics. Its port is not that of the API, which may be reachable from
    outside."""
    registry = CollectorRegistry()
    registry.register(Collected(lambda: calls_of([job.context for job in directory.open.opened()], refused)))
    return PodHttp(port, ready=lambda: directory.open.synced, alive=lambda: True, registry=registry)


async def serve(settings: GatewaySettings) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit code."""
    kube = await Kube.connect()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(kube.close)
        spans = await stack.enter_async_context(span_export())
        everywhere = ""  # all addresses, IPv4 and IPv6
        served = KubeJobs(kube, settings.watched, settings.stores)
        batch = KubeJobs(kube, settings.watched, settings.stores, mode="batch")
        directory = ServedJobs(served, batch, settings.stores, spans)
        refused: Counter[int] = Counter()
        app = gateway(kube, settings, directory, refused)
        server = WebServer(app, host=everywhere, port=settings.port, finish_seconds=FINISH_SECONDS, on_start=heap.keep)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        with _metrics_server(settings.metrics_port, directory, refused):
            await server.serve()
        return 0


def main() -> int:
    """The entry point; returns the exit code. An OpenseerError is logged as one line."""
    start_log()
    try:
        return asyncio.run(serve(GatewaySettings.read()))
    except OpenseerError as error:
        log.error("error: %s", error)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
