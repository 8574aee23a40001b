"""The HTTP server of a pod, in its own threads: probes for the kubelet, metrics for Prometheus.

`/healthz` and `/readyz` answer 200 or 503, `/metrics` answers Prometheus' text format. The function `others`, an
argument of the server, answers all other paths; without an answer from it the server answers 404.
"""

import io
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from openseer_core.errors import InputError

log = logging.getLogger(__name__)

REQUEST_SECONDS = 5.0
"""Timeout of reading a request, and of writing an answer to a probe or scrape, in seconds."""
MAX_REQUESTS = 16
"""Limit of concurrent requests; a connection beyond it is closed without an answer."""
MAX_OTHERS = MAX_REQUESTS // 2
"""Limit of concurrent requests for other paths, which may take long; a request beyond it gets 503 at once."""
SEND_SECONDS = 60.0
"""Timeout of writing the body of an answer for another path, in seconds."""
POLL_SECONDS = 0.1
"""Poll interval at which the server's thread checks for a stop, in seconds."""


class OtherAnswer(NamedTuple):
    """The answer to a request for a path other than probes and metrics."""

    status: HTTPStatus
    body: bytes = b""
    headers: Mapping[str, str] = {}


class PodHttp:
    """`with PodHttp(8080, ready=…, alive=…, registry=…) as http`: answers on all addresses, IPv4 and IPv6.

    `ready` and `alive` are called from other threads and must return at once. Port 0: any free port, which `port` and
    the log contain. Without a registry `/metrics` answers 404. `others` is called in threads with the path and query of
    every other request and returns the answer; None: 404. Raises InputError if the port cannot be bound.
    """

    def __init__(
        self,
        port: int,
        *,
        ready: Callable[[], bool],
        alive: Callable[[], bool],
        registry: CollectorRegistry | None = None,
        others: Callable[[str], OtherAnswer | None] = lambda _: None,
    ) -> None:
        probes = {"/healthz": alive, "/readyz": ready}
        self._server = _listen(port, _answer_for(probes, registry, others))
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_SECONDS,), name="openseer-http", daemon=True
        )

    @property
    def port(self) -> int:
        """The port that the server listens on."""
        return int(self._server.server_address[1])

    def __enter__(self) -> "PodHttp":
        self._thread.start()
        log.info("probes and metrics on port %d", self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Serves each request in a thread; the number of threads is bounded by MAX_REQUESTS."""

    daemon_threads = True
    # Closing the server does not wait for the threads: their reads and writes have timeouts.
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], handler: type["_Answer"]) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Connections of an earlier container of this pod may occupy the port for a minute after its end.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # HTTPServer.server_bind is not called: it asks DNS for this machine's name, which may take long in a pod.
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a request from %s failed: %r", client_address, sys.exception())


class _Arriving(io.RawIOBase):
    """The bytes that a client sends, with one deadline for the whole request: with a timeout per read a client could
    send for hours."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + REQUEST_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(0.001, self._until - time.monotonic()))
        return self._connection.recv_into(buffer)


class _Answer(BaseHTTPRequestHandler):
    """Handles one request."""

    # Head and body are sent in one write, so that a process that ends meanwhile does not send half an answer.
    wbufsize = -1
    probes: dict[str, Callable[[], bool]]
    registry: CollectorRegistry | None
    others: Callable[[str], OtherAnswer | None]
    free_for_others: threading.BoundedSemaphore

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Arriving(self.connection))

    def do_GET(self) -> None:
        self.connection.settimeout(REQUEST_SECONDS)
        path = self.path.partition("?")[0]
        probe = self.probes.get(path)
        if probe is not None:
            passed = probe()
            self._respond(HTTPStatus.OK if passed else HTTPStatus.SERVICE_UNAVAILABLE, b"ok\n" if passed else b"no\n")
        elif path == "/metrics" and self.registry is not None:
            self._respond(HTTPStatus.OK, generate_latest(self.registry), CONTENT_TYPE_LATEST)
        elif self.free_for_others.acquire(blocking=False):
            try:
                self._respond_to_other()
            finally:
                self.free_for_others.release()
        else:
            self._respond(HTTPStatus.SERVICE_UNAVAILABLE, b"busy\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Logs nothing, because probes arrive every few seconds."""

    def _respond(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _respond_to_other(self) -> None:
        answer = self.others(self.path)
        if answer is None:
            self._respond(HTTPStatus.NOT_FOUND, b"not found\n")
            return
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.flush()
        self.connection.settimeout(SEND_SECONDS)
        self.connection.sendall(answer.body)  # a write through `wfile` would apply the timeout to each of many parts


def _answer_for(
    probes: dict[str, Callable[[], bool]],
    registry: CollectorRegistry | None,
    others: Callable[[str], OtherAnswer | None],
) -> type[_Answer]:
    limit = threading.BoundedSemaphore(MAX_OTHERS)
    held = {"probes": probes, "registry": registry, "others": staticmethod(others), "free_for_others": limit}
    return type("_PodAnswer", (_Answer,), held)


def _listen(port: int, handler: type[_Answer]) -> _Server:
    """Listens on the IPv6 wildcard address, which accepts IPv4 too; on the IPv4 address if the machine has no IPv6."""
    try:
        return _Server(socket.AF_INET6, ("::", port), handler)
    except OSError as error:
        log.debug("no IPv6: %s", error)
    try:
        return _Server(socket.AF_INET, ("0.0.0.0", port), handler)
    except OSError as error:
        raise InputError(f"--http-port {port}: {error.strerror}; choose a port that is free") from error
