"""A version is identified by its content: read and fetched files have a digest, and other content is refused."""

import asyncio
import hashlib
import json
import os
import socket
import struct
from pathlib import Path

import pytest

from openseer_core.errors import LoadError
from openseer_core.manifest.generation import Lora, Model
from openseer_core.manifest.job import Scripted
from openseer_core.weights.adapters import CONFIG, TENSORS
from openseer_core.weights.digest import PIECE_BYTES, FileDigest, version_digest
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import AdapterSpec, Publish, Source
from openseer_core.weights.transaction import begin, cancel
from openseer_core.weights.worker_step import WeightsTarget
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.weights.adapter_files import AdapterCheck
from openseer_worker.weights.fetching import fetch
from openseer_worker.weights.files import INDEX, SINGLE, check_files
from openseer_worker.weights.folders import CheckedFolder, WeightFolders
from openseer_worker.weights.hashing import digest
from openseer_worker.weights.served import ServedWeights
from tests.worker.weights.adapters import write_adapter
from tests.worker.weights.made import safetensors

ADAPTED = Model(path="org/model", lora=Lora(max_rank=4))


def local(folder: Path, publisher: int = 1, digest: str | None = None) -> WeightsTarget:
    return WeightsTarget("v", publisher, Source(path=str(folder), digest=digest))


def adapter(folder: Path, publisher: int = 1) -> WeightsTarget:
    return WeightsTarget("v", publisher, Source(path=str(folder)), adapter=True)


def remote(url: str, publisher: int = 1, digest: str | None = None) -> WeightsTarget:
    return WeightsTarget("v", publisher, Source(url=url, digest=digest))


async def got(folders: WeightFolders, target: WeightsTarget) -> CheckedFolder:
    found = await folders.get(target)
    assert found is not None
    return found


def age(folder: Path) -> None:
    """Sets the files' times to long ago."""
    for path in folder.iterdir():
        os.utime(path, (1.5, 1.5))


def test_a_digest_is_a_tree_over_pieces_names_and_sizes(tmp_path: Path) -> None:
    content = bytes(PIECE_BYTES) + b"x" * 5
    (tmp_path / "a.safetensors").write_bytes(content)
    (tmp_path / "b.safetensors").write_bytes(b"")
    pieces = tuple(hashlib.sha256(piece).digest() for piece in (content[:PIECE_BYTES], content[PIECE_BYTES:]))
    files = [FileDigest("a.safetensors", len(content), pieces), FileDigest("b.safetensors", 0, ())]
    assert digest(tmp_path) == version_digest(files) == version_digest(files[::-1])
    others = [
        [files[0]],
        [FileDigest("c.safetensors", len(content), pieces), files[1]],
        [FileDigest("a.safetensors", 5, pieces), files[1]],
    ]
    assert len({version_digest(files), *map(version_digest, others)}) == 4


def test_only_safetensors_files_count(folder: Path) -> None:
    before = digest(folder)
    (folder / "README.md").write_text("more")
    safetensors(folder / "unnamed.safetensors")
    assert digest(folder) == before
    safetensors(folder / "b.safetensors", fill=b"\1")
    assert digest(folder) != before


async def test_the_parent_of_weights_is_refused_before_anything_is_hashed(folder: Path) -> None:
    os.mkfifo(folder.parent / "never-ends")
    with pytest.raises(LoadError, match="has no safetensors"):
        await WeightFolders().get(local(folder.parent))


async def test_a_folder_is_fetched_once_and_removed_when_it_is_old(folder: Path, url: str) -> None:
    folders, target = WeightFolders(), remote(url)
    fetched = await got(folders, target)
    assert fetched.digest == digest(fetched.path) == digest(folder)
    folders.keep([target])
    known = remote("http://127.0.0.1:9", 7, fetched.digest)
    assert fetched == await got(folders, target) == await got(folders, known)
    folders.keep([WeightsTarget("initial", 0)])
    assert not fetched.path.exists()
    again = await got(folders, target)
    folders.close()
    assert not again.path.exists()


async def test_other_weights_under_the_same_url_are_fetched_again(folder: Path, url: str) -> None:
    folders = WeightFolders()
    old = await got(folders, remote(url, 2))
    safetensors(folder / "a.safetensors", fill=b"\1")
    new = await got(folders, remote(url, 3))
    assert old.digest != new.digest == digest(folder) == digest(new.path)
    folders.keep([])
    with pytest.raises(LoadError, match=f"found digest {new.digest}, needed: {old.digest}"):
        await folders.get(remote(url, 2, old.digest))
    folders.close()


@pytest.mark.parametrize("settled", [True, False])
async def test_a_folder_written_over_in_place_is_refused(folder: Path, settled: bool) -> None:
    folders = WeightFolders()
    if settled:
        age(folder)
    old = await got(folders, local(folder))
    assert await got(folders, local(folder, 2, old.digest)) == old
    safetensors(folder / "a.safetensors", fill=b"\1")
    with pytest.raises(LoadError, match=f"has other weights: found digest {digest(folder)}, needed: {old.digest}"):
        await folders.get(local(folder, 2, old.digest))
    with pytest.raises(LoadError, match="was written over while it was read"):
        old.check_unchanged()
    assert (await got(folders, local(folder, 3))).digest == digest(folder)


