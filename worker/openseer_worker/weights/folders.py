"""The folders of the versions that a worker may have to load: fetches and checks them, and computes their digest."""

import asyncio
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from openseer_core.errors import LoadError, OpenseerError
from openseer_core.weights.publish import Source
from openseer_core.weights.url import shown_url
from openseer_core.weights.worker_step import WeightsTarget
from openseer_worker.weights.adapter_files import refuse_adapter
from openseer_worker.weights.fetching import fetch
from openseer_worker.weights.files import check_files, weight_files
from openseer_worker.weights.hashing import digest
from openseer_worker.weights.passing import Passing
from openseer_worker.weights.peers import Peers
from openseer_worker.weights.temporary import Record, SharedFolder, shared_folder

TICK_SECONDS, COARSE_TICK_SECONDS = 0.05, 2.0
"""Interval within which two writes may result in the same file times, in seconds: on a file system with fractions of a
second, and on others."""

_LOG = logging.getLogger(__name__)
_REASON_CHARS = 200
_T = TypeVar("_T")
_Stamps = dict[str, tuple[int, int, int, int]]


@dataclass(frozen=True, slots=True)
class CheckedFolder:
    """A folder and the digest of its weights, valid while its files have these stamps (size, times, inode)."""

    path: Path
    digest: str
    stamps: _Stamps

    def check_unchanged(self) -> None:
        """Raises LoadError if a file has changed or was removed since the digest was computed."""
        try:
            stamps = _stamps(self.path)
        except FileNotFoundError as error:
            raise LoadError(f"{error.filename} was removed while it was read") from None
        if stamps != self.stamps:
            raise LoadError(f"{self.path} was written over while it was read")


