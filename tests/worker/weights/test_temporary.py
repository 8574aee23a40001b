"""The workers of one machine share fetched and read files: one fetch for all, no files left behind by a dead worker."""

import asyncio
import errno
import fcntl
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from openseer_core.errors import LoadError
from openseer_core.weights.publish import Source
from openseer_core.weights.worker_step import WeightsTarget
from openseer_worker.weights import folders as folders_module
from openseer_worker.weights import temporary
from openseer_worker.weights.folders import CheckedFolder, WeightFolders
from openseer_worker.weights.hashing import digest
from openseer_worker.weights.hashing import never as wanted
from openseer_worker.weights.temporary import SharedFolder, remove_left, shared_folder
from tests.worker.weights.made import safetensors

_DIES = """
import sys
from openseer_worker.weights.temporary import shared_folder

def make(folder):
    (folder / "half").write_text("x")
    print(folder, flush=True)
    if "half" in sys.argv:
        sys.stdin.read()
    return {"by": "dead"}

held = shared_folder("key", make, lambda: False)
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's folder of temporary files, for this test only."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return path


@pytest.fixture
def another(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that makes the folder of "key"; it is killed during that, or afterwards."""
    command = [sys.executable, "-c", _DIES, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if request.param == "whole":
            process.stdout.readline()
        yield process
        process.kill()


def _removes_nothing(*_: object, **__: object) -> None:
    """A replacement of `rmtree` that removes nothing, as if the worker had died."""


async def left_by_a_dead_worker(url: str) -> Path:
    """Files fetched for a job whose worker neither holds nor removed them."""
    worker = WeightFolders(scope="job")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", _removes_nothing)
        path = (await got(worker, Source(url=url))).path
        worker.close()
    assert path.exists()
    return path


def made(key: str = "key", by: str = "me") -> SharedFolder:
    return shared_folder(key, lambda _: {"by": by}, wanted)


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[object]:
    """Records the calls of a function that fetches or reads a folder's weights."""
    calls, function = list[object](), getattr(folders_module, name)

    def count(*arguments: object, **more: object) -> str:
        calls.append(arguments)
        return function(*arguments, **more)

    monkeypatch.setattr(folders_module, name, count)
    return calls


async def got(folders: WeightFolders, source: Source, publisher: int = 1) -> CheckedFolder:
    found = await folders.get(WeightsTarget("v", publisher, source))
    assert found is not None
    return found


async def test_the_workers_of_a_machine_fetch_a_version_once(
    folder: Path, url: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch, "fetch")
    workers = [WeightFolders(scope="job") for _ in range(3)]
    found = [await got(worker, Source(url=url)) for worker in workers]
    assert len(calls) == 1
    assert {one.path for one in found} == {found[0].path}
    for worker in workers[:2]:
        worker.close()
        found[0].check_unchanged()
    workers[2].keep([])
    assert list(place.iterdir()) == []


async def test_other_jobs_and_publishes_fetch_for_themselves(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, "fetch")
    for worker, publisher in ((WeightFolders(scope="job"), 1), (WeightFolders(scope="other"), 1), (WeightFolders(), 1)):
        await got(worker, Source(url=url), publisher)
    await got(WeightFolders(scope="job"), Source(url=url), 2)
    assert len(calls) == 4


async def test_the_workers_of_a_machine_read_a_folder_once(
    folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch, "digest")
    monkeypatch.setattr(folders_module, "TICK_SECONDS", 0.0)
    workers = [WeightFolders(scope="job") for _ in range(3)]
    source = Source(path=str(folder))
    assert {(await got(worker, source)).digest for worker in workers} == {digest(folder)}
    assert len(calls) == 1
    safetensors(folder / "a.safetensors", fill=b"\1")
    assert (await got(workers[1], source, 2)).digest == digest(folder)
    assert len(calls) == 2
    for worker in workers:
        worker.close()
    assert list(place.iterdir()) == []


async def test_files_with_another_digest_are_not_shared(folder: Path, url: str) -> None:
    first, second = WeightFolders(scope="job"), WeightFolders(scope="job")
    old = await got(first, Source(url=url))
    safetensors(folder / "a.safetensors", fill=b"\1")
    needed = digest(folder)
    with pytest.raises(LoadError, match="has other weights"):
        await got(second, Source(url=url, digest=needed))
    assert (await got(second, Source(url=url, digest=needed))).digest == needed
    assert old.path.exists()
    first.close()
    second.close()


async def test_an_overwritten_fetched_file_is_fetched_again(folder: Path, url: str) -> None:
    first, second = WeightFolders(scope="job"), WeightFolders(scope="job")
    found = await got(first, Source(url=url))
    safetensors(found.path / "a.safetensors", fill=b"\1")
    with pytest.raises(LoadError, match="written over"):
        await got(second, Source(url=url))
    first.close()
    assert (await got(second, Source(url=url))).digest == digest(folder)
    second.close()


async def test_files_of_a_dead_worker_are_fetched_again(folder: Path, url: str) -> None:
    path = await left_by_a_dead_worker(url)
    safetensors(folder / "a.safetensors", fill=b"\1")  # a later job of that name publishes again
    worker = WeightFolders(scope="job")
    assert (await got(worker, Source(url=url))).digest == digest(folder)
    worker.close()
    for name, content in (("a.safetensors", None), (temporary.RECORD, b"")):
        assert await left_by_a_dead_worker(url) == path
        (path / name).unlink() if content is None else (path / name).write_bytes(content)
        assert (await got(worker, Source(url=url))).digest == digest(folder)
        worker.close()


@pytest.mark.parametrize("gone", ["all", "one", "changed"])
async def test_files_removed_by_a_cleaner_are_fetched_again(folder: Path, url: str, gone: str) -> None:
    worker = WeightFolders(scope="job")
    found = await got(worker, Source(url=url))
    match gone:
        case "all":
            shutil.rmtree(found.path)
        case "one":
            (found.path / "a.safetensors").unlink()
        case _:
            safetensors(found.path / "a.safetensors", fill=b"\1")
    with pytest.raises(LoadError, match=r"written over|was removed"):
        found.check_unchanged()
    again = await got(worker, Source(url=url, digest=found.digest), 2)
    again.check_unchanged()
    assert again.digest == digest(folder)
    worker.close()


def _no_place() -> str:
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")


def _no_locks(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


def _full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [(tempfile, "gettempdir", _no_place), (fcntl, "flock", _no_locks), (Path, "write_text", _full)],
    ids=["no place", "no locks", "full"],
)
async def test_a_folder_is_read_without_temporary_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, broken: Callable[..., object]
) -> None:
    calls = counted(monkeypatch, "digest")
    monkeypatch.setattr(folders_module, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(owner, name, broken)
    assert (await got(WeightFolders(scope="job"), Source(path=str(folder)))).digest == digest(folder)
    assert len(calls) == 1


async def test_a_file_system_without_locks_is_named_in_the_error(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", _no_locks)
    with pytest.raises(OSError, match=r"cannot be locked here .*; set TMPDIR"):
        await got(WeightFolders(scope="job"), Source(url=url))


async def test_a_slow_reader_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waiting worker's polls advance the clock; between two of them the other worker reads a piece."""
    looked, piece, readers = threading.Semaphore(0), threading.Semaphore(0), list[str]()
    clock, pieces = [0.0], 4

    def look(seconds: float) -> None:
        if clock[0] > 0.5 * pieces * temporary.STALL_SECONDS:
            time.sleep(seconds)
            return
        clock[0] += 0.6 * temporary.STALL_SECONDS
        looked.release()
        piece.acquire()

    def read(path: Path, stopped: Callable[[], bool]) -> str:
        readers.append(threading.current_thread().name)
        shared = next(Path(tempfile.gettempdir()).iterdir())
        for _ in range(pieces):
            looked.acquire(timeout=10)
            before = shared.stat().st_mtime_ns
            for _ in range(100_000):  # a file system's clock has steps of some milliseconds
                if stopped() or shared.stat().st_mtime_ns != before:
                    break
            piece.release()
        piece.release(pieces)
        return digest(path)

    monkeypatch.setattr(temporary, "time", SimpleNamespace(monotonic=lambda: clock[0], sleep=look))
    monkeypatch.setattr(folders_module, "TICK_SECONDS", 0.0)
    monkeypatch.setattr(folders_module, "digest", read)
    workers = [WeightFolders(scope="job") for _ in range(2)]
    found = await asyncio.gather(*(got(worker, Source(path=str(folder))) for worker in workers))
    assert {one.digest for one in found} == {digest(folder)}
    assert len(readers) == 1
    for worker in workers:
        worker.close()


async def test_an_abandoned_fetch_holds_no_lock(url: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = asyncio.Event(), threading.Event()
    loop, shared = asyncio.get_running_loop(), folders_module.shared_folder

    def late(key: str, make: Callable[[Path], dict[str, object]], stopped: Callable[[], bool]) -> SharedFolder:
        found = shared(key, make, stopped)
        loop.call_soon_threadsafe(begun.set)
        go_on.wait()
        return found

    monkeypatch.setattr(folders_module, "shared_folder", late)
    worker = WeightFolders(scope="job")
    fetch = asyncio.create_task(got(worker, Source(url=url)))
    await begun.wait()
    fetch.cancel()
    await asyncio.gather(fetch, return_exceptions=True)
    worker.close()
    go_on.set()
    await loop.shutdown_default_executor()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("another", ["half"], indirect=True)
def test_a_folder_begun_by_a_killed_process_is_made_again(another: subprocess.Popen[bytes], place: Path) -> None:
    remove_left()
    assert len(list(place.iterdir())) == 1
    with pytest.raises(LoadError, match="no longer wanted"):
        shared_folder("key", lambda _: {}, iter([False, False, True]).__next__)
    another.kill()
    held = made()
    assert held.record == {"by": "me"}
    assert not (held.path / "half").exists()
    held.release()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("another", ["whole"], indirect=True)
def test_a_folder_completed_by_a_killed_process_is_used_until_released(
    another: subprocess.Popen[bytes], place: Path
) -> None:
    held = made()
    assert held.record == {"by": "dead"}
    another.kill()
    another.wait()
    remove_left()
    assert list(place.iterdir()) == [held.path]
    held.release()
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("another", ["half"], indirect=True)
def test_a_maker_that_writes_nothing_is_not_waited_for(
    another: subprocess.Popen[bytes], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary, "STALL_SECONDS", 0.2)
    held = made()
    assert held.record == {"by": "me"}
    held.release()
    assert len(list(place.iterdir())) == 1


def test_a_folder_writable_by_others_is_not_used(place: Path) -> None:
    held = made()
    held.path.chmod(0o777)
    other = made(by="another")
    assert other.record == {"by": "another"}
    assert other.path != held.path


def test_a_folder_that_fails_to_be_made_is_removed(place: Path) -> None:
    def fail(folder: Path) -> dict[str, object]:
        (folder / "half").write_text("x")
        raise LoadError("no")

    with pytest.raises(LoadError, match="no"):
        shared_folder("key", fail, wanted)
    assert list(place.iterdir()) == []
