"""Files of weights: checked, read ahead of their load, fetched over HTTP, and removed when they are old."""

import asyncio
import json
import shutil
import struct
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, cast

import httpx

from openseer_core.errors import LoadError
from openseer_core.weights.publish import Source

READ_BYTES = 8 * 2**20
"""Bytes of one read."""
MAX_HEADER_BYTES = 100 * 2**20
"""Longest header of a safetensors file, by its specification."""
MAX_FETCH_BYTES = 4 * 2**40
"""Most that is fetched for one version."""
FETCH_SECONDS = 3600.0
"""Longest time for fetching one version."""
READ_TIMEOUT_SECONDS = 30.0
"""Longest wait for a server's next bytes."""
_TIED = frozenset({"lm_head.weight"})
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


Shapes = dict[str, tuple[int, ...]]
"""Shapes of tensors by name."""


def check_files(folder: Path, own: Path | None = None) -> int:
    """The bytes of a folder's weights. Raises LoadError where one is missing or is cut short.

    `own`: of the job's model: tensors that it has and the folder has not, or in another shape, are missing too.
    A folder without safetensors is taken as it is: other engines have other files.
    """
    size, shapes = _survey(folder)
    if own is not None:
        _compare(folder, shapes, own)
    return size


def _survey(folder: Path) -> tuple[int, Shapes]:
    if not folder.is_dir():
        raise LoadError(f"there is no folder {folder} on this worker")
    names = {path.name for path in folder.glob("*.safetensors")}
    index = folder / INDEX
    if index.exists():
        missing = sorted(_named(index.read_bytes(), str(index)) - names)
        if missing:
            raise LoadError(f"{folder} lacks {', '.join(missing)}, which {INDEX} names")
    size, shapes = 0, Shapes()
    for name in sorted(names):
        size += _read_header(folder / name, shapes)
    return size, shapes


def _compare(folder: Path, shapes: Shapes, own: Path) -> None:
    """An engine would go on with its old tensors where there are no new ones."""
    for name, shape in _survey(own)[1].items():
        found = shapes.get(name)
        if found is None and not (name in _TIED and _is_tied(own)):
            raise LoadError(f"{folder} lacks tensor {name}, which the job's model has")
        if found not in (None, shape):
            raise LoadError(f"{folder}: tensor {name} has shape {list(found or ())}, in the job's model {list(shape)}")


def _is_tied(own: Path) -> bool:
    """Whether a model's output layer is its embedding, so that it need not be stored."""
    try:
        return bool(json.loads((own / "config.json").read_bytes()).get("tie_word_embeddings"))
    except (OSError, ValueError, AttributeError):
        return False


def _read_header(path: Path, shapes: Shapes) -> int:
    """The size of one file, whose header must fit it; notes the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise LoadError(f"{path} is no safetensors file, or is cut short: it has {size} bytes")
        header = file.read(length)
    try:
        tensors = cast("dict[str, Any]", json.loads(header))
        ends = [0]
        for name, tensor in tensors.items():
            if name != "__metadata__":
                ends.append(int(tensor["data_offsets"][1]))
                shapes[name] = tuple(int(length) for length in tensor["shape"])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        raise LoadError(f"{path}: its header cannot be read") from None
    expected = 8 + length + max(ends)
    if size != expected:
        raise LoadError(f"{path} is cut short or was written over: found {size} bytes, its header says {expected}")
    return size


def _named(index: bytes, path: str) -> set[str]:
    """The file names in an index."""
    try:
        names = {str(name) for name in json.loads(index)["weight_map"].values()}
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LoadError(f"{path}: it cannot be read as an index of safetensors") from None
    strange = sorted(name for name in names if PurePosixPath(name).name != name or not name.endswith(".safetensors"))
    if strange:
        raise LoadError(f"{path} names {strange[0]}, which is no safetensors file beside it")
    return names


def digest(folder: Path) -> str:
    """A digest of a folder's files."""
    content = blake2b(digest_size=8)
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        content.update(path.name.encode())
        content.update(path.read_bytes())
    return content.hexdigest()


