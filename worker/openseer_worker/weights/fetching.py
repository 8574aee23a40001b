"""Fetches a folder of weights over HTTP, from its source or from other workers; hashes the files as they arrive."""

import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import httpx

from openseer_core.errors import LoadError
from openseer_core.weights.adapters import CONFIG, TENSORS
from openseer_core.weights.digest import PIECE_BYTES, FileDigest, version_digest
from openseer_core.weights.url import host_of, shown_url, url_problem
from openseer_worker.weights.files import INDEX, SINGLE, named_files
from openseer_worker.weights.hashing import HASH_THREADS, ArrivingFile, never
from openseer_worker.weights.passing import PassedVersion
from openseer_worker.weights.peers import Peers

MAX_FETCH_BYTES = 4 * 2**40
"""Limit of bytes fetched for one version."""
FETCH_SECONDS = 3600.0
"""Timeout for fetching one version, in seconds."""
READ_TIMEOUT_SECONDS = 30.0
"""Timeout of a server's next bytes, in seconds; also the longest time until a cancelled fetch stops."""
MOST_READINGS = 4
"""Limit of attempts to get a file from other workers, each with one reading; then its source is read."""

_SCHEME_ALONE = re.compile(r"[a-z][a-z0-9+.-]*:(?!//[^/?#])", re.I)
"""Matches a redirect to a scheme without a host."""


def fetch(
    url: str,
    folder: Path,
    stopped: Callable[[], bool] = never,
    allowed: Sequence[str] = (),
    *,
    adapter: bool = False,
    version: PassedVersion | None = None,
    peers: Peers | None = None,
) -> str:
    """Fetches a folder of safetensors over HTTP (the files in its index, or its one file); returns the files' digest.

    `adapter`: fetch the two files of an adapter. `version`: receives each file as it begins to arrive. `peers`: tried
    for each file before the server; if they mix pieces of several versions, the digest differs. `allowed`: hosts, as in
    url_problem.

    Raises LoadError for a host that is not allowed, a server that refuses, a fetch of more than FETCH_SECONDS or
    MAX_FETCH_BYTES, and after a cancel; OSError if the files cannot be written.
    """
    shown = shown_url(url)
    if problem := url_problem(url, allowed):
        raise LoadError(f"{shown} {problem}")
    hooks = {"response": [partial(_check_redirect, url, allowed)]}
    try:
        with (
            httpx.Client(timeout=READ_TIMEOUT_SECONDS, follow_redirects=True, event_hooks=hooks) as client,
            ThreadPoolExecutor(HASH_THREADS) as pool,
        ):
            download = _Download(client, url.rstrip("/"), folder, pool, stopped, version or PassedVersion(), peers)
            names = {CONFIG, TENSORS} if adapter else {SINGLE}
            if not adapter and download.get(INDEX, optional=True):
                names = named_files((folder / INDEX).read_bytes(), f"{shown}/{INDEX}")
            for name in sorted(names):
                download.get(name)
            return version_digest(download.files)
    except httpx.HTTPError as error:
        raise LoadError(f"{shown}: {_words(error)}") from None
    except (httpx.InvalidURL, ValueError) as error:  # an impossible host, here or in a redirect
        raise LoadError(f"{shown}: {type(error).__name__}: no request can be made to it") from None
    except OSError as error:
        raise OSError(f"{shown}: cannot be kept in {folder}: {error}") from None


def _check_redirect(url: str, allowed: Sequence[str], response: httpx.Response) -> None:
    """Raises LoadError for a redirect that is not permitted: only to `allowed` hosts, or to the host of `url` if none
    are named."""
    if not response.has_redirect_location:
        return
    to = urljoin(str(response.url), response.headers["Location"])
    problem = url_problem(to.partition("?")[0], allowed)
    if _SCHEME_ALONE.match(response.headers["Location"]):  # clients differ: httpx reads it as another port
        problem = "names no host"
    if not problem and not allowed and host_of(to) != host_of(url):
        problem = "is on another host, which the job has to allow (spec.weights.allowedHosts)"
    if problem:
        raise LoadError(f"{shown_url(url)} leads to {shown_url(to.partition('?')[0])}, which {problem}")


def _words(error: httpx.HTTPError) -> str:
    """Returns an error's text without the full URL: httpx's own text contains it, with its password."""
    if isinstance(error, httpx.HTTPStatusError):
        return f"{error.response.status_code} {error.response.reason_phrase} for {error.request.url.path}"
    return str(error) or type(error).__name__


class _Download:
    """Fetches the files of one folder, within a common limit of time and size."""

    def __init__(
        self,
        client: httpx.Client,
        url: str,
        folder: Path,
        pool: ThreadPoolExecutor,
        stopped: Callable[[], bool],
        version: PassedVersion,
        peers: Peers | None,
    ) -> None:
        self._version = version
        self._peers = peers
        self._client = client
        self._url = url
        self._folder = folder
        self._pool = pool
        self._stopped = stopped
        self._deadline = time.monotonic() + FETCH_SECONDS
        self._left = MAX_FETCH_BYTES
        self.files: list[FileDigest] = []

    def get(self, name: str, *, optional: bool = False) -> bool:
        """Fetches one file; returns False if an optional file does not exist."""
        is_there = None if self._peers is None else self._get_passed(self._peers, name, optional=optional)
        if is_there is None:
            is_there = self._get_from_source(name, optional=optional)
        if not is_there:
            self._version.enter(name, None)
        return is_there

    def _get_passed(self, peers: Peers, name: str, *, optional: bool) -> bool | None:
        """Fetches one file from other workers; returns None if they do not have all of it, False if an optional file
        does not exist. All pieces are of one reading of the source, since the file may change between two readings."""
        piece = peers.piece(name, 0)
        for _ in range(MOST_READINGS):
            if piece is None:
                return None
            if not piece.reading:
                return False if optional else None
            with ArrivingFile(self._folder / name, self._pool, piece.reading) as arriving:
                self._version.enter(name, arriving)
                number = 0
                while piece is not None and piece.reading == arriving.reading:
                    if piece.data:
                        self._check(len(piece.data))
                        arriving.add_piece(piece.data, piece.digest)
                    if len(piece.data) < PIECE_BYTES:
                        self.files.append(arriving.end())
                        return True
                    number += 1
                    piece = peers.piece(name, number)
            if piece is not None:  # a piece of another reading: start again with that reading
                piece = peers.piece(name, 0)
        return None

    def _get_from_source(self, name: str, *, optional: bool) -> bool:
        """Fetches one file in a single response, so that all its bytes are of one state of the source. Returns False if
        an optional file does not exist."""
        with self._client.stream("GET", f"{self._url}/{name}") as response:
            if optional and response.status_code == 404:
                return False
            response.raise_for_status()
            with ArrivingFile(self._folder / name, self._pool) as arriving:
                self._version.enter(name, arriving)
                for data in response.iter_bytes():  # in small parts, so that a cancel works with a slow server, too
                    self._check(len(data))
                    arriving.add(data)
                self.files.append(arriving.end())
        return True

    def _check(self, count: int) -> None:
        self._left -= count
        if self._stopped():
            raise LoadError(f"{shown_url(self._url)}: no longer wanted")
        if self._left < 0 or time.monotonic() > self._deadline:
            raise LoadError(
                f"{shown_url(self._url)}: more than {MAX_FETCH_BYTES} bytes, or longer than {FETCH_SECONDS:.0f} s"
            )
