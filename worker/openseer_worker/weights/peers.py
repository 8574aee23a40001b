"""Fetches the pieces of a version from other workers, so that its source is read less often."""

import logging
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from http import HTTPStatus
from types import TracebackType
from typing import NamedTuple
from urllib.parse import quote

import httpx

from openseer_core.errors import LoadError
from openseer_core.weights.digest import PIECE_BYTES
from openseer_worker.weights.passing import DIGEST_HEADER, READING_HEADER, Passer, Passing

CONNECT_SECONDS = 2.0
"""Timeout of a connection to another worker, in seconds: its pod may have ended."""
READ_SECONDS = 10.0
"""Timeout of another worker's next bytes, in seconds; also the longest time until a cancelled fetch stops."""
PIECE_SECONDS = 120.0
"""Timeout of one piece from one worker, in seconds; that worker may itself wait for a slow source."""
FIRST_SECONDS = 3.0
"""Time limit of a fetch's wait until a worker with a smaller name reports that it fetches the version, in seconds."""
NEWS_SECONDS = 2.0
"""Limit of the age of the other workers' reports when a fetch begins, in seconds."""
MOST_ASKED = 4
"""Limit of workers tried for one piece."""
POLL_SECONDS = 0.05
"""Pause between two requests for a piece, or two checks of reports, in seconds."""

log = logging.getLogger(__name__)


class PassedPiece(NamedTuple):
    """A piece of a file, with its SHA-256 and the file's reading. Empty `data`: past the file's end; empty `reading`:
    the version has no such file."""

    data: bytes | bytearray = b""
    digest: bytes = b""
    reading: str = ""


class _RefusedError(Exception):
    """Raised with the reason not to use a worker again."""


class Peers:
    """The other workers from which one fetch gets pieces: they have the version, or fetch it and have a smaller name.
    For one thread.

    A worker that was late, refused or sent bytes of another digest is not used again. `gave`: names of the workers that
    sent a piece.
    """

    def __init__(self, passing: Passing, publisher: int, stopped: Callable[[], bool]) -> None:
        self.gave: set[str] = set()
        self._passing = passing
        self._publisher = publisher
        self._stopped = stopped
        self._failed: set[str] = set()
        self._latest = ""
        limits = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        self._client = httpx.Client(timeout=limits, trust_env=False)

    def __enter__(self) -> "Peers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def wait(self) -> None:
        """Waits until a worker reports the version, or no worker with a smaller name exists; at most FIRST_SECONDS."""
        until = time.monotonic() + FIRST_SECONDS
        while time.monotonic() < until and not self._stopped():
            is_news = time.monotonic() - self._passing.heard_at < NEWS_SECONDS
            if is_news and (self._to_ask() or not self._earlier()):
                return
            time.sleep(POLL_SECONDS)

    def piece(self, name: str, number: int) -> PassedPiece | None:
        """Returns piece `number` of a file, checked; None if no worker sends it. Raises LoadError after a cancel."""
        for passer in self._to_ask()[:MOST_ASKED]:
            try:
                piece = self._ask(passer, name, number)
            except (_RefusedError, httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                why = str(error) if isinstance(error, _RefusedError) else type(error).__name__  # without the address
                log.warning("piece %d of %s: %s is not used any longer: %s", number, name, passer.name, why)
                self._failed.add(passer.report.address)
                continue
            self.gave.add(passer.name)
            self._latest = passer.name
            return piece
        return None

    def _earlier(self) -> list[Passer]:
        """Returns the workers with smaller names, the greatest name first."""
        earlier = [passer for passer in self._passing.others if passer.name < self._passing.name]
        return sorted(earlier, key=lambda passer: passer.name, reverse=True)

    def _to_ask(self) -> list[Passer]:
        """Returns the workers to try, in order: the sender of the last piece, since others may have another reading;
        the workers that fetch the version; the workers that have it. So workers that fetch at the same time form a
        chain, and only its first worker uses a worker that has the version."""
        partial = [passer for passer in self._earlier() if self._publisher in passer.report.partial]
        whole = [passer for passer in self._passing.others if self._publisher in passer.report.whole]
        whole.sort(key=lambda passer: sha256(f"{self._passing.name} {passer.name}".encode()).digest())
        to_ask = [passer for passer in (*partial, *whole) if passer.report.address not in self._failed]
        return sorted(to_ask, key=lambda passer: passer.name != self._latest)

    def _ask(self, passer: Passer, name: str, number: int) -> PassedPiece:
        url = f"{passer.report.address}/{self._publisher}/{quote(name)}"
        query = {"piece": str(number), "to": self._passing.name}
        until = time.monotonic() + PIECE_SECONDS
        while True:
            with self._client.stream("GET", url, params=query) as response:
                match response.status_code:
                    case HTTPStatus.PARTIAL_CONTENT | HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                        return self._take(response, until)
                    case HTTPStatus.NO_CONTENT:
                        return PassedPiece()
                    case HTTPStatus.SERVICE_UNAVAILABLE:
                        pass  # the piece has not arrived there yet
                    case status:
                        raise _RefusedError(f"it answered {status}")
            self._check(until)
            time.sleep(POLL_SECONDS)

    def _take(self, response: httpx.Response, until: float) -> PassedPiece:
        data = bytearray()
        for part in self._parts(response, until):
            data += part
            if len(data) > PIECE_BYTES:
                raise _RefusedError("it sent more than a piece")
        reading = response.headers.get(READING_HEADER, "")
        digest = sha256(data).digest()
        ended = response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        if not reading or bool(data) == ended or (data and digest.hex() != response.headers.get(DIGEST_HEADER)):
            raise _RefusedError("the bytes do not fit the digest")
        return PassedPiece(data, digest, reading)

    def _parts(self, response: httpx.Response, until: float) -> Iterator[bytes]:
        for part in response.iter_bytes():
            self._check(until)
            yield part

    def _check(self, until: float) -> None:
        if self._stopped():
            raise LoadError("the weights are no longer wanted")
        if time.monotonic() > until:
            raise _RefusedError(f"the piece did not arrive within {PIECE_SECONDS:g} s")
