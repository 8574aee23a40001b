"""Measures the cost of page viewers and of exported traces to a rollout's throughput, in interleaved pairs.

    PYTHONPATH=benchmarks python benchmarks/page/telemetry.py

Two `openseer serve` processes with scripted engines run all the time; the same batch is submitted to both, in
the order ABBA. One has two viewers of its page and sends its spans to a receiver; the other has neither.
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Any

import httpx
from support.stamp import Stamp

from openseer_client import AsyncClient
from openseer_core.wire.batches import Group
from openseer_core.wire.results import ResultItem

TOKEN = "benchmark"
WORKERS, SLOTS, SIZE, LONGEST = 4, 32, 8, 512
VIEWERS = 2
END_SECONDS = 60.0


def main() -> None:
    """Measures the pairs and prints the ratio with its interval."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=96, help="groups of a batch")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--quick", action="store_true", help="one pair of small batches")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    pairs, groups = (1, 8) if options.quick else (options.pairs, options.groups)
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path, receiver() as (endpoint, spans):
        folder = Path(path)
        write_job(folder)
        with (
            server(folder, "plain", {}) as plain,
            server(folder, "told", {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}) as told,
        ):
            rows = asyncio.run(measure(plain, told, pairs, groups))
        calls = spans.value
    ratios = [row["told"] / row["plain"] for row in rows]
    half = NormalDist().inv_cdf(0.975) * stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else float("nan")
    print(f"throughput with page and traces: {fmean(ratios):.2%} ± {half:.2%} of without, {len(ratios)} pairs")
    assert calls, "no span has come"
    if options.json:
        found = {"ratio": fmean(ratios), "half_of_95_percent_interval": half, "calls_of_the_receiver": calls}
        options.json.write_text(json.dumps(found | {"rows": rows} | stamp.fields(), indent=1))


async def measure(plain: str, told: str, pairs: int, groups: int) -> list[dict[str, float]]:
    """Tokens per second of both arms, one row per pair; the first pair is a warm-up and left out."""
    rows: list[dict[str, float]] = []
    for pair in range(pairs + 1):
        row: dict[str, float] = {}
        for arm in ("plain", "told") if pair % 2 == 0 else ("told", "plain"):
            row[arm] = await rate(plain, groups) if arm == "plain" else await watched_rate(told, groups)
        print(f"pair {pair}: {row['plain']:,.0f} and {row['told']:,.0f} tokens/s", file=sys.stderr)
        rows.append(row)
    return rows[1:]


async def watched_rate(base: str, groups: int) -> float:
    """Tokens per second of one batch while VIEWERS viewers have the page open."""
    tasks = [asyncio.create_task(look(base)) for _ in range(VIEWERS)]
    try:
        return await rate(base, groups)
    finally:
        for task in tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def rate(base: str, groups: int) -> float:
    """Tokens per second of one batch, from its submission to its last result."""
    async with AsyncClient(base, token=TOKEN) as client:
        batch = await client.open_batch()
        begun, tokens = time.monotonic(), 0
        await batch.submit([Group(id=f"q{n}", prompt_token_ids=[1, 2, 3 + n], n=SIZE) for n in range(groups)])
        await batch.seal()
        async for item in batch.results(acknowledge=True):
            tokens += len(item.token_ids) if isinstance(item, ResultItem) else 0
        return tokens / (time.monotonic() - begun)


async def look(base: str) -> None:
    """One viewer: reads the streams of the job's view until it is cancelled."""
    async with httpx.AsyncClient(base_url=base, timeout=None) as http:
        (await http.post("/page/login", json={"token": TOKEN})).raise_for_status()
        while True:
            async with http.stream("GET", "/page/api/jobs/default/told") as answer:
                answer.raise_for_status()
                async for _ in answer.aiter_raw():
                    pass


def write_job(folder: Path) -> None:
    """Writes the manifests of both arms, which differ only in their names."""
    for name in ("plain", "told"):
        spec = {
            "mode": "serve",
            "model": {"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.02, "slots": SLOTS}},
            "groupSize": SIZE,
            "sampling": {"maxTokens": LONGEST},
            "workers": {"replicas": WORKERS, "gracePeriodSeconds": 5},
        }
        head = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": name}}
        (folder / f"{name}.yaml").write_text(json.dumps(head | {"spec": spec}))


@contextmanager
def server(folder: Path, name: str, variables: dict[str, str]) -> Generator[str]:
    """Runs `openseer serve` and yields its URL."""
    command = [sys.executable, "-c", "from openseer_local.main import main; main()"]
    command += ["serve", f"{name}.yaml", "--json", "--port", "0", "--token", TOKEN]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    process = subprocess.Popen(
        command, cwd=folder, env=environment | variables, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        yield next(json.loads(line)["url"] for line in process.stdout if line.startswith("{"))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(END_SECONDS)


@contextmanager
def receiver() -> Generator[tuple[str, Any]]:
    """Runs a receiver of spans in another process; yields its URL and its counter of calls."""
    context = mp.get_context("spawn")
    port, calls = context.Value("i", 0), context.Value("i", 0)
    process = context.Process(target=receive, args=(port, calls), daemon=True)
    process.start()
    while not port.value:
        time.sleep(0.05)
    try:
        yield f"http://127.0.0.1:{port.value}", calls
    finally:
        process.kill()


def receive(port: Any, calls: Any) -> None:
    """Answers every POST with 200 and counts it in `calls`, until the process is killed."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            calls.value += 1
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        port.value = server.server_address[1]
        server.serve_forever()


if __name__ == "__main__":
    main()
