"""Measures the time in which one worker and several workers of one machine fetch a version from a URL.

Each worker is a process with the product's own folders of weights; the server is `http.server` on loopback, and its
random files are in the page cache. "each for itself" is the same code with a separate folder for each worker, as if
each were alone on its machine. The arms take turns; the result of each is its shortest round.

`shared`: the workers share one folder. `passed`: each worker has its own folder, as pods have, and the product's web
servers pass pieces on; a shared table takes the place of the heartbeats in a store. Every worker hashes and writes each
piece, so this one machine does the work that a fleet distributes over its machines.
"""

import asyncio
import http.server
import json
import multiprocessing as mp
import os
import resource
import tempfile
import time
from collections.abc import Callable, Generator, MutableMapping
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from openseer_core.weights.publish import Source
from openseer_core.weights.worker_step import WeightsTarget
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState, WorkerStatus
from openseer_process.pod_http import PodHttp
from openseer_worker.weights.folders import WeightFolders
from openseer_worker.weights.passing import Passing

FILES = 4
HEADER = 8
HEARTBEAT_SECONDS = 0.1
"""As of workers in a transaction."""
CONTEXT = mp.get_context("fork")
Beats = MutableMapping[str, str]
"""Reports by the worker's name, as JSON."""


def serve(folder: Path, ports: "mp.Queue[int]", sent: "Synchronized[int]") -> None:
    """Serves the folder over HTTP until it is terminated; `sent` counts the bytes."""

    class Counting(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *_: object) -> None:
            del format

        def copyfile(self, source: Any, outputfile: Any) -> None:
            while block := source.read(2**20):
                outputfile.write(block)
                with sent.get_lock():
                    sent.value += len(block)

    def handler(*arguments: Any) -> Counting:
        return Counting(*arguments, directory=str(folder))

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    ports.put(server.server_port)
    server.serve_forever()


def make_files(folder: Path, size: int) -> None:
    """Writes safetensors files with one random tensor each, and their index."""
    each = size // FILES
    names = [f"model-{number}.safetensors" for number in range(FILES)]
    for name in names:
        header = json.dumps({name: {"dtype": "U8", "shape": [each], "data_offsets": [0, each]}}).encode()
        (folder / name).write_bytes(len(header).to_bytes(HEADER, "little") + header + os.urandom(each))
    index = {"weight_map": {name: name for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


@contextmanager
def served(size: int) -> Generator[tuple[str, "Synchronized[int]"]]:
    """The URL of a version of `size` bytes, and the number of bytes sent so far."""
    sent: Synchronized[int] = CONTEXT.Value("q", 0)
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        make_files(Path(path), size)
        ports: mp.Queue[int] = CONTEXT.Queue()
        server = CONTEXT.Process(target=serve, args=(Path(path), ports, sent), daemon=True)
        server.start()
        yield f"http://127.0.0.1:{ports.get()}", sent
        server.terminate()
        server.join()


def fetch(url: str, scope: str, begin: Barrier, end: Barrier) -> None:
    """Runs one worker: it gets the version, waits for the others, and releases it."""
    folders = WeightFolders(scope=scope)
    begin.wait()
    found = asyncio.run(folders.get(WeightsTarget("v", 1, Source(url=url))))
    assert found is not None
    end.wait()
    folders.close()


def fetch_and_pass(url: str, name: str, beats: Beats | None, begin: Barrier, end: Barrier) -> None:
    """Runs one worker that shares no folder. `beats`: the table of heartbeats; None to pass nothing on."""

    async def read() -> list[WorkerStatus]:
        assert beats is not None
        reports = {worker: WeightsReport.model_validate_json(text) for worker, text in beats.items()}
        return [
            WorkerStatus(worker, "boot", 0.0, 0, Heartbeat(WorkerState.IDLE, weights=report))
            for worker, report in reports.items()
        ]

    async def beat() -> None:
        while beats is not None:
            beats[name] = WeightsReport(passing=passing.report).model_dump_json()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def work(port: int) -> None:
        if beats is not None:
            passing.join(name, f"http://127.0.0.1:{port}", read)
        beating = asyncio.create_task(beat())
        await asyncio.to_thread(begin.wait)
        assert await folders.get(WeightsTarget("v", 1, Source(url=url))) is not None
        await asyncio.to_thread(end.wait)
        beating.cancel()

    passing = Passing()
    folders = WeightFolders(passing=passing)
    with PodHttp(0, ready=lambda: True, alive=lambda: True, others=passing.answer) as http_server:
        asyncio.run(work(http_server.port))
        folders.close()


def measure(work: Callable[..., None], each: list[tuple[Any, ...]]) -> tuple[float, float]:
    """Seconds until all workers have the version, and their processor seconds. `each`: arguments of each worker."""
    before = processor_seconds()
    begin, end = CONTEXT.Barrier(len(each) + 1), CONTEXT.Barrier(len(each) + 1)
    processes = [CONTEXT.Process(target=work, args=(*arguments, begin, end)) for arguments in each]
    for process in processes:
        process.start()
    begin.wait()
    begun = time.perf_counter()
    end.wait()
    seconds = time.perf_counter() - begun
    for process in processes:
        process.join()
    return seconds, processor_seconds() - before


def processor_seconds() -> float:
    """Processor seconds of all children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shared(workers: int, megabytes: int, rounds: int) -> dict[str, Any]:
    """Prints and returns the minimum seconds until all workers have the version."""
    kinds = {
        "one worker": (1, "job"),
        f"{workers} workers": (workers, "job"),
        f"{workers} workers, each for itself": (workers, ""),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    with served(megabytes * 2**20) as (url, _):
        for _round in range(rounds):
            for name, (count, scope) in kinds.items():
                seconds[name].append(measure(fetch, [(url, scope)] * count)[0])
    best = {name: min(found) for name, found in seconds.items()}
    for name, least in best.items():
        print(f"{name:>28}: {least:.2f} s, {least / best['one worker']:.2f} × one worker")
    return {"megabytes": megabytes, "least_seconds": best, "seconds": seconds}


def passed(workers: int, megabytes: int) -> dict[str, Any]:
    """Prints and returns the seconds until all workers have the version, and the reads of the source."""
    kinds = {
        "one worker": (1, True),
        f"{workers} workers": (workers, True),
        f"{workers} workers, each for itself": (workers, False),
    }
    rows: dict[str, dict[str, float]] = {}
    with served(megabytes * 2**20) as (url, sent), CONTEXT.Manager() as manager:
        for name, (count, passes) in kinds.items():
            before, beats = sent.value, manager.dict() if passes else None
            took, used = measure(fetch_and_pass, [(url, f"worker-{number}", beats) for number in range(count)])
            reads = round((sent.value - before) / (megabytes * 2**20), 2)
            rows[name] = {"seconds": took, "processor_seconds": used, "source_reads": reads}
            print(f"{name:>28}: {took:.2f} s, of processors {used:.1f} s, source read {reads:.2f} times")
    return {"megabytes": megabytes, "rows": rows}
