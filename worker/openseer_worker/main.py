"""Composition root of a worker process: settings → store, engine, loop; owns the signals.

Exit codes: 0 drained; those of openseer_core.errors otherwise.
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from openseer_core.chunk import WorkerInfo
from openseer_core.errors import OpenseerError
from openseer_core.manifest import parse_job
from openseer_store.connect import open_store
from openseer_worker.engine import Engine
from openseer_worker.loop import Worker
from openseer_worker.scripted_engine import ScriptedEngine
from openseer_worker.settings import WorkerSettings
from openseer_worker.telemetry import Telemetry

log = logging.getLogger("openseer.worker")


def main() -> int:
    """`python -m openseer_worker.main`: one worker, until SIGTERM or a drain request."""
    parser = argparse.ArgumentParser(prog="openseer-worker", description="One worker of a RolloutJob.")
    parser.add_argument("--job", type=Path, required=True, help="the RolloutJob as JSON")
    parser.add_argument("--store", default=os.environ.get("OPENSEER_STORE_URL"), help="URL of the job's Redis")
    parser.add_argument("--index", type=int, default=0, help="number of this worker within the job")
    options = parser.parse_args()
    if not options.store:
        parser.error("--store or OPENSEER_STORE_URL is needed")
    job = parse_job(json.loads(options.job.read_text()), str(options.job))
    return run_worker(WorkerSettings(job, options.store, options.index))


def run_worker(settings: WorkerSettings) -> int:
    """Runs one worker to its end in this process and gives its exit code."""
    start_log()
    try:
        asyncio.run(_run(settings))
    except OpenseerError as error:
        return report(error)
    return 0


def start_log() -> None:
    """To standard error, which a runner or a pod keeps."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", force=True)


def report(error: OpenseerError) -> int:
    """Writes the one line that a runner looks for in the log, and gives the exit code."""
    log.error("error: %s", error)
    return error.exit_code


async def _run(settings: WorkerSettings) -> None:
    spec = settings.job.spec
    store = await open_store(settings.store_url, settings.job.name, settings.job.namespace)
    try:
        await store.heartbeat(settings.worker, WorkerInfo("starting"))
        engine = build_engine(settings)
        worker = Worker(settings, store, engine, Telemetry())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, worker.drain)
        log.info("%s ready: %s on %s", settings.worker, engine.profile.engine, engine.profile.device)
        await worker.run()
    finally:
        await store.close()
    log.info("%s drained (%s)", settings.worker, spec.rollout.policy)


def build_engine(settings: WorkerSettings) -> Engine:
    """The engine that the job names. Importing the real one takes seconds, so it is imported only if wanted."""
    spec = settings.job.spec
    if spec.model.engine == "scripted":
        return ScriptedEngine(spec.model.scripted)
    from openseer_worker.vllm_engine import VllmEngine  # noqa: PLC0415 - see above

    return VllmEngine(spec.model, spec.workers.parallelism, spec.sampling, cache_salt=settings.cache_salt)


if __name__ == "__main__":
    sys.exit(main())
