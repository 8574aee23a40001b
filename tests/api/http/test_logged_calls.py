"""The fields of a call's log lines."""

import json
import logging
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from openseer_api.app import create_app
from openseer_api.http.auth import BearerAuth
from openseer_api.job.context import JobContext, OneJob
from openseer_process import logs
from openseer_process.logs import FIELDS, JsonLines
from openseer_store.memory import MemoryStore
from tests.api.served import TOKEN, serving_job

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Loud(MemoryStore):
    """A store that logs each read of a batch."""

    async def batch(self, number: int) -> Any:
        logging.getLogger("openseer_test").warning("asked for %d", number)
        return await super().batch(number)


@pytest.fixture
async def caller() -> AsyncGenerator[httpx.AsyncClient]:
    app: FastAPI = create_app(OneJob(JobContext(serving_job(), Loud())), BearerAuth(TOKEN), many=True)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", headers=headers) as http:
        yield http


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Adds a JSON log and returns a function that reads the fields of its lines."""
    monkeypatch.setattr(logs, "_process", {})
    logger, handler = logging.getLogger("openseer_test"), logging.FileHandler(tmp_path / "log")
    handler.setFormatter(JsonLines())
    logger.addHandler(handler)

    def lines() -> list[dict[str, str]]:
        found = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
        return [{name: line[name] for name in FIELDS if name in line} for line in found]

    yield lines
    logger.removeHandler(handler)
    handler.close()


async def test_lines_name_job_and_batch_of_the_path_and_the_callers_trace(caller: httpx.AsyncClient, log: Any) -> None:
    path = "/jobs/lab/rl/v1/batches/7"
    await caller.get(path, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    await caller.get(path, headers={"traceparent": "wrong"})
    assert log() == [{"job": "lab/rl", "batch": "7", "trace_id": TRACE}, {"job": "lab/rl", "batch": "7"}]
