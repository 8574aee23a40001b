"""A server of one job on a free port, with workers on scripted engines, all in the test's event loop."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncGenerator, Sequence
from math import inf
from typing import Any

import httpx

from openseer_api.app import create_app
from openseer_api.batch_controller import control
from openseer_api.http.auth import Authenticator, BearerAuth
from openseer_api.http.server import WebServer
from openseer_api.job.context import JobContext, OneJob, UploadLimits
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_process.span_export import SpanTaker
from openseer_store.memory import MemoryStore
from openseer_store.port import Store
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.settings import WorkerSettings

TOKEN = "let-me-in"
STEP_SECONDS = 0.002
LONG = {"maxTokens": 30_000, "minTokens": 30_000}
"""Sampling of responses that take a minute, so that a test finds them running."""
HELD_STEPS = 25
"""Number of steps that a held engine makes before it stops."""


def serving_job(name: str = "served", *, workers: int = 2, **spec: Any) -> RolloutJob:
    """A job of mode serve on the scripted engine; keyword arguments replace parts of the spec."""
    base: dict[str, Any] = {
        "mode": "serve",
        "model": {
            "path": "none",
            "engine": "scripted",
            "scripted": {"stepSeconds": STEP_SECONDS, "stepSecondsPerRequest": 0.0, "slots": 8},
        },
        "groupSize": 4,
        "sampling": {"maxTokens": 40},
        "rollout": {"quantumTokens": 16, "leaseSeconds": 2, "checkpointSeconds": 0.05},
        "workers": {"replicas": workers},
    }
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name},
        "spec": base | spec,
    }
    return parse_job(document, "test")


class Served:
    """A running server: `async with Served(job, store) as served`. `http`: a client with the valid token.

    `held`: engines make HELD_STEPS steps and then stop until `release`.
    """

    def __init__(
        self,
        job: RolloutJob | None = None,
        store: Store | None = None,
        *,
        auth: Authenticator | None = None,
        limits: UploadLimits | None = None,
        port: int = 0,
        trusted: str = "",
        held: bool = False,
        spans: SpanTaker | None = None,
    ) -> None:
        self.job = job or serving_job()
        self.store = store or MemoryStore()
        self.context = JobContext(self.job, self.store, limits, spans=spans)
        self.app = create_app(
            OneJob(self.context), auth or BearerAuth(TOKEN), trusted=trusted, refused=self.context.calls
        )
        self._server = WebServer(self.app, port=port, finish_seconds=1)
        self._most_steps = HELD_STEPS if held else inf
        self._engines: list[ScriptedEngine] = []
        self._workers: list[Worker] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._runs: dict[Worker, asyncio.Task[None]] = {}
        self.url = ""
        self.http: httpx.AsyncClient

    async def __aenter__(self) -> "Served":
        serving = asyncio.create_task(self._server.serve())
        self._tasks += [serving, asyncio.create_task(control(self.context))]
        while not self._server.started:
            assert not serving.done(), serving.result()
            await asyncio.sleep(0.005)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.http = self.client(TOKEN)
        return self

    async def __aexit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.drain()
        await self.http.aclose()
        self._server.should_exit = True
        self._tasks[1].cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def client(self, token: str | None) -> httpx.AsyncClient:
        """A client with this token; None: without one."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=120.0)

    def start_worker(self, index: int = 0, boot: str = "", step_seconds: float | None = None) -> Worker:
        """Starts one more worker of the job. `step_seconds`: of its engine; None: as in the manifest."""
        settings = WorkerSettings(self.job, "memory", index, boot=boot or secrets.token_hex(4))
        scripted = self.job.spec.model.scripted
        if step_seconds is not None:
            scripted = scripted.model_copy(update={"step_seconds": step_seconds})
        engine = ScriptedEngine(scripted, most_steps=self._most_steps)
        worker = Worker(settings, self.store, engine)
        self._engines.append(engine)
        self._workers.append(worker)
        self._runs[worker] = asyncio.create_task(worker.run())
        self._tasks.append(self._runs[worker])
        return worker

    def silence(self, worker: Worker) -> None:
        """Cancels a worker's task, so that it ends without a report."""
        self._runs[worker].cancel()

    def release(self) -> None:
        """Lets held engines continue."""
        for engine in self._engines:
            engine.release()

    async def call(self, method: str, path: str, body: Any = None, *, status: int = 200, **options: Any) -> Any:
        """Makes one call under /v1 and returns its answer as JSON; asserts its status."""
        answer = await self.http.request(method, f"/v1{path}", json=body, **options)
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    async def open(self, **spec: Any) -> int:
        """Opens a batch and returns its number."""
        return int((await self.call("POST", "/batches", spec, status=201))["id"])

    async def upload(self, batch: int, groups: Sequence[dict[str, Any]], *, seal: bool = False) -> dict[str, Any]:
        """Uploads groups as JSON lines and returns the answer."""
        lines = "\n".join(map(json.dumps, groups))
        headers = {"Content-Type": "application/x-ndjson"}
        path = f"/v1/batches/{batch}/groups"
        answer = await self.http.post(path, params={"seal": seal}, content=lines, headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def until_sampled(self, batch: int) -> None:
        """Waits until a request of that batch has tokens."""
        while not (await self.store.progress(batch)).tokens:
            await asyncio.sleep(0.02)

    async def until_complete(self, batch: int) -> list[dict[str, Any]]:
        """Waits until a batch is complete and returns all entries of its results."""
        cursor, items = 0, list[dict[str, Any]]()
        while True:
            page = await self.call("GET", f"/batches/{batch}/results", params={"cursor": cursor, "wait_seconds": 5})
            items += page["items"]
            cursor = page["cursor"]
            if page["complete"]:
                return items


def prompts(count: int, first: int = 0, **fields: Any) -> list[dict[str, Any]]:
    """Groups `first` to `count` - 1, each with another prompt."""
    return [{"id": f"g{number}", "prompt_token_ids": [5, 6, number + 7], **fields} for number in range(first, count)]


def results(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The finished turns among the entries of a results stream."""
    return [item for item in items if item["kind"] == "result"]


def ends(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The ends of groups among the entries of a results stream."""
    return [item for item in items if item["kind"] == "group"]


@contextlib.asynccontextmanager
async def served(**options: Any) -> AsyncGenerator[Served]:
    """A server with its workers running."""
    async with Served(**options) as server:
        for index in range(server.job.spec.workers.replicas):
            server.start_worker(index)
        yield server
