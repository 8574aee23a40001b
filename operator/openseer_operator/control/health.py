"""The HTTP server for health, readiness and metrics."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import CollectorRegistry

from openseer_operator.control.loop import Loop
from openseer_operator.kube.api import Api
from openseer_operator.kube.census import Census
from openseer_operator.kube.lease import Elector

MOST_LAG_SECONDS = 300.0
"""Limit of the longest present wait or reconcile step of a job, in seconds; beyond it the loop counts as stuck."""
MOST_SILENCE_SECONDS = 120.0
"""Limit of the time without an answer of the API server, in seconds. Beyond it /healthz fails: the restarted process
opens new connections."""

HealthCheck = Callable[[], str]
"""Returns the problem that the check found, "" for none."""


def health_checks(api: Api, elector: Elector, loop: Loop, census: Census) -> list[HealthCheck]:
    """The checks of /healthz. Only the leader checks the lag of the loop and the completeness of the watch."""

    def api_answers() -> str:
        silence = time.monotonic() - api.answered_at
        return f"the Kubernetes API has not answered for {silence:.0f} s" if silence > MOST_SILENCE_SECONDS else ""

    def loop_keeps_up() -> str:
        return f"a job has waited for {loop.lag:.0f} s" if elector.leads and loop.lag > MOST_LAG_SECONDS else ""

    def watch_is_complete() -> str:
        return census.stuck if elector.leads else ""

    return [api_answers, elector.late, loop_keeps_up, watch_is_complete]


@asynccontextmanager
async def serve_http(
    port: int, checks: list[HealthCheck], ready: HealthCheck, registry: CollectorRegistry
) -> AsyncGenerator[None]:
    """Serves /healthz (200 while `checks` find no problem), /readyz (200 while `ready` finds none), and /metrics."""

    async def healthz(_: web.Request) -> web.Response:
        return _response("; ".join(filter(None, (check() for check in checks))))

    async def readyz(_: web.Request) -> web.Response:
        return _response(ready())

    async def metrics(_: web.Request) -> web.Response:
        text = await asyncio.to_thread(generate_latest, registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, port=port).start()
        yield
    finally:
        await runner.cleanup()


def _response(problem: str) -> web.Response:
    return web.Response(text=problem or "ok", status=503 if problem else 200)
