"""A real Prometheus scrapes a real run: every panel's query has data, and no alert sounds.

One job, by one Redis: `openseer serve` with two workers, a third that tells its metrics, and an operator, for which the
same job stands in a cluster without nodes. What needs a GPU, drafts or a KV pool is told by a played worker.
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
from openseer_client import BatchSpec, Client, Group
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
    """A worker with GPU, drafts and KV pool whose counters grow with every scrape."""

    def __init__(self, beat: Heartbeat) -> None:
        self._beat = beat
        self._scrapes = 0
        self.health = Health()
        self.health.serve(lambda: True, self._grown)

    def _grown(self) -> Heartbeat:
        self._scrapes += 1
        told = self._beat.metrics
        grown = {name: value + self._scrapes if isinstance(value, int) else value for name, value in told.items()}
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
async def served(folder: Path, job: str, url: str) -> AsyncGenerator[tuple[str, Path]]:
    """`openseer serve` beside a worker that tells its metrics: the API's address, and the job as JSON."""
    head = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": job}}
    file = folder / "job.yaml"
    file.write_text(json.dumps({**head, "spec": {"mode": "serve", **SPEC, "store": {"url": url}}}))
    command = (sys.executable, "-m", "openseer_local.main", "serve", file.name, "--json", "--port", "0")
    async with process(*command, cwd=folder, stdout=asyncio.subprocess.PIPE) as started:
        assert started.stdout is not None
        async for line in started.stdout:
            if line.startswith(b"{"):
                yield json.loads(line)["url"], file
                return
        raise AssertionError("it ended before it listened")


def configuration(folder: Path, job: str, targets: dict[str, str]) -> Path:
    """Prometheus as docs/metrics.md says: labels of jobs' own are kept, those of workers come with their targets."""

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
    """Every panel's queries, by panel and legend."""
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
    """What a call gives once it can be made."""
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
    ports = {name: reserved_port() for name in ("operator", "worker", "prometheus")}
    url = f"http://127.0.0.1:{ports['prometheus']}"
    async with operator(kubeconfig, ports["operator"], OPENSEER_LEASE="scraped"):
        job = await submit(api, mode="serve", store={"url": server.url}, **SPEC)
        async with served(tmp_path, job, server.url) as (address, file):
            worker = ("-m", "openseer_worker.main", "--job", str(file), "--store", server.url, "--index", "7")
            async with process(sys.executable, *worker, "--http-port", str(ports["worker"])):
                with PodHttp(0, ready=lambda: True, alive=lambda: True, registry=played.health.registry) as http:
                    targets = {
                        "api": address,
                        "operator": f"127.0.0.1:{ports['operator']}",
                        "worker 7": f"127.0.0.1:{ports['worker']}",
                        "worker played": f"127.0.0.1:{http.port}",
                    }
                    await asyncio.to_thread(submit_groups, address, tmp_path / "runs" / job / "token")
                    assert PROMETHEUS is not None
                    command = (
                        *(PROMETHEUS, "--config.file", str(configuration(tmp_path, job, targets))),
                        *("--storage.tsdb.path", str(tmp_path / "tsdb"), "--log.level", "warn"),
                        *("--web.listen-address", f"127.0.0.1:{ports['prometheus']}"),
                    )
                    async with process(*command), aiohttp.ClientSession() as session:
                        await until_all_have_data(session, url, job)
                        await check_expositions(session, targets, tmp_path / "runs" / job / "token")


def submit_groups(address: str, token: Path) -> None:
    """Long responses, and a call that is refused."""
    with Client(address, token_file=token) as client:
        batch = client.open_batch(BatchSpec())
        batch.submit(Group(id=f"g{number}", prompt_token_ids=[5, 6, number], n=4) for number in range(100))
        batch.seal()
        with pytest.raises(Exception, match="there is no batch"):
            client.batch(99).info()


async def until_all_have_data(session: aiohttp.ClientSession, url: str, job: str) -> None:
    """Also: all targets are up, and rules are evaluated without an alert."""
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
    """Names and help as Prometheus' own linter wants them."""
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
