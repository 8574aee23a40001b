"""One job's API as a process of its own, without workers: `python -m tests.chaos.api_process`.

It combines the parts of `openseer serve` and of the gateway: routes, batch controller, a store with `tells_again`.
"""

import argparse
import asyncio
import json
import logging
from pathlib import Path

from openseer_api.app import create_app
from openseer_api.batch_controller import control
from openseer_api.http.auth import BearerAuth
from openseer_api.http.server import WebServer
from openseer_api.job.context import JobContext, OneJob
from openseer_core.manifest.parse import parse_job
from openseer_store.connect import open_store


async def serve(job_file: Path, url: str, port: int, token: str) -> None:
    """Serves until the process ends."""
    job = parse_job(json.loads(job_file.read_text()), str(job_file))
    context = JobContext(job, await open_store(url, job.name, job.namespace, tells_again=True))
    app = create_app(OneJob(context), BearerAuth(token))
    server = WebServer(app, port=port, finish_seconds=1)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(control(context))
        tasks.create_task(server.serve())


def main() -> None:
    """Reads the arguments and serves."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--token", required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    asyncio.run(serve(options.job, options.store, options.port, options.token))


if __name__ == "__main__":
    main()
