"""Measures the CPU time that viewers of the live page cost the API while a batch of 10,000 requests runs.

    PYTHONPATH=benchmarks python benchmarks/page/viewers.py

The server is a separate process over a real Redis, as in `openseer serve`; eight workers with scripted engines run in
another process. Half of the viewers show the job, half the batch. Only the server's CPU time counts. Each turn measures
0, 1 and 10 viewers.
"""

import argparse
import asyncio
import contextlib
import json
import multiprocessing as mp
import os
import socket
import tempfile
from collections.abc import AsyncGenerator
from pathlib import Path
from statistics import median
from typing import Any

import httpx
from support.served_api import TOKEN, job, serve
from support.stamp import Stamp

from openseer_client import AsyncClient
from openseer_core.wire.batches import Group
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.settings import WorkerSettings

WORKERS, SLOTS, GROUPS, SIZE = 8, 64, 1250, 8
ARMS = (0, 1, 10)
"""Numbers of viewers."""


def main() -> None:
    """Measures all arms in each turn and prints a line for each arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="duration of each arm in each turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one turn of two seconds each")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    turns, seconds = (1, 2.0) if options.quick else (options.turns, options.seconds)
    rows = asyncio.run(measure(turns, seconds))
    for viewers in ARMS:
        shares = [row["share"] for row in rows if row["viewers"] == viewers]
        print(f"{viewers:2} viewers: {median(shares):.2%} of a core ({min(shares):.2%} to {max(shares):.2%})")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows} | stamp.fields(), indent=1))


async def measure(turns: int, seconds: float) -> list[dict[str, Any]]:
    """One row per turn and arm, with the share of one core that the server used."""
    context = mp.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        async with EmbeddedRedis(Path(path) / "store") as url:
            server = context.Process(target=serve, args=(url, port), daemon=True)
            fleet = context.Process(target=play, args=(url,), daemon=True)
            server.start()
            fleet.start()
            assert server.pid is not None
            base = f"http://127.0.0.1:{port}"
            try:
                async with AsyncClient(base, token=TOKEN) as client:
                    batch = await client.open_batch()
                    tokens = [1, 2, 3]
                    await batch.submit([Group(id=f"q{n}", prompt_token_ids=tokens, n=SIZE) for n in range(GROUPS)])
                for turn in range(turns):
                    for viewers in ARMS:
                        async with looking(base, batch.id, viewers):
                            await asyncio.sleep(2.0)
                            before = cpu_seconds(server.pid)
                            await asyncio.sleep(seconds)
                            share = (cpu_seconds(server.pid) - before) / seconds
                        rows.append({"turn": turn, "viewers": viewers, "share": share})
            finally:
                server.kill()
                fleet.kill()
    return rows


@contextlib.asynccontextmanager
async def looking(base: str, batch: int, viewers: int) -> AsyncGenerator[None]:
    """Runs `viewers` viewers within the context; each opens its stream again when it ends."""

    async def look(path: str) -> None:
        async with httpx.AsyncClient(base_url=base, timeout=None) as http:
            (await http.post("/page/login", json={"token": TOKEN})).raise_for_status()
            while True:
                async with http.stream("GET", path) as answer:
                    answer.raise_for_status()
                    async for _ in answer.aiter_raw():
                        pass

    place = "/page/api/jobs/default/load"
    paths = [place if number % 2 == 0 else f"{place}/batches/{batch}" for number in range(viewers)]
    tasks = [asyncio.create_task(look(path)) for path in paths]
    try:
        yield
    finally:
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def play(url: str) -> None:
    """Runs the workers until the process is killed."""

    async def run() -> None:
        manifest = job()
        scripted = manifest.spec.model.scripted.model_copy(update={"slots": SLOTS, "kv_blocks": 10**6})
        workers: list[Worker] = []
        for index in range(WORKERS):
            store = await open_store(url, "load")
            workers.append(Worker(WorkerSettings(manifest, url, index), store, ScriptedEngine(scripted)))
        await asyncio.gather(*(worker.run() for worker in workers))

    asyncio.run(run())


def cpu_seconds(pid: int) -> float:
    """CPU time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
