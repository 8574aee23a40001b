"""The workers of one machine share what they fetch and read: once for all, and nothing that a dead one has left."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
    """The machine's temporary files, of this test alone."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return path


@pytest.fixture
def another(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that makes the folder of "key"; it dies within that, or once it has it."""
    command = [sys.executable, "-c", _DIES, request.param]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        if request.param == "whole":
            process.stdout.readline()
        yield process
        process.kill()


def made(key: str = "key", by: str = "me") -> SharedFolder:
    return shared_folder(key, lambda _: {"by": by}, wanted)


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[object]:
    """Calls of what fetches or reads a folder's weights."""
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


async def test_what_has_another_digest_is_taken_up_by_nobody(folder: Path, url: str) -> None:
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


async def test_a_fetched_file_that_was_written_over_is_fetched_anew(folder: Path, url: str) -> None:
    first, second = WeightFolders(scope="job"), WeightFolders(scope="job")
    found = await got(first, Source(url=url))
    safetensors(found.path / "a.safetensors", fill=b"\1")
    with pytest.raises(LoadError, match="written over"):
        await got(second, Source(url=url))
    first.close()
    assert (await got(second, Source(url=url))).digest == digest(folder)
    second.close()


@pytest.mark.parametrize("another", ["half"], indirect=True)
def test_what_a_killed_process_has_begun_is_made_anew(another: subprocess.Popen[bytes], place: Path) -> None:
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
def test_what_a_killed_process_has_made_serves_others_or_goes(another: subprocess.Popen[bytes], place: Path) -> None:
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


def test_a_folder_that_others_may_write_is_left_alone(place: Path) -> None:
    held = made()
    held.path.chmod(0o777)
    other = made(by="another")
    assert other.record == {"by": "another"}
    assert other.path != held.path


def test_a_folder_whose_making_fails_is_gone(place: Path) -> None:
    def fail(folder: Path) -> dict[str, object]:
        (folder / "half").write_text("x")
        raise LoadError("no")

    with pytest.raises(LoadError, match="no"):
        shared_folder("key", fail, wanted)
    assert list(place.iterdir()) == []
