"""Jobs that serve adapters, for tests."""

import asyncio
from typing import Any

from openseer_core.manifest.job import RolloutJob
from tests.api.served import Served, serving_job


def adapting(**lora: Any) -> RolloutJob:
    """A job that serves adapters."""
    job = serving_job()
    model = job.model_dump(mode="json", by_alias=True, exclude_none=True)["spec"]["model"]
    return serving_job(model=model | {"lora": {"maxRank": 4, "maxAdapters": 2} | lora})


async def ready(server: Served) -> None:
    while (await server.call("GET", "/job"))["workers_ready"] < 2:
        await asyncio.sleep(0.02)