class WeightFolders:
    """The folders of a worker's versions. A fetched version is found by its digest, or by its publisher (a
    transaction's id) while the digest is unknown.

    `scope`: identifies the workers of one job. With a scope, one worker of each machine fetches a version for all, and
    reads it for its digest; without a scope each worker does both. `passing`: passes files on to workers of other
    machines.
    """

    def __init__(
        self,
        allowed_hosts: Sequence[str] = (),
        check_adapter: Callable[[Path], None] = refuse_adapter,
        scope: str = "",
        passing: Passing | None = None,
    ) -> None:
        self.passing = passing or Passing()
        self._allowed_hosts = allowed_hosts
        self._check_adapter = check_adapter
        self._scope = scope or uuid.uuid4().hex
        self._fetched: dict[int, CheckedFolder] = {}
        self._paths: dict[tuple[Path, bool], CheckedFolder] = {}
        self._held: dict[int | Path, SharedFolder] = {}
        """Shared folders in use, by publisher (fetched) or by path (read). Threads add entries, also after a cancel."""

    async def get(self, target: WeightsTarget) -> CheckedFolder | None:
        """Returns the folder of a target's weights, after fetching and hashing them if necessary; None for the job's
        own model.

        Raises LoadError or OSError if they cannot be fetched or read, LoadError if their digest is not the source's.
        A thread does the work; it ends after a cancel.
        """
        source = target.source
        if source is None:
            return None
        if source.path is not None:
            found = await self._local(Path(source.path), target)
        else:
            found = await self._found(source, target.publisher) or await self._fetch(source.url or "", target)
        if source.digest not in (None, found.digest):
            self._forget(found)
            place = source.path or shown_url(source.url or "")
            raise LoadError(f"{place} has other weights: found digest {found.digest}, needed: {source.digest}")
        return found

    def keep(self, targets: Iterable[WeightsTarget]) -> None:
        """Keeps the folders of these targets, and releases all others."""
        targets = list(targets)
        sources = [target.source for target in targets]
        paths = {Path(source.path) for source in sources if source is not None and source.path is not None}
        self._paths = {key: folder for key, folder in self._paths.items() if key[0] in paths}
        found = [self._find(target.source, target.publisher) for target in targets if target.source is not None]
        self._fetched = {publisher: folder for publisher, folder in self._fetched.items() if folder in found}
        wanted = {*self._fetched, *paths, *(target.publisher for target in targets)}
        for key in set(self._held) - wanted:
            self._let_go(key)

    def close(self) -> None:
        """Releases all folders."""
        self._fetched, self._paths = {}, {}
        for key in list(self._held):
            self._let_go(key)

    def _find(self, source: Source, publisher: int) -> CheckedFolder | None:
        if source.url is None or source.digest is None:
            return self._fetched.get(publisher)
        return next((folder for folder in self._fetched.values() if folder.digest == source.digest), None)

    async def _found(self, source: Source, publisher: int) -> CheckedFolder | None:
        """Returns the folder of an earlier fetch; None if it is missing or has changed, since other programs may remove
        temporary files."""
        found = self._find(source, publisher)
        if found is None:
            return None
        try:
            await _in_thread(lambda _: found.check_unchanged())
        except LoadError as error:
            _LOG.warning("weights are fetched anew: %s", error)
            self._forget(found)
            return None
        return found

    def _forget(self, folder: CheckedFolder) -> None:
        """Drops a fetched folder, so that the next `get` fetches it again."""
        for publisher in [publisher for publisher, known in self._fetched.items() if known == folder]:
            del self._fetched[publisher]
            self._held[publisher].spoil()
            self._let_go(publisher)

    def _let_go(self, key: int | Path) -> None:
        held = self._held.pop(key)
        if isinstance(key, int):
            self.passing.drop(key)
        held.release()

    async def _fetch(self, url: str, target: WeightsTarget) -> CheckedFolder:
        key = f"{self._scope}\n{target.publisher}\n{url}"

        def work(stopped: Callable[[], bool]) -> CheckedFolder:
            def make(folder: Path) -> Record:
                found = self._fetch_files(url, folder, target, stopped)
                return {"digest": found, "stamps": _stamps(folder)}

            try:
                shared = self._hold(target.publisher, shared_folder(key, make, stopped), stopped)
            except BaseException:
                self.passing.drop(target.publisher)
                raise
            made = {name: tuple(stamp) for name, stamp in shared.record["stamps"].items()}
            found = CheckedFolder(shared.path, shared.record["digest"], made)
            try:
                found.check_unchanged()
            except LoadError:
                shared.spoil()
                raise
            return found

        async with self.passing.hearing():
            self._fetched[target.publisher] = await _in_thread(work)
        return self._fetched[target.publisher]

    def _fetch_files(self, url: str, folder: Path, target: WeightsTarget, stopped: Callable[[], bool]) -> str:
        """Fetches a version into an empty folder; returns its digest. If files with other workers' pieces are bad or do
        not have the needed digest, fetches all files from the source."""
        needed = None if target.source is None else target.source.digest

        def read(peers: Peers | None) -> str:
            found = fetch(
                url, folder, stopped, self._allowed_hosts, adapter=target.adapter, version=version, peers=peers
            )
            self._check(folder, target)
            return found

        with self.passing.fetching(target.publisher) as version:
            if not self.passing.name:
                return read(None)
            with Peers(self.passing, target.publisher, stopped) as peers:
                peers.wait()
                try:
                    found, problem = read(peers), ""
                except LoadError as error:
                    found, problem = "", str(error)
                    if stopped() or not peers.gave:
                        raise
            if not problem and (not peers.gave or needed in (None, found)):
                return found
            why, givers = problem or f"found digest {found}, needed: {needed}", ", ".join(sorted(peers.gave))
            _LOG.warning("weights %s with pieces of %s: %s; fetched again from the source", target.version, givers, why)
            for path in folder.iterdir():
                path.unlink()
            return read(None)

    def _hold(self, key: int | Path, shared: SharedFolder, stopped: Callable[[], bool]) -> SharedFolder:
        """Notes a shared folder, to be released later. After a cancel releases it and raises LoadError, because no
        caller would."""
        if stopped():
            shared.release()
            raise LoadError("the weights are no longer wanted")
        if (before := self._held.pop(key, None)) is not None:
            before.release()
        self._held[key] = shared
        return shared

    def _check(self, folder: Path, target: WeightsTarget) -> None:
        if target.adapter:
            self._check_adapter(folder)
        else:
            check_files(folder)

    async def _local(self, path: Path, target: WeightsTarget) -> CheckedFolder:
        """Checks a local folder of weights or an adapter, and computes its digest; both results are valid while its
        files keep their stamps."""
        key = path, target.adapter
        known = self._paths.get(key)

        def work(stopped: Callable[[], bool]) -> CheckedFolder:
            if known is not None and _stamps(path) == known.stamps:
                return known
            self._check(path, target)
            stamps = _stamps(path)
            found = CheckedFolder(path, self._digest(path, stamps, stopped), stamps)
            found.check_unchanged()
            return found

        found = await _in_thread(work)
        self._paths.pop(key, None)
        if found is known or _is_settled(found.stamps):
            self._paths[key] = found
        return found

    def _digest(self, path: Path, stamps: _Stamps, stopped: Callable[[], bool]) -> str:
        """Returns the digest of files with these stamps. If possible, one worker of the machine computes it for all."""
        if not _is_settled(stamps):
            return digest(path, stopped)
        own: list[str] = []

        def make(folder: Path) -> Record:
            def shows_and_stops() -> bool:
                os.utime(folder)
                return stopped()

            own.append(digest(path, shows_and_stops))
            return {"digest": own[0]}

        key = f"{self._scope}\n{path}\n{sorted(stamps.items())}"
        try:
            shared = shared_folder(key, make, stopped)
        except OSError as error:  # temporary files are needed for sharing alone
            _LOG.warning("the digest of %s cannot be shared with other workers: %s", path, error)
            return own[0] if own else digest(path, stopped)
        return str(self._hold(path, shared, stopped).record["digest"])


def _stamps(folder: Path) -> _Stamps:
    """Reads size, mtime, ctime (ns) and inode of each file. Opens the files to bypass a network file system's cache."""
    stamps = _Stamps()
    for path in weight_files(folder):
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
        name = path.relative_to(folder).as_posix()
        stamps[name] = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    return stamps


def _is_settled(stamps: _Stamps) -> bool:
    """Whether the last change is so old that any later write would change a file's times."""
    times = [stamp[2] for stamp in stamps.values()]
    tick = TICK_SECONDS if any(stamp % 10**9 for stamp in times) else COARSE_TICK_SECONDS
    return time.time() - max(times, default=0) / 1e9 > tick


async def _in_thread(work: Callable[[Callable[[], bool]], _T]) -> _T:
    """Runs `work` in a thread; its argument is a function that returns True after a cancel.

    Raises the errors of `work`; unexpected errors as LoadError, because a bad file must not end a worker.
    """
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop.is_set)
    except (OpenseerError, OSError):
        raise
    except Exception as error:
        _LOG.exception("weights could not be read")
        raise LoadError(f"the files cannot be read ({type(error).__name__}: {str(error)[:_REASON_CHARS]})") from error
    finally:
        stop.set()
