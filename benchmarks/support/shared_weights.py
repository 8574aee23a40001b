"""How long the workers of one machine take to have a version that lies behind a URL: one of them, and several.

Each worker is a process with the product's own folders of weights; the server is `http.server` on loopback, the files
random, in the page cache. "each for itself" is the same code without what the workers have in common, as if each were
alone on its machine. Rounds alternate; of each kind the shortest counts.
"""

import asyncio
import functools
import http.server
import json
import multiprocessing as mp
import os
import tempfile
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from openseer_core.weights.publish import Source
from openseer_core.weights.worker_step import WeightsTarget
from openseer_worker.weights.folders import WeightFolders

FILES = 4
HEADER = 8


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *_: object) -> None:
        """Nothing."""
        del format


def serve(folder: Path, ports: "mp.Queue[int]") -> None:
    """The folder over HTTP, until it is terminated."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    ports.put(server.server_port)
    server.serve_forever()


def make_files(folder: Path, size: int) -> None:
    """Safetensors of one random tensor each, and the index that names them."""
    each = size // FILES
    names = [f"model-{number}.safetensors" for number in range(FILES)]
    for name in names:
        header = json.dumps({name: {"dtype": "U8", "shape": [each], "data_offsets": [0, each]}}).encode()
        (folder / name).write_bytes(len(header).to_bytes(HEADER, "little") + header + os.urandom(each))
    index = {"weight_map": {name: name for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def fetch(url: str, scope: str, begin: Barrier, end: Barrier) -> None:
    """One worker: has the version, waits for the others, and lets it go."""
    folders = WeightFolders(scope=scope)
    begin.wait()
    found = asyncio.run(folders.get(WeightsTarget("v", 1, Source(url=url))))
    assert found is not None
    end.wait()
    folders.close()


def measure(url: str, workers: int, scope: str) -> float:
    """Seconds until all of so many workers have the version."""
    context = mp.get_context("fork")
    begin, end = context.Barrier(workers + 1), context.Barrier(workers + 1)
    processes = [context.Process(target=fetch, args=(url, scope, begin, end)) for _ in range(workers)]
    for process in processes:
        process.start()
    begin.wait()
    begun = time.perf_counter()
    end.wait()
    seconds = time.perf_counter() - begun
    for process in processes:
        process.join()
    return seconds


def shared(workers: int, megabytes: int, rounds: int) -> dict[str, Any]:
    """Least seconds until all have the version, printed as rows."""
    context = mp.get_context("fork")
    kinds = {
        "one worker": (1, "job"),
        f"{workers} workers": (workers, "job"),
        f"{workers} workers, each for itself": (workers, ""),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    with tempfile.TemporaryDirectory(prefix="openseer-bench-") as path:
        make_files(Path(path), megabytes * 2**20)
        ports: mp.Queue[int] = context.Queue()
        server = context.Process(target=serve, args=(Path(path), ports), daemon=True)
        server.start()
        url = f"http://127.0.0.1:{ports.get()}"
        for _ in range(rounds):
            for name, (count, scope) in kinds.items():
                seconds[name].append(measure(url, count, scope))
        server.terminate()
        server.join()
    best = {name: min(found) for name, found in seconds.items()}
    for name, least in best.items():
        print(f"{name:>28}: {least:.2f} s, {least / best['one worker']:.2f} × one worker")
    return {"megabytes": megabytes, "least_seconds": best, "seconds": seconds}
