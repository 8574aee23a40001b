"""The operator's whole process, and its tests' calls to an API server."""

import asyncio
import os
import sys
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from openseer_operator.kube.api import Api, KubeApiError
from tests.operator.stores import ENVIRONMENT
from tests.operator.tenant import store_pod

PATIENCE_SECONDS = 120.0

_LEASE = """
import sys
from openseer_operator import main
from openseer_operator.kube import lease
lease.LEASE_SECONDS, lease.RENEW_DEADLINE_SECONDS = {}, {}
sys.exit(main.main())
"""


@asynccontextmanager
async def operator(
    kubeconfig: Path, port: int, *, lease_seconds: float | None = None, **settings: str
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """One replica; `settings` are further variables of its environment. Ports above 32767 may be taken by a client.

    `lease_seconds`: duration of its lease, which it gives up a third earlier; unset: the default.
    """
    environment = os.environ | {
        "KUBECONFIG": str(kubeconfig),
        "OPENSEER_NAMESPACE": "default",
        "OPENSEER_WORKER_IMAGE": "worker:1",
        "OPENSEER_STORE_IMAGE": "operator:1",
        "OPENSEER_HTTP_PORT": str(port),
        "OPENSEER_IDENTITY": f"replica-{port}",
        "OPENSEER_LEASE": f"whole-process-{uuid.uuid4().hex[:8]}",  # a killed process keeps its lease
        **ENVIRONMENT,
        **settings,
    }
    command = ("-m", "openseer_operator.main")
    if lease_seconds is not None:
        command = ("-c", _LEASE.format(lease_seconds, lease_seconds * 2 / 3))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def until(condition: Callable[[], Awaitable[bool]], seconds: float = PATIENCE_SECONDS) -> None:
    """Waits until the condition is true; a failed call counts as false."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                if await condition():
                    return
            except (KubeApiError, aiohttp.ClientError, OSError, KeyError):
                pass  # not yet
            await asyncio.sleep(0.1)


async def submit(api: Api, namespace: str = "default", *, watched: bool = True, **spec: Any) -> str:
    """Creates a job and returns its name; a job of mode serve has no prompts. `watched`: waits for the objects of an
    operator and creates the pod of a managed Redis as its controller."""
    prompts = {"prompts": {"path": "p.jsonl"}} if spec.get("mode") != "serve" else {}
    name = f"whole-{uuid.uuid4().hex[:8]}"
    body: dict[str, Any] = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"model": {"path": "m"}, **prompts, **spec},
    }
    await api.create("RolloutJob", namespace, body)
    if watched and "store" not in spec:

        async def placed() -> bool:
            await api.create("Pod", namespace, store_pod(await api.get("StatefulSet", namespace, f"{name}-redis")))
            return True

        await until(placed)
    return name


async def components(api: Api, job: str, namespace: str = "default") -> set[str]:
    """Components of the job's pods except Redis: driver, worker-0, …"""
    found: set[str] = set()
    async for page in api.pages("Pod", (namespace,), f"openseer.dev/job={job}"):
        found |= {pod["metadata"]["name"].removeprefix(f"{job}-") for pod in page}
    return found - {"redis-0"}
