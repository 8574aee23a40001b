"""Serves a serving job's rows of routed experts, in the pod that mounts their volume.

The gateway reads the rows from this pod, because it does not mount the volume. The pod also removes the rows of
deleted batches. It ends at SIGTERM without loss: callers retry until the next pod answers.
"""

import argparse
import asyncio
import logging
import os
import signal
import sys
from http import HTTPStatus
from pathlib import Path

from openseer_core.errors import OpenseerError
from openseer_core.manifest.job import RolloutJob
from openseer_process.job_file import read_job_file
from openseer_process.logs import start_log
from openseer_process.pod_http import OtherAnswer, PodHttp
from openseer_process.termination import report
from openseer_store.connect import open_store
from openseer_store.routed.asking import MOST_BYTES, RowsSecret, pack_answer
from openseer_store.routed.folders import read_files
from openseer_store.routed.removal import keep_rows_within

log = logging.getLogger("openseer.rows")


class RowsGiver:
    """Answers requests for rows in `folder`. `store_url`: URL of the job's store; callers prove that they know it."""

    def __init__(self, folder: Path, store_url: str) -> None:
        self._folder = folder
        self._secret = RowsSecret(store_url)

    def answer(self, path: str) -> OtherAnswer | None:
        """The requested files; None for any other request."""
        question = self._secret.read(path)
        if question is None:
            return None
        return OtherAnswer(
            HTTPStatus.OK, pack_answer(read_files(self._folder / question.place, question.names, MOST_BYTES))
        )


def main() -> int:
    """`python -m openseer_driver.rows_pod`: serves rows until it is stopped."""
    parser = argparse.ArgumentParser(prog="openseer-rows", description="Serves the routed experts of a serving job.")
    parser.add_argument("--job", type=Path, required=True, help="the RolloutJob as JSON")
    parser.add_argument("--routed", type=Path, required=True, help="the job's folder of rows of routed experts")
    parser.add_argument("--store", default=os.environ.get("OPENSEER_STORE_URL"), help="URL of the job's Redis")
    parser.add_argument("--http-port", type=int, default=8080, help="port of rows and probes; 0: any")
    options = parser.parse_args()
    if not options.store:
        parser.error("--store or OPENSEER_STORE_URL is needed")
    start_log()
    try:
        _, job = read_job_file(options.job)
        asyncio.run(give_rows(job, options.routed, options.store, options.http_port))
    except OpenseerError as error:
        return report(error)
    return 0


async def give_rows(job: RolloutJob, folder: Path, store_url: str, port: int) -> None:
    """Serves rows until SIGTERM or SIGINT. Raises StoreError if the store cannot be used."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    giver = RowsGiver(folder, store_url)
    with PodHttp(port, ready=lambda: True, alive=lambda: True, others=giver.answer):
        work = asyncio.create_task(_remove(job, store_url, folder))
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
        for task in (work, waiting):
            task.cancel()
        for outcome in await asyncio.gather(work, waiting, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def _remove(job: RolloutJob, store_url: str, folder: Path) -> None:
    store = await open_store(store_url, job.name, job.namespace)
    try:
        await keep_rows_within(store, folder)
    finally:
        await store.close()


if __name__ == "__main__":
    sys.exit(main())
