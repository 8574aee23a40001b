"""Workers that pass weights on over loopback, a source that counts and can be stopped, and faulty workers."""

import asyncio
import hashlib
import http.server
import json
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from openseer_core.errors import LoadError
from openseer_core.weights.digest import PIECE_BYTES
from openseer_core.weights.publish import Source
from openseer_core.weights.worker_step import WeightsTarget
from openseer_core.worker.heartbeat import Heartbeat, PassingReport, WeightsReport, WorkerState, WorkerStatus
from openseer_process.pod_http import PodHttp
from openseer_worker.weights.folders import CheckedFolder, WeightFolders
from openseer_worker.weights.passing import DIGEST_HEADER, READING_HEADER, Passing

BLOCK = 2**20
PATIENCE_SECONDS = 120.0


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        del request, client_address


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.respond()

    def respond(self) -> None:
        raise NotImplementedError

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


class Responder:
    """A server that answers each request by `respond`. `asked`: the paths."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self._server = _Server(("127.0.0.1", 0), type("_Given", (_Handler,), {"respond": self._respond_to()}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def _respond_to(self) -> Callable[[_Handler], None]:
        def respond(handler: _Handler) -> None:
            self.asked.append(handler.path)
            with suppress(OSError):
                self.respond(handler)

        return respond

    def respond(self, handler: _Handler) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class CountingSource(Responder):
    """A server of a folder. `sent`: bytes of each file so far; from byte `held_at` of a file on it waits for `go`."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.sent: dict[str, int] = {}
        self.held_at: int | None = None
        self.go = threading.Event()

    def respond(self, handler: _Handler) -> None:
        path = self.folder / handler.path[1:]
        if not path.exists():
            handler.send_error(404)
            return
        content = path.read_bytes()
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        for start in range(0, len(content), BLOCK):
            if self.held_at is not None and start >= self.held_at:
                assert self.go.wait(PATIENCE_SECONDS)
            handler.wfile.write(content[start : start + BLOCK])
            self.sent[path.name] = self.sent.get(path.name, 0) + len(content[start : start + BLOCK])

    def sizes(self) -> dict[str, int]:
        """Bytes per file that one full read takes."""
        return {path.name: path.stat().st_size for path in self.folder.iterdir()}


class WrongPasser(Responder):
    """A worker that reports the version and then misbehaves by `how`: dies, lies, hangs, waits, misses, changes (each
    answer is of another reading)."""

    def __init__(self, how: str, folder: Path) -> None:
        self.how, self.folder = how, folder
        self.release = threading.Event()
        super().__init__()

    def respond(self, handler: _Handler) -> None:
        name, _, query = handler.path.rpartition("/")[2].partition("?")
        number = int(query.split("&")[0].partition("=")[2])
        content = (self.folder / name).read_bytes()[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
        match self.how:
            case "misses":
                handler.send_error(404)
                return
            case "waits":
                handler.send_error(503)
                return
            case "hangs":
                self.release.wait(PATIENCE_SECONDS)
                return
            case _:
                pass
        handler.send_response(206 if content else 416)
        handler.send_header("Content-Length", str(len(content)))
        handler.send_header(DIGEST_HEADER, hashlib.sha256(content).hexdigest() if content else "")
        handler.send_header(READING_HEADER, f"r{len(self.asked)}" if self.how == "changes" else "r1")
        handler.end_headers()
        if self.how == "dies" and number:
            content = content[: len(content) // 2]
        if self.how == "lies":
            content = content[:-1] + bytes([content[-1] ^ 1])
        handler.wfile.write(content)

    def close(self) -> None:
        self.release.set()
        super().close()

    def status(self, publisher: int = 1) -> WorkerStatus:
        return _status("worker-0", PassingReport(address=f"{self.url}/weights/secret", whole=(publisher,)))


class Node:
    """One worker with its own web server, as on another machine: it shares no folder."""

    def __init__(self, fleet: "Passers", name: str) -> None:
        self.name = name
        self.passing = Passing()
        self.http = PodHttp(0, ready=lambda: True, alive=lambda: True, others=self.passing.answer)
        self.http.__enter__()
        self.passing.join(name, f"http://127.0.0.1:{self.http.port}", fleet.read)
        self.folders = WeightFolders(passing=self.passing)

    async def get(self, source: Source, publisher: int = 1) -> CheckedFolder:
        found = await self.folders.get(WeightsTarget("v", publisher, source))
        assert found is not None
        return found

    @property
    def report(self) -> PassingReport:
        report = self.passing.report
        assert report is not None
        return report

    def status(self) -> WorkerStatus:
        return _status(self.name, self.report)

    def close(self) -> None:
        self.folders.close()
        self.http.__exit__(None, None, None)


class Passers:
    """A fleet. `others`: heartbeats of workers beside the nodes."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.others: list[WorkerStatus] = []

    def add(self, name: str) -> Node:
        self.nodes.append(Node(self, name))
        return self.nodes[-1]

    async def read(self) -> list[WorkerStatus]:
        """All heartbeats, as read from a store."""
        return [*self.others, *(node.status() for node in self.nodes)]

    def close(self) -> None:
        for node in self.nodes:
            node.close()


def write_version(folder: Path, *sizes: int, salt: str = "") -> None:
    """Writes files of these sizes, with an index that names them."""
    names = [f"model-{number}.safetensors" for number in range(len(sizes))]
    for name, size in zip(names, sizes, strict=True):
        header = json.dumps({name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
        block = hashlib.sha512(f"{name}{salt}".encode()).digest() + b"."  # of a length that does not divide a piece
        content = (block * (size // len(block) + 1))[:size]
        (folder / name).write_bytes(len(header).to_bytes(8, "little") + header + content)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {name: name for name in names}}))


async def until(holds: Callable[[], bool]) -> None:
    """Waits until the condition is true."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            raise LoadError("it has not come")
        await asyncio.sleep(0.01)


def _status(name: str, report: PassingReport) -> WorkerStatus:
    heartbeat = Heartbeat(WorkerState.IDLE, weights=WeightsReport(passing=report))
    return WorkerStatus(name, "boot", 1000.0, 0, heartbeat)
