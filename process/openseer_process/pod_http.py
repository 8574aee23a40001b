"""The small web server of a pod: probes for the kubelet, metrics for Prometheus. Answers from threads of its own.

`/healthz` and `/readyz` are 200 or 503, `/metrics` is Prometheus' text, everything else is for whoever made the server
to answer, or 404.
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
"""Longest time in which a client says its request, and in which it takes its answer."""
MAX_REQUESTS = 16
"""Requests answered at once; a connection beyond them is closed without an answer."""
MAX_OTHERS = MAX_REQUESTS // 2
"""Of these, requests for other than probes and metrics, which may take long; one beyond them is 503 at once."""
SEND_SECONDS = 60.0
"""Longest time in which a client takes the body of another answer."""
POLL_SECONDS = 0.1
"""How soon the server's thread notices a stop."""


class OtherAnswer(NamedTuple):
    """To a request for other than probes and metrics."""

    status: HTTPStatus
    body: bytes = b""
    headers: Mapping[str, str] = {}


class PodHttp:
    """`with PodHttp(8080, ready=…, alive=…, registry=…) as http`: answers on all addresses, IPv4 and IPv6.

    `ready` and `alive` are called from other threads and must return at once. Port 0 takes any free one; `port` and
    the log say which. Without a registry there are no metrics (404). `others` is given the path and the query of every
    other request, in threads, and answers it; None: 404. Raises InputError when the port cannot be had.
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
        """The port that it listens on."""
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
    """A thread for each of a bounded number of requests."""

    daemon_threads = True
    # Threads end by themselves within REQUEST_SECONDS; nobody waits for them.
    block_on_close = False

    def __init__(self, family: socket.AddressFamily, address: tuple[str, int], handler: type["_Answer"]) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(MAX_REQUESTS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        # Connections of a container that ended before in this pod may linger on the port for a minute.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Not HTTPServer's: that one asks DNS for this machine's name, which may take long in a pod.
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
    """What a client says, until its time is over: a limit for each byte would leave it hours."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + REQUEST_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(max(0.001, self._until - time.monotonic()))
        return self._connection.recv_into(buffer)


class _Answer(BaseHTTPRequestHandler):
    """One request."""

    # Head and body leave in one write: a process that ends meanwhile sends no half of an answer.
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
        """Nothing: probes come every few seconds."""

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
        self.connection.sendall(answer.body)  # of a file, its limit would be one of each of many writes


def _answer_for(
    probes: dict[str, Callable[[], bool]],
    registry: CollectorRegistry | None,
    others: Callable[[str], OtherAnswer | None],
) -> type[_Answer]:
    limit = threading.BoundedSemaphore(MAX_OTHERS)
    held = {"probes": probes, "registry": registry, "others": staticmethod(others), "free_for_others": limit}
    return type("_PodAnswer", (_Answer,), held)


def _listen(port: int, handler: type[_Answer]) -> _Server:
    """On the IPv6 wildcard, which takes IPv4 too; on IPv4's where the machine has no IPv6."""
    try:
        return _Server(socket.AF_INET6, ("::", port), handler)
    except OSError as error:
        log.debug("no IPv6: %s", error)
    try:
        return _Server(socket.AF_INET, ("0.0.0.0", port), handler)
    except OSError as error:
        raise InputError(f"--http-port {port}: {error.strerror}; choose a port that is free") from error
