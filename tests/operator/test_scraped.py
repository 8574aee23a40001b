"""A real Prometheus scrapes a real run: every panel's query has data, and no alert sounds.

One job with one Redis: `openseer serve` with two workers, a third worker with a metrics server, and an operator that
has the same job in a cluster without nodes. A played worker reports the metrics of GPUs, drafts and KV pools.
"""

import asyncio
import json
import math
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from charts.dashboards import DASHBOARDS
from openseer_client import BatchSpec, Client, Group, NotFoundError
from openseer_core.worker.heartbeat import Heartbeat
from openseer_core.worker.metrics import WorkerMetrics
from openseer_operator.kube.api import Api
from openseer_process.pod_http import PodHttp
from openseer_worker.health import Health
from tests.charts.rendering import program
from tests.contract.forms import beats
from tests.operator.job_store import JobStore
from tests.operator.whole_process import operator, submit
from tests.ports import reserved_port
from tests.repository import ROOT

PROMETHEUS, PROMTOOL = program("prometheus"), program("promtool")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.redis,
    pytest.mark.skipif(PROMETHEUS is None, reason="no prometheus: make prometheus-prepare gets it from Debian"),
]
PATIENCE_SECONDS = 180.0
RATE_INTERVAL = "20s"
SPEC: dict[str, Any] = {
    "model": {"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.02, "slots": 4}},
    "groupSize": 4,
    "sampling": {"maxTokens": 4096},
    "workers": {"replicas": 2},
}


class PlayedWorker:
    """A worker with GPU, drafts and KV pool whose metrics grow with every scrape."""

    def __init__(self, beat: Heartbeat) -> None:
        self._beat = beat
        self._scrapes = 0
        self.health = Health()
        self.health.serve(lambda: True, self._grown)

    def _grown(self) -> Heartbeat:
        self._scrapes += 1
        told = self._beat.metrics
        grown = {
            name: value + self._scrapes if isinstance(value, int | float) else value for name, value in told.items()
        }
        return Heartbeat(self._beat.state, WorkerMetrics(grown))


@asynccontextmanager
async def process(*command: str, **options: Any) -> AsyncGenerator[asyncio.subprocess.Process]:
    started = await asyncio.create_subprocess_exec(*command, **options)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.terminate()
        await started.wait()


@asynccontextmanager
async def telling(log: Path, said: str, *command: str, **options: Any) -> AsyncGenerator[str]:
    """Starts a process, waits for a log line that matches `said` and yields the match."""
    with log.open("wb") as file:
        async with process(*command, stdout=file, stderr=file, **options) as started:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (found := re.search(said, log.read_text(), re.MULTILINE)):
                    assert started.returncode is None, log.read_text()
                    await asyncio.sleep(0.1)
            yield found.group(found.re.groups)


@asynccontextmanager
async def served(folder: Path, job: str, url: str) -> AsyncGenerator[tuple[str, Path]]:
    """`openseer serve` beside a worker with a metrics server; yields the API's URL and the job as JSON."""
    head = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": job}}
    file = folder / "job.yaml"
    file.write_text(json.dumps({**head, "spec": {"mode": "serve", **SPEC, "store": {"url": url}}}))
    command = (sys.executable, "-c", "from openseer_local.main import main; main()", "serve", file.name)
    log = folder / "serve.log"
    async with telling(log, r"^\{.*\}$", *command, "--json", "--port", "0", cwd=folder) as line:
        yield json.loads(line)["url"], file


def configuration(folder: Path, job: str, targets: dict[str, str]) -> Path:
    """Prometheus' configuration as in docs/metrics.md: labels of jobs are kept, labels of workers are set per
    target."""

    def scrape(name: str, **more: Any) -> dict[str, Any]:
        labels = {"namespace": "default", "job": job, "worker": name} if "worker" in name else {}
        place = {"targets": [targets[name].removeprefix("http://")], "labels": labels}
        return {"job_name": name, "honor_labels": True, "static_configs": [place], **more}

    token = {"authorization": {"credentials_file": str(folder / "runs" / job / "token")}}
    file = folder / "prometheus.yml"
    document = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(ROOT / "charts/openseer/files/alerts.yaml")],
        "scrape_configs": [scrape(name, **(token if name == "api" else {})) for name in targets],
    }
    file.write_text(yaml.safe_dump(document))
    return file


