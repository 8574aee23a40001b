"""Measures the rates at which the trainers' API accepts groups and returns results, over HTTP, with openseer's client.

    python benchmarks/api.py

The server is a separate process over a real Redis, as in `openseer serve`. Simulated workers without engines complete
responses of a given length in another process. So neither runs in the timed process. There are three measurements:
the time in which one client queues 10,000 groups; the results per second that one client reads and parses into typed
objects, while another requests the batch's status 20 times a second; the memory of server and Redis over many batches,
each acknowledged. A fourth part measures the cost of large bodies and stalled connections (`--part bodies`: only this).
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import os
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from support.large_bodies import measure_bodies
from support.served_api import GROUP_SIZE, PLAYERS, TOKEN, groups, play, serve
from support.stamp import Stamp

from openseer_client import AsyncClient
from openseer_core.wire.results import ResultItem
from openseer_store.embedded import EmbeddedRedis


def poll_status(url: str, number: int, reports: Any, done: Any) -> None:
    """Polls a batch's status 20 times a second and reports the seconds of each call. Runs in a process of its own, so
    that its calls do not wait for the reader."""

    async def run() -> list[float]:
        waits: list[float] = []
        async with AsyncClient(url, token=TOKEN) as client:
            await client.batch(number).status()
            reports.put("begun")
            while not done.is_set():
                begun = time.monotonic()
                await client.batch(number).status()
                waits.append(time.monotonic() - begun)
                await asyncio.sleep(max(0.0, 0.05 - waits[-1]))
        return waits

    reports.put(asyncio.run(run()))


# ---- measurements


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, one after the other."""
    context = mp.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        async with EmbeddedRedis(Path(path) / "store") as url:
            server = context.Process(target=serve, args=(url, port), daemon=True)
            server.start()
            players: list[Any] = []

            def start_players(length: int) -> None:
                for number in range(PLAYERS):
                    player = context.Process(target=play, args=(url, number, length), daemon=True)
                    player.start()
                    players.append(player)

            def stop_players() -> None:
                for player in players:
                    player.kill()
                    player.join()
                players.clear()

            base = f"http://127.0.0.1:{port}"
            async with AsyncClient(base, token=TOKEN) as client:
                submit = await submitting(client, options.groups)
                start_players(options.length)
                reading = await read_results(client, base, submit.pop("batch"), options.requests)
                memory = await soaking(client, url, int(server.pid or 0), options.batches)
                stop_players()
            server.kill()
            server.join()
    return submit | reading | memory


async def submitting(client: AsyncClient, count: int) -> dict[str, Any]:
    """Queues the groups while no worker runs them."""
    await client.job()  # the server is up
    batch = await client.open_batch()
    prepared = list(groups(count))
    started = time.monotonic()
    receipt = await batch.submit(prepared)
    seconds = time.monotonic() - started
    assert receipt.accepted == count
    print(f"{count:,} groups of {GROUP_SIZE} queued in {seconds:.2f} s", flush=True)
    return {"submit_seconds": seconds, "groups": count, "batch": batch.id}


async def read_results(client: AsyncClient, url: str, number: int, requests: int) -> dict[str, Any]:
    """One client reads results while a process polls the status; the results are complete before it starts."""
    batch = client.batch(number)
    while (await batch.status()).metrics.requests_ok < requests:
        await asyncio.sleep(0.2)
    context = mp.get_context("spawn")
    reports, done = context.SimpleQueue(), context.Event()
    polling = context.Process(target=poll_status, args=(url, number, reports, done), daemon=True)
    polling.start()
    reports.get()  # it has begun

    read, tokens, started = 0, 0, time.monotonic()
    async for item in batch.results():
        if isinstance(item, ResultItem):
            read += 1
            tokens += len(item.token_ids)
        if read >= requests:
            break
    seconds = time.monotonic() - started
    done.set()
    waits: list[float] = reports.get()
    polling.join()
    await batch.forget()
    p99 = sorted(waits)[int(0.99 * (len(waits) - 1))] * 1000 if waits else float("nan")
    print(
        f"{read / seconds:,.0f} results/s of {tokens / read:.0f} tokens read by one client; status meanwhile: median "
        f"{statistics.median(waits) * 1000:.1f} ms, p99 {p99:.1f} ms ({len(waits)} calls)",
        flush=True,
    )
    return {
        "results_per_second": read / seconds,
        "tokens_per_result": tokens / read,
        "status_median_ms": statistics.median(waits) * 1000,
        "status_p99_ms": p99,
    }


async def soaking(client: AsyncClient, url: str, pid: int, batches: int) -> dict[str, Any]:
    """Reads and acknowledges one batch after another; measures the memory after each."""
    server: list[float] = []
    redis: list[float] = []
    for number in range(batches):
        batch = await client.open_batch()
        await batch.submit(groups(200))
        await batch.seal()
        async for _ in batch.results(acknowledge=True):
            pass
        server.append(_resident(pid))
        redis.append(await _redis_memory(url))
        print(
            f"\rbatch {number + 1} of {batches}: server {server[-1]:.0f} MB, Redis {redis[-1]:.1f} MB",
            end="",
            flush=True,
        )
    print()
    third = max(1, batches // 3)
    return {
        "batches": batches,
        "server_mb_after_a_third_and_at_the_end": [server[third - 1], server[-1]],
        "redis_mb_after_a_third_and_at_the_end": [redis[third - 1], redis[-1]],
    }


def _resident(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def _redis_memory(url: str) -> float:
    from redis.asyncio import Redis  # noqa: PLC0415 - for values that the product does not read

    client: Any = Redis.from_url(url)  # pyright: ignore[reportUnknownMemberType]
    info = await client.info("memory")
    await client.aclose()
    return float(info["used_memory"]) / 2**20


def main() -> None:
    """Runs all measurements and prints them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=20_000, help="number of results to read")
    parser.add_argument("--length", type=int, default=200, help="tokens per response")
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--mib", type=int, default=56, help="MiB of each large body")
    parser.add_argument("--uploads", type=int, default=14, help="number of stalled uploads")
    parser.add_argument("--readers", type=int, default=200, help="number of connections that read nothing")
    parser.add_argument("--part", choices=["throughput", "bodies", "both"], default="both")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work")
    parser.add_argument("--json", type=Path, help="file for the measurements, as JSON")
    options = parser.parse_args()
    stamp = Stamp()
    if options.quick:
        options.groups, options.requests, options.batches = 1000, 2000, 6
        options.mib, options.uploads, options.readers = 2, 3, 10
    measurements = asyncio.run(measure(options)) if options.part != "bodies" else {}
    if options.part != "throughput":
        measurements |= asyncio.run(measure_bodies(options.mib, options.uploads, options.readers))
    measurements |= stamp.fields()
    if options.json:
        options.json.write_text(json.dumps(measurements, indent=1))


if __name__ == "__main__":
    main()
