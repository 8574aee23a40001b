"""Passes the files of versions that this worker fetches, or has fetched, on to the job's other workers in pieces.

The worker's address contains a secret, which every request must contain. Only heartbeats have the address, so only
readers of the job's store know the secret.
"""

import asyncio
import hmac
import logging
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import parse_qs, unquote

from openseer_core.errors import StoreError
from openseer_core.json_model import INT53_MAX
from openseer_core.manifest.store_url import REDIS_PORT, url_parts
from openseer_core.worker.heartbeat import PassingReport, WorkerStatus
from openseer_process.pod_http import OtherAnswer
from openseer_worker.weights.hashing import ArrivingFile

DIGEST_HEADER, READING_HEADER = "Openseer-Piece", "Openseer-Reading"
"""Header fields of an answer: SHA-256 of the piece, in hexadecimal digits, and the reading of its file."""
WAIT_SECONDS = 1.0
"""Timeout of a request for a piece that has not arrived, in seconds; then the answer is 503."""
POLL_SECONDS = 0.02
"""Interval of checks whether a requested piece has arrived, in seconds."""
HEAR_SECONDS = 1.0
"""Interval of reading the other workers' heartbeats during a fetch, in seconds."""
MAX_DIGITS = len(str(INT53_MAX))
"""Limit of digits of a number in a request: transaction ids have 15 digits and more after a restart of the store."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Passer:
    """A worker that passes versions on, with its latest report."""

    name: str
    report: PassingReport


class PassedVersion:
    """The files of one version, which the fetching thread adds and the web server's threads read."""

    def __init__(self) -> None:
        self._files: dict[str, ArrivingFile | None] = {}
        self.is_whole = False

    def enter(self, name: str, file: ArrivingFile | None) -> None:
        """Adds a file that begins to arrive; None: the version has no file of that name."""
        self._files[name] = file

    def answer(self, name: str, piece: int) -> OtherAnswer | None:
        """Returns 206 with the piece, 416 past the file's end, 204 for a file that the version lacks, 503 for a piece
        or file that has not arrived within WAIT_SECONDS; None for an unknown file of a complete version."""
        until = time.monotonic() + WAIT_SECONDS
        while True:
            is_whole = self.is_whole  # read first: more may arrive in between
            answer = self._look(name, piece)
            if answer is not None or is_whole:
                return answer
            if time.monotonic() > until:
                return OtherAnswer(HTTPStatus.SERVICE_UNAVAILABLE)
            time.sleep(POLL_SECONDS)

    def _look(self, name: str, number: int) -> OtherAnswer | None:
        if name not in self._files:
            return None
        file = self._files[name]
        if file is None:
            return OtherAnswer(HTTPStatus.NO_CONTENT)
        if (found := file.piece(number)) is None:
            return None
        piece, digest = found
        status = HTTPStatus.PARTIAL_CONTENT if digest else HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        return OtherAnswer(status, piece, {DIGEST_HEADER: digest.hex(), READING_HEADER: file.reading})


class Passing:
    """Passes one worker's versions on to other workers. The web server calls `answer`; after `join` the worker's
    heartbeats contain the address.

    An incomplete version is passed on only to workers whose names sort after this worker's name. So workers that fetch
    at the same time form a chain without cycles.
    """

    def __init__(self) -> None:
        self._secret = secrets.token_urlsafe(32)
        self._versions: dict[int, PassedVersion] = {}
        self.port = 0
        """Port of this process's web server; 0 without one."""
        self._address = self._name = ""
        self._workers: Callable[[], Awaitable[Sequence[WorkerStatus]]] | None = None
        self.others: tuple[Passer, ...] = ()
        self.heard_at = float("-inf")
        """Time of the last read of the other workers' heartbeats, in seconds of time.monotonic."""

    def join(self, name: str, address: str, workers: Callable[[], Awaitable[Sequence[WorkerStatus]]]) -> None:
        """Begins to take part. `name`: this worker's; `address`: http://HOST:PORT of its web server; `workers`: a
        function that reads all heartbeats."""
        self._name, self._workers = name, workers
        self._address = f"{address}/weights/{self._secret}"

    @property
    def name(self) -> str:
        """This worker's name; "" before `join`."""
        return self._name

    @property
    def report(self) -> PassingReport | None:
        """The report for the next heartbeat; None before `join`."""
        if not self._address:
            return None
        versions = sorted(self._versions.items())
        whole = tuple(publisher for publisher, version in versions if version.is_whole)
        return PassingReport(
            address=self._address,
            whole=whole,
            partial=tuple(publisher for publisher, _ in versions if publisher not in whole),
        )

    def answer(self, path: str) -> OtherAnswer | None:
        """Answers a request for `/weights/SECRET/PUBLISHER/NAME?piece=N&to=WORKER`; returns None if the path is another
        one or the version is not passed on to that worker."""
        place, _, asked = path.partition("?")
        query = {key: values[0] for key, values in parse_qs(asked).items()}
        match place.split("/"):
            case ["", "weights", secret, publisher, name] if self._is_secret(secret):
                version = self._versions.get(_number(publisher))
            case _:
                return None
        piece = _number(query.get("piece", ""))
        if version is None or piece < 0 or not (version.is_whole or query.get("to", "") > self._name):
            return None
        try:
            return version.answer(unquote(name), piece)
        except OSError as error:  # the file was removed
            log.debug("piece %d of %s: %s", piece, name, error)
            return None

    def _is_secret(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._secret.encode())

    @contextmanager
    def fetching(self, publisher: int) -> Generator[PassedVersion]:
        """Passes on a version's files as they arrive within the context, and also afterwards unless it raises."""
        version = self._versions[publisher] = PassedVersion()
        try:
            yield version
        except BaseException:
            if self._versions.get(publisher) is version:
                self.drop(publisher)
            raise
        version.is_whole = True

    def drop(self, publisher: int) -> None:
        """Stops passing a version on."""
        self._versions.pop(publisher, None)

    @asynccontextmanager
    async def hearing(self) -> AsyncGenerator[None]:
        """Updates `others` every HEAR_SECONDS within the context."""
        task = None if self._workers is None else asyncio.create_task(self._hear(self._workers))
        try:
            yield
        finally:
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    async def _hear(self, workers: Callable[[], Awaitable[Sequence[WorkerStatus]]]) -> None:
        while True:
            try:
                statuses = await workers()
            except StoreError as error:
                log.debug("the other workers' heartbeats cannot be read: %s", error)
            else:
                now = max((status.seen_at for status in statuses), default=0.0)  # this worker's own is fresh
                reports = [(status.name, status.heartbeat.weights) for status in statuses if status.works(now)]
                self.others = tuple(
                    Passer(name, report.passing)
                    for name, report in reports
                    if report is not None and report.passing is not None and name != self._name
                )
                self.heard_at = time.monotonic()
            await asyncio.sleep(HEAR_SECONDS)


def own_address(store_url: str, port: int) -> str:
    """Returns http://HOST:PORT of this machine's `port`, with the machine's address on the route to the store.

    Raises OSError.
    """
    parts = url_parts(store_url)
    store = parts.hostname or "localhost", parts.port or REDIS_PORT
    problem = OSError(f"{store[0]} has no address")
    for family, kind, _, _, place in socket.getaddrinfo(*store, type=socket.SOCK_DGRAM):
        try:
            with socket.socket(family, kind) as toward:
                toward.connect(place)  # sends nothing
                host = str(toward.getsockname()[0])
        except OSError as error:  # an address family that this machine lacks
            problem = error
        else:
            return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    raise problem


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS else -1
