"""The fleet of a local run can be stopped at any time, also while its workers start."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from openseer_core.manifest.job import FailurePolicy
from openseer_local.fleet import LocalFleet
from openseer_store.embedded import EmbeddedRedis

JOB: dict[str, Any] = {
    "apiVersion": "openseer.dev/v1alpha1",
    "kind": "RolloutJob",
    "metadata": {"name": "fleet"},
    "spec": {
        "model": {"path": "none", "engine": "scripted"},
        "prompts": {"path": "none"},
        "groupSize": 2,
        "sampling": {"maxTokens": 16},
        "workers": {"replicas": 1},
    },
}
GRACE_SECONDS = 120.0


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[LocalFleet]:
    """A fleet with one running worker."""
    file = tmp_path / "job.json"
    file.write_text(json.dumps(JOB))
    async with EmbeddedRedis(tmp_path / "redis") as url:
        fleet = LocalFleet(file, url, tmp_path, 1, FailurePolicy(), lambda _: None)
        await fleet.start()
        try:
            await until_running(fleet, 1)
            yield fleet
        finally:
            await fleet.stop(0.0)


async def until_running(fleet: LocalFleet, count: int) -> None:
    async with asyncio.timeout(120):
        while len(fleet.pids) < count:
            await asyncio.sleep(0.05)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_stop_reaches_workers_that_are_starting(fleet: LocalFleet) -> None:
    fork_server = parent_of(fleet.pids["worker-0"])
    os.kill(fork_server, signal.SIGSTOP)
    try:
        fleet.scale(3)
        stopping = asyncio.create_task(fleet.stop(GRACE_SECONDS))
        await asyncio.sleep(0.1)
    finally:
        os.kill(fork_server, signal.SIGCONT)
    async with asyncio.timeout(GRACE_SECONDS / 2):
        await stopping
    assert fleet.pids == {}