async def test_the_jobs_own_model_has_no_folder(tmp_path: Path) -> None:
    folders = WeightFolders()
    assert await folders.get(WeightsTarget("initial", 0)) is None
    with pytest.raises(LoadError, match="there is no folder"):
        await folders.get(local(tmp_path / "nowhere"))
    folders.close()


def test_without_an_index_the_one_file_is_fetched(folder: Path, url: str, tmp_path: Path) -> None:
    (folder / INDEX).unlink()
    with pytest.raises(LoadError, match="404"):
        fetch(url, tmp_path)
    for path in folder.iterdir():
        path.unlink()
    safetensors(folder / SINGLE)
    assert fetch(url, tmp_path) == digest(folder)
    assert check_files(tmp_path) > 0


def test_an_unreachable_server_and_a_cancelled_fetch_are_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"127\.0\.0\.1:9"):
        fetch("http://127.0.0.1:9", tmp_path)
    with pytest.raises(LoadError, match="no longer wanted"):
        fetch(url, tmp_path, lambda: True)


async def test_a_hanging_fetch_of_a_cancelled_publish_does_not_delay_the_next(folder: Path) -> None:
    weights = ServedWeights(ScriptedEngine(Scripted()), "job", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        hanging = Publish(version="v1", source=Source(url=f"http://127.0.0.1:{mute.getsockname()[1]}"))
        fleet_spec = begin(FleetSpec(), hanging, ("a",), 0.0)
        weights.follow(fleet_spec)
        weights.advance(0)
        connection, _ = await asyncio.to_thread(mute.accept)
        fleet_spec = begin(cancel(fleet_spec, 1.0), Publish(version="v2", source=Source(path=str(folder))), ("a",), 2.0)
        weights.follow(fleet_spec)
        while weights.report.phase != "prefetch":
            weights.advance(0)
            await asyncio.sleep(0.01)
        connection.close()
    assert (weights.report.transaction, weights.report.digest) == (2, digest(folder))
    await weights.close()


async def test_a_hanging_fetch_of_an_adapter_does_not_delay_weights(folder: Path) -> None:
    def loading(fleet_spec: FleetSpec) -> FleetSpec:
        assert fleet_spec.transaction is not None
        return fleet_spec.changed(transaction=fleet_spec.transaction.model_copy(update={"phase": "load"}))

    weights = ServedWeights(ScriptedEngine(Scripted()), "job", lambda: None)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        source = Source(url=f"http://127.0.0.1:{mute.getsockname()[1]}")
        hanging = Publish(version="a1", source=source, prefetch=False, adapter=AdapterSpec(name="a"))
        fleet_spec = loading(begin(FleetSpec(), hanging, ("a",), 0.0, Lora()))
        weights.follow(fleet_spec)
        weights.advance(0)
        connection, _ = await asyncio.to_thread(mute.accept)
        good = Publish(version="v2", source=Source(path=str(folder)), prefetch=False)
        weights.follow(loading(begin(cancel(fleet_spec, 1.0), good, ("a",), 2.0)))
        async with asyncio.timeout(120):
            while weights.version != "v2":
                weights.advance(0)
                await asyncio.sleep(0.01)
        connection.close()
    await weights.close()


HOSTILE = {
    "deep": b"[" * 200_000,
    "endless": b'{"t": {"dtype": "F32", "shape": [1], "data_offsets": [0, Infinity]}}',
    "twice": b'{"t": {"dtype": "F32", "shape": [1, 1e999], "data_offsets": [0, 4]}}',
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_an_invalid_header_is_refused_without_ending_the_worker(tmp_path: Path, name: str) -> None:
    for file in (SINGLE, TENSORS):
        (tmp_path / file).write_bytes(struct.pack("<Q", len(HOSTILE[name])) + HOSTILE[name] + bytes(4))
    (tmp_path / CONFIG).write_bytes(HOSTILE[name])
    with pytest.raises(LoadError):
        await WeightFolders().get(local(tmp_path))
    (tmp_path / SINGLE).unlink()
    (tmp_path / INDEX).write_bytes(HOSTILE[name])
    with pytest.raises(LoadError):
        await WeightFolders().get(local(tmp_path))
    (tmp_path / INDEX).unlink()
    with pytest.raises(LoadError):
        await WeightFolders((), AdapterCheck(ADAPTED)).get(adapter(tmp_path))


async def test_a_path_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    for name in (TENSORS, CONFIG):
        (folder / name).unlink()
        os.mkfifo(folder / name)
        with pytest.raises(LoadError):
            await asyncio.wait_for(WeightFolders((), AdapterCheck(ADAPTED)).get(adapter(folder)), 120)
    os.mkfifo(tmp_path / SINGLE)
    with pytest.raises(LoadError):
        await asyncio.wait_for(WeightFolders().get(local(tmp_path)), 120)


async def test_a_folder_is_checked_again_when_used_as_an_adapter(tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "a")
    age(folder)
    folders = WeightFolders((), AdapterCheck(ADAPTED))
    await folders.get(local(folder))
    (tmp_path / "a" / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | {"use_dora": True}))
    age(folder)
    await folders.get(local(folder))
    with pytest.raises(LoadError, match="use_dora"):
        await folders.get(adapter(folder))
