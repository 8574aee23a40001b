"""Composition root of a worker process: builds settings, web server, store, engine and loop, and handles the signals.

Exit codes: 0: drained, or stopped before it was ready; otherwise the codes of openseer_core.errors.
"""

import argparse
import asyncio
import logging
import os
import secrets
from contextlib import nullcontext
from pathlib import Path

from openseer_core.errors import InputError, OpenseerError
from openseer_core.manifest.fleet import GANG_PORT
from openseer_core.worker.metrics import WorkerMetrics
from openseer_process.job_file import read_job_file
from openseer_process.logs import note_process, start_log
from openseer_process.pod_http import PodHttp
from openseer_process.termination import report
from openseer_store.port import Store
from openseer_worker.engine import Engine
from openseer_worker.engine_factory import gpus_of_engine
from openseer_worker.follower import follow
from openseer_worker.gang import GangLeader
from openseer_worker.hardware.telemetry import Telemetry
from openseer_worker.health import Health
from openseer_worker.loop import Worker
from openseer_worker.settings import WorkerSettings
from openseer_worker.startup import Start, end_at_once, end_process, stop_on_signals
from openseer_worker.weights.passing import Passing, own_address

log = logging.getLogger("openseer.worker")

NODE_NAME = "OPENSEER_NODE_NAME"
POD_UID = "OPENSEER_POD_UID"
"""Environment: the name of the pod's node, and the pod's uid."""


def main() -> int:
    """`python -m openseer_worker.main`: one worker, or one rank of a gang, until SIGTERM or a drain request."""
    parser = argparse.ArgumentParser(prog="openseer-worker", description="One worker of a RolloutJob.")
    parser.add_argument("--job", type=Path, required=True, help="the RolloutJob as JSON")
    parser.add_argument("--store", default=os.environ.get("OPENSEER_STORE_URL"), help="URL of the job's Redis")
    parser.add_argument("--index", type=int, default=0, help="number of this worker within the job")
    parser.add_argument("--http-port", type=int, help="port of probes and metrics; 0: any; unset: none")
    parser.add_argument("--rank", type=int, default=0, help="place of this process in its gang; 0 leads")
    parser.add_argument("--leader", default="", help="host of rank 0 of the gang")
    parser.add_argument("--gang-port", type=int, default=GANG_PORT, help="first of two ports on the leader's host")
    parser.add_argument("--routed", default="", help="folder for rows of routed experts, of this job alone")
    parser.add_argument("--kv-pool", default="", help="folder of spec.kvPool.pvc, or HOST:PORT of Mooncake's master")
    options = parser.parse_args()
    start_log()
    try:
        return run_worker(_settings(options), options.http_port)
    except OpenseerError as error:
        return report(error)


def run_worker(settings: WorkerSettings, http_port: int | None = None) -> int:
    """Runs one worker to its end in this process; returns its exit code."""
    start_log()
    note_process(job=f"{settings.job.namespace}/{settings.job.name}", worker=settings.worker.name)
    health, passing = Health(), Passing()
    try:
        with _web_server(health, passing, http_port) as http:
            passing.port = 0 if http is None else http.port
            asyncio.run(_run(settings, health, passing))
    except OpenseerError as error:
        return report(error)
    return 0


def _settings(options: argparse.Namespace) -> WorkerSettings:
    if not options.store:
        raise InputError("no store: give --store, or OPENSEER_STORE_URL in the environment")
    _, job = read_job_file(options.job)
    nodes = job.spec.workers.parallelism.nodes
    if options.rank and not (options.leader and 0 < options.rank < nodes):
        raise InputError(f"--rank {options.rank}: needs --leader, and spec.workers.parallelism.nodes is {nodes}")
    return WorkerSettings(
        job,
        options.store,
        options.index,
        node=os.environ.get(NODE_NAME, ""),
        pod=os.environ.get(POD_UID, ""),
        rank=options.rank,
        leader=options.leader,
        gang_port=options.gang_port,
        kv_pool=options.kv_pool,
        routed=options.routed,
    )


def _web_server(health: Health, passing: Passing, port: int | None) -> PodHttp | nullcontext[None]:
    if port is None:
        return nullcontext()
    return PodHttp(port, ready=health.ready, alive=health.alive, registry=health.registry, others=passing.answer)


async def _run(settings: WorkerSettings, health: Health, passing: Passing) -> None:
    stop = stop_on_signals()
    if settings.rank > 0:
        await follow(settings, health, stop)
    elif settings.is_gang:
        gang = GangLeader(settings, secrets.randbits(31), stop.set)
        watching = asyncio.create_task(_end_when_broken(gang))
        try:
            await _lead(settings, health, passing, stop, gang)
        except OpenseerError as error:
            end_at_once(report(error))
        watching.cancel()
        await gang.end()
    else:
        await _lead(settings, health, passing, stop, None)


async def _end_when_broken(gang: GangLeader) -> None:
    """Ends the process without cleanup when a rank is lost: the collective operations of the other ranks hang."""
    end_at_once(report(await gang.broken))


async def _lead(
    settings: WorkerSettings, health: Health, passing: Passing, stop: asyncio.Event, gang: GangLeader | None
) -> None:
    started = await Start(settings, stop, gang).run()
    if started is None:
        log.info("%s ended before it was ready", settings.worker)
        return
    store, engine = started
    try:
        await _join(settings, passing, store)
        await _work(settings, health, passing, stop, store, engine, gang)
    finally:
        await store.close()
    log.info("%s drained (%s)", settings.worker, settings.job.spec.rollout.policy)


async def _join(settings: WorkerSettings, passing: Passing, store: Store) -> None:
    """Starts passing weights on to other workers, if this process has a web server."""
    if not passing.port:
        return
    try:
        address = await asyncio.to_thread(own_address, settings.store_url, passing.port)
    except OSError as error:
        log.warning("this worker passes no weights on to others: its address is unknown: %s", error)
        return
    passing.join(settings.worker.name, address, store.workers)


async def _work(
    settings: WorkerSettings,
    health: Health,
    passing: Passing,
    stop: asyncio.Event,
    store: Store,
    engine: Engine,
    gang: GangLeader | None,
) -> None:
    telemetry = Telemetry(most=gpus_of_engine(settings))

    def readings() -> WorkerMetrics:
        return WorkerMetrics(telemetry() | ({"sick": gang.sick} if gang is not None and gang.sick else {}))

    worker = Worker(settings, store, engine, readings, passing)

    async def drain() -> None:
        await stop.wait()
        worker.drain()

    health.serve(lambda: worker.is_ready, lambda: worker.heartbeat)
    log.info("%s ready: %s on %s", settings.worker, engine.profile.engine, engine.profile.device)
    tasks = [asyncio.create_task(health.tick()), asyncio.create_task(drain())]
    try:
        await worker.run()
    finally:
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    end_process(main())