class WeightFiles:
    """The folders of the versions that a worker may have to load, fetched ones among them."""

    def __init__(self) -> None:
        self._root: Path | None = None
        self._fetched: dict[str, Path] = {}
        self._stop = threading.Event()

    async def folder(self, source: Source | None) -> Path | None:
        """Where the weights of a source are, fetched if need be; None for the job's own model and for a transfer.

        Raises LoadError.
        """
        if source is None or source.transfer is not None:
            return None
        return Path(source.path) if source.path is not None else await self._fetch(source.url or "")

    async def read_ahead(self, source: Source) -> None:
        """Fetches the weights if need be, checks them, and reads them once, so that to load them is quick.

        Raises LoadError. Runs beside the event loop.
        """
        folder = await self.folder(source)
        if folder is None:
            return
        if folder.is_dir() and any(folder.glob("*.safetensors")):
            await asyncio.to_thread(self._read, folder)
        else:
            check_files(folder)

    def keep(self, sources: Iterable[Source | None]) -> None:
        """Removes what was fetched from any other source."""
        wanted = {source.url for source in sources if source is not None}
        for url in [url for url in self._fetched if url not in wanted]:
            shutil.rmtree(self._fetched.pop(url), ignore_errors=True)

    def close(self) -> None:
        """Stops reading and removes everything that was fetched."""
        self._stop.set()
        if self._root is not None:
            shutil.rmtree(self._root, ignore_errors=True)

    async def _fetch(self, url: str) -> Path:
        if url not in self._fetched:
            self._root = self._root or Path(tempfile.mkdtemp(prefix="openseer-weights-"))
            folder = Path(tempfile.mkdtemp(dir=self._root))
            try:
                await asyncio.to_thread(fetch, url, folder, self._stop.is_set)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
            self._fetched[url] = folder
        return self._fetched[url]

    def _read(self, folder: Path) -> None:
        check_files(folder)
        for path in sorted(folder.glob("*.safetensors")):
            with path.open("rb", buffering=0) as file:
                while file.read(READ_BYTES) and not self._stop.is_set():
                    pass


def fetch(url: str, folder: Path, stopped: Callable[[], bool] = lambda: False) -> None:
    """Fetches a folder of safetensors over HTTP: the files that its index names, or else its one file.

    Raises LoadError when the server refuses, takes longer than FETCH_SECONDS or sends more than MAX_FETCH_BYTES.
    """
    try:
        with httpx.Client(timeout=READ_TIMEOUT_SECONDS, follow_redirects=True) as client:
            download = _Download(client, url.rstrip("/"), folder, stopped)
            names = {SINGLE}
            if download.get(INDEX, optional=True):
                names = _named((folder / INDEX).read_bytes(), f"{url}/{INDEX}")
            for name in sorted(names):
                download.get(name)
    except httpx.HTTPError as error:
        raise LoadError(f"{url}: {error or type(error).__name__}") from None
    except OSError as error:
        raise LoadError(f"{url}: cannot be kept in {folder}: {error}") from None


class _Download:
    """Files of one folder, within one limit of time and size."""

    def __init__(self, client: httpx.Client, url: str, folder: Path, stopped: Callable[[], bool]) -> None:
        self._client = client
        self._url = url
        self._folder = folder
        self._stopped = stopped
        self._deadline = time.monotonic() + FETCH_SECONDS
        self._left = MAX_FETCH_BYTES

    def get(self, name: str, *, optional: bool = False) -> bool:
        """Fetches one file; False when an optional one is not there."""
        with self._client.stream("GET", f"{self._url}/{name}") as response:
            if optional and response.status_code == 404:
                return False
            response.raise_for_status()
            with (self._folder / name).open("wb") as file:
                for piece in response.iter_bytes(READ_BYTES):
                    self._check(len(piece))
                    file.write(piece)
        return True

    def _check(self, count: int) -> None:
        self._left -= count
        if self._stopped():
            raise LoadError(f"{self._url}: the worker ends")
        if self._left < 0 or time.monotonic() > self._deadline:
            raise LoadError(f"{self._url}: more than {MAX_FETCH_BYTES} bytes, or longer than {FETCH_SECONDS:.0f} s")