def unanswered(job: str) -> dict[str, str]:
    """Queries of all panels by panel and legend."""
    filled = {"$__rate_interval": RATE_INTERVAL, "$namespace": "default", "$job": job}
    return {
        f"{dashboard.name}: {panel.question} {legend}": re.sub(r"\$\w+", lambda name: filled[name.group()], query)
        for dashboard in DASHBOARDS
        for panel in dashboard.panels
        for legend, query in panel.queries.items()
    }


async def has_data(session: aiohttp.ClientSession, url: str, query: str) -> bool:
    async with session.get(f"{url}/api/v1/query", params={"query": query}) as reply:
        found = await reply.json()
    assert found["status"] == "success", (query, found)
    return any(not math.isnan(float(series["value"][1])) for series in found["data"]["result"])


async def answered(call: Callable[[], Any]) -> Any:
    """Repeats a call until it succeeds and returns its result."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                return await call()
            except (aiohttp.ClientError, OSError):
                await asyncio.sleep(0.2)


async def test_every_panel_has_data_of_a_run_and_no_alert_sounds(
    api: Api, kubeconfig: Path, server: JobStore, tmp_path: Path
) -> None:
    _, beat = await asyncio.to_thread(beats.full_beat, tmp_path)
    played = PlayedWorker(beat)
    await server.command("CONFIG", "SET", "maxmemory", str(2**30))
    port, place = reserved_port(), f"127.0.0.1:{reserved_port()}"
    async with operator(kubeconfig, port, lease_seconds=600.0, OPENSEER_LEASE="scraped"):
        job = await submit(api, mode="serve", store={"url": server.url}, **SPEC)
        async with served(tmp_path, job, server.url) as (address, file):
            arguments = ("--job", str(file), "--store", server.url, "--index", "7", "--http-port", "0")
            worker = (sys.executable, "-m", "openseer_worker.main", *arguments)
            async with telling(tmp_path / "worker.log", r"metrics on port (\d+)$", *worker) as worker_port:
                with PodHttp(0, ready=lambda: True, alive=lambda: True, registry=played.health.registry) as http:
                    targets = {
                        "api": address,
                        "operator": f"127.0.0.1:{port}",
                        "worker 7": f"127.0.0.1:{worker_port}",
                        "worker played": f"127.0.0.1:{http.port}",
                    }
                    await asyncio.to_thread(submit_groups, address, tmp_path / "runs" / job / "token")
                    assert PROMETHEUS is not None
                    command = (
                        *(PROMETHEUS, "--config.file", str(configuration(tmp_path, job, targets))),
                        *("--storage.tsdb.path", str(tmp_path / "tsdb"), "--log.level", "warn"),
                        *("--web.listen-address", place),
                    )
                    async with process(*command), aiohttp.ClientSession() as session:
                        await until_all_have_data(session, f"http://{place}", job)
                        await check_expositions(session, targets, tmp_path / "runs" / job / "token")


def submit_groups(address: str, token: Path) -> None:
    """Submits long responses, and makes a call that is refused."""
    with Client(address, token_file=token) as client:
        batch = client.open_batch(BatchSpec())
        batch.submit(Group(id=f"g{number}", prompt_token_ids=[5, 6, number], n=4) for number in range(100))
        batch.seal()
        with pytest.raises(NotFoundError):
            client.batch(99).metrics()


async def until_all_have_data(session: aiohttp.ClientSession, url: str, job: str) -> None:
    """Waits until every query has data; asserts that all targets are up and no alert fires."""
    left = unanswered(job)
    assert await answered(lambda: has_data(session, url, "vector(1)"))
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while left:
                left = {name: query for name, query in left.items() if not await has_data(session, url, query)}
                await asyncio.sleep(0.5)
    except TimeoutError:
        raise AssertionError(f"without data: {left}") from None
    assert not await has_data(session, url, "up == 0")
    assert not await has_data(session, url, 'ALERTS{alertstate="firing"}')
    async with session.get(f"{url}/api/v1/rules") as reply:
        (group,) = (await reply.json())["data"]["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}


async def check_expositions(session: aiohttp.ClientSession, targets: dict[str, str], token: Path) -> None:
    """Checks names and help texts with Prometheus' own linter."""
    headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
    for name, target in targets.items():
        address = target if target.startswith("http") else f"http://{target}"
        async with session.get(f"{address}/metrics", headers=headers if name == "api" else {}) as reply:
            text = await reply.read()
        assert PROMTOOL is not None
        pipe = asyncio.subprocess.PIPE
        lint = await asyncio.create_subprocess_exec(PROMTOOL, "check", "metrics", stdin=pipe, stdout=pipe, stderr=pipe)
        said = await lint.communicate(text)
        assert lint.returncode == 0, (name, said)
