"""A version at a URL is read once: workers pass its pieces on to one another and verify received ones."""

import asyncio
import errno
import http.client
import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from openseer_core.errors import LoadError, StoreUnavailableError
from openseer_core.json_model import INT53_MAX
from openseer_core.manifest.job import Scripted
from openseer_core.numbers import EPOCHS_BEGIN, base_of, issue, next_epoch
from openseer_core.weights.digest import PIECE_BYTES
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Source
from openseer_core.worker.heartbeat import WorkerStatus
from openseer_process.pod_http import PodHttp
from openseer_store.connect import open_store
from openseer_store.embedded import EmbeddedRedis
from openseer_store.port import Store
from openseer_worker.loop import Worker
from openseer_worker.scripted.engine import ScriptedEngine
from openseer_worker.settings import WorkerSettings
from openseer_worker.weights import fetching as fetching_module
from openseer_worker.weights import passing as passing_module
from openseer_worker.weights import peers as peers_module
from openseer_worker.weights.hashing import ArrivingFile, digest
from openseer_worker.weights.passing import Passing, own_address
from tests.worker.fleet import job
from tests.worker.weights.passers import BLOCK, CountingSource, Passers, WrongPasser, until, write_version

LARGE, SMALL = PIECE_BYTES + 2 * BLOCK, 100
NEVER_SECONDS = 600.0
YEAR = 365 * 86400
"""Seconds. A store that restarts gives much larger numbers than one that begins."""


@pytest.fixture(autouse=True)
def _limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises all limits, except in tests of a limit."""
    monkeypatch.setattr(passing_module, "HEAR_SECONDS", 0.02)
    for name in ("FIRST_SECONDS", "PIECE_SECONDS", "READ_SECONDS"):
        monkeypatch.setattr(peers_module, name, NEVER_SECONDS)
    monkeypatch.setattr(fetching_module, "READ_TIMEOUT_SECONDS", NEVER_SECONDS)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[CountingSource]:
    """Two files: two pieces, and one."""
    folder = tmp_path / "source"
    folder.mkdir()
    write_version(folder, LARGE, SMALL)
    source = CountingSource(folder)
    yield source
    source.go.set()
    source.close()


@pytest.fixture
def fleet() -> Iterator[Passers]:
    fleet = Passers()
    yield fleet
    fleet.close()


@pytest.fixture
def wrong(request: pytest.FixtureRequest, source: CountingSource, fleet: Passers) -> Iterator[WrongPasser]:
    passer = WrongPasser(request.param, source.folder)
    fleet.others.append(passer.status())
    yield passer
    passer.close()


def ask(address: str, path: str) -> http.client.HTTPResponse:
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    connection.request("GET", f"{parts.path}{path}")
    answer = connection.getresponse()
    answer.read()
    return answer


async def test_one_of_four_concurrent_workers_reads_the_source(source: CountingSource, fleet: Passers) -> None:
    nodes = [fleet.add(f"worker-{number}") for number in range(4)]
    source.held_at = PIECE_BYTES + BLOCK
    fetches = [asyncio.create_task(node.get(Source(url=source.url))) for node in nodes]
    first = "/1/model-0.safetensors?piece=0&to=worker-9"

    def has_first(address: str) -> bool:
        return ask(address, first).status == 206

    for node in nodes:  # each has the first piece before the source has sent the second
        await until(lambda node=node: node.report.partial == (1,))
        while not await asyncio.to_thread(has_first, node.report.address):
            pass
    source.go.set()
    found = await asyncio.gather(*fetches)
    assert {folder.digest for folder in found} == {digest(source.folder)}
    assert len({folder.path for folder in found}) == 4
    assert source.sent == source.sizes()
    assert [node.report.whole for node in nodes] == [(1,)] * 4


@pytest.mark.parametrize("transaction", [1, issue(1, base_of(next_epoch(0, EPOCHS_BEGIN + 2 * YEAR))), INT53_MAX])
async def test_a_later_worker_gets_the_version_from_others_without_the_source(
    transaction: int, source: CountingSource, fleet: Passers
) -> None:
    first = await fleet.add("worker-1").get(Source(url=source.url), transaction)
    source.close()
    second = await fleet.add("worker-0").get(Source(url=source.url), transaction)
    assert second.digest == first.digest


async def test_one_file_without_an_index_is_passed_on(source: CountingSource, fleet: Passers) -> None:
    for path in source.folder.iterdir():
        path.unlink()
    write_version(source.folder, LARGE)
    (source.folder / "model-0.safetensors").rename(source.folder / "model.safetensors")
    (source.folder / "model.safetensors.index.json").unlink()
    for name in ("worker-0", "worker-1"):
        assert (await fleet.add(name).get(Source(url=source.url))).digest == digest(source.folder)
    assert source.sent == source.sizes()
    assert len(source.asked) == 2


async def test_a_file_that_ends_with_a_whole_piece_is_passed_on(source: CountingSource, fleet: Passers) -> None:
    path = source.folder / "model-1.safetensors"
    write_version(source.folder, SMALL, PIECE_BYTES)
    write_version(source.folder, SMALL, 2 * PIECE_BYTES - path.stat().st_size)  # its header is as long as before
    assert path.stat().st_size == PIECE_BYTES
    for name in ("worker-0", "worker-1"):
        assert (await fleet.add(name).get(Source(url=source.url))).digest == digest(source.folder)
    assert source.sent == source.sizes()


@pytest.mark.parametrize("wrong", ["dies", "lies", "misses", "changes"], indirect=True)
async def test_after_a_faulty_worker_the_source_is_read(
    wrong: WrongPasser, source: CountingSource, fleet: Passers, caplog: pytest.LogCaptureFixture
) -> None:
    found = await fleet.add("worker-1").get(Source(url=source.url))
    assert found.digest == digest(source.folder)
    assert source.sent["model-0.safetensors"] == source.sizes()["model-0.safetensors"]
    assert "secret" not in caplog.text
    asked = len([path for path in wrong.asked if "model-1" not in path])
    # The index, a piece, and half of one; another reading is started again, at most four times.
    assert asked == {"dies": 3, "changes": 10}.get(wrong.how, 1)
    assert ("worker-0 is not used any longer" in caplog.text) == (wrong.how != "changes")


@pytest.mark.parametrize(
    ("wrong", "limit"), [("hangs", "READ_SECONDS"), ("waits", "PIECE_SECONDS")], indirect=["wrong"]
)
async def test_a_worker_slower_than_a_limit_is_not_used_again(
    wrong: WrongPasser, limit: str, source: CountingSource, fleet: Passers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, limit, 0.2)
    found = await fleet.add("worker-1").get(Source(url=source.url))
    assert found.digest == digest(source.folder)
    assert all("index.json" in path for path in wrong.asked)
    assert source.sent == source.sizes()


async def test_a_full_disk_does_not_cause_a_read_of_the_source(
    source: CountingSource, fleet: Passers, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.add("worker-0").get(Source(url=source.url))

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(ArrivingFile, "add_piece", fail)
    with pytest.raises(OSError, match=r"cannot be kept in .*: .*No space left on device"):
        await fleet.add("worker-1").get(Source(url=source.url))
    assert source.sent == source.sizes()


async def test_an_unreachable_worker_is_replaced_by_another(source: CountingSource, fleet: Passers) -> None:
    await fleet.add("worker-2").get(Source(url=source.url))
    gone = WrongPasser("dies", source.folder)
    fleet.others.append(gone.status())
    gone.close()
    found = await fleet.add("worker-1").get(Source(url=source.url))
    assert found.digest == digest(source.folder)
    assert source.sent == source.sizes()


@pytest.mark.parametrize("wrong", ["dies"], indirect=True)
async def test_no_file_mixes_two_readings_of_the_source(
    wrong: WrongPasser, source: CountingSource, fleet: Passers, tmp_path: Path
) -> None:
    source.folder = tmp_path / "changed"
    source.folder.mkdir()
    write_version(source.folder, LARGE, SMALL, salt="changed")
    found = await fleet.add("worker-1").get(Source(url=source.url))
    assert len(wrong.asked) == 3
    assert found.digest == digest(source.folder)


async def test_pieces_of_a_changed_version_are_refused(
    source: CountingSource, fleet: Passers, caplog: pytest.LogCaptureFixture
) -> None:
    old = await fleet.add("worker-0").get(Source(url=source.url))
    write_version(source.folder, LARGE, SMALL, salt="changed")
    new = digest(source.folder)
    with caplog.at_level(logging.WARNING):
        found = await fleet.add("worker-1").get(Source(url=source.url, digest=new))
    assert found.digest == new
    assert f"with pieces of worker-0: found digest {old.digest}, needed: {new}" in caplog.text
    unknown = await fleet.add("worker-2").get(Source(url=source.url))
    # All pieces are of one reading; the transaction compares the workers' digests.
    assert unknown.digest in (old.digest, new)
    source.folder.joinpath("model-1.safetensors").unlink()
    with pytest.raises(LoadError, match="404"):
        await fleet.add("worker-3").get(Source(url=source.url, digest="0" * 64))


@pytest.mark.parametrize("wrong", ["waits"], indirect=True)
async def test_a_cancelled_fetch_ends_at_once(wrong: WrongPasser, source: CountingSource, fleet: Passers) -> None:
    node = fleet.add("worker-1")
    task = asyncio.create_task(node.get(Source(url=source.url)))
    await until(lambda: bool(wrong.asked))
    assert node.report.partial == (1,)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: node.report.partial == ())
    assert source.asked == []


async def test_a_worker_that_waits_too_long_for_another_reads_the_source(
    source: CountingSource, fleet: Passers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers_module, "FIRST_SECONDS", 0.2)
    fleet.add("worker-0")  # does not fetch it
    assert (await fleet.add("worker-1").get(Source(url=source.url))).digest == digest(source.folder)


async def test_a_store_that_does_not_answer_does_not_stop_a_fetch(
    source: CountingSource, fleet: Passers, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail() -> list[WorkerStatus]:
        raise StoreUnavailableError("no answer")

    monkeypatch.setattr(peers_module, "FIRST_SECONDS", 0.2)
    node = fleet.add("worker-1")
    node.passing.join(node.name, "http://127.0.0.1:9", fail)
    assert (await node.get(Source(url=source.url))).digest == digest(source.folder)


async def test_only_requests_with_the_secret_are_answered(source: CountingSource, fleet: Passers) -> None:
    node = fleet.add("worker-1")
    await node.get(Source(url=source.url))
    address, name = node.report.address, "/1/model-1.safetensors?piece=0"
    assert ask(address, name).status == 206
    assert ask(address, "/1/model-1.safetensors?piece=1").status == 416
    assert ask(address, "/1/adapter_model.safetensors?piece=0").status == 404
    stem = address.rpartition("/")[0]
    wrong = [f"{stem}/guess", stem, f"{address}x", f"{address}/2", f"{address}/1/.."]
    assert {ask(other, name).status for other in wrong} == {404}
    for path in ("/1/model-1.safetensors", "/1/model-1.safetensors?piece=-1", "/x/model-1.safetensors?piece=0"):
        assert ask(address, path).status == 404
    assert address not in repr(node.status())


async def test_an_incomplete_version_is_passed_only_to_later_workers(source: CountingSource, fleet: Passers) -> None:
    source.held_at = PIECE_BYTES + BLOCK
    node = fleet.add("worker-1")
    task = asyncio.create_task(node.get(Source(url=source.url)))
    name = "/1/model-0.safetensors?piece=0&to="
    await until(lambda: node.report.partial == (1,))
    while (await asyncio.to_thread(ask, node.report.address, f"{name}worker-2")).status != 206:
        pass
    assert (await asyncio.to_thread(ask, node.report.address, f"{name}worker-0")).status == 404
    source.go.set()
    await task
    assert (await asyncio.to_thread(ask, node.report.address, f"{name}worker-0")).status == 206


async def test_a_released_version_is_not_passed_on(source: CountingSource, fleet: Passers) -> None:
    node = fleet.add("worker-0")
    await node.get(Source(url=source.url))
    node.folders.keep([])
    assert (node.report.whole, node.report.partial) == ((), ())
    assert ask(node.report.address, "/1/model-1.safetensors?piece=0").status == 404


@pytest.mark.redis
async def test_workers_find_each_other_by_heartbeats_in_the_store(source: CountingSource, tmp_path: Path) -> None:
    async with EmbeddedRedis(tmp_path / "redis") as url:
        store = await open_store(url, "loop")
        spec = FleetSpec(revision=1, version="v1", publisher=1, source=Source(url=source.url))
        assert await store.swap_fleet_spec(spec)
        workers: list[Worker] = []
        tasks: list[asyncio.Task[None]] = []
        with ExitStack() as servers:
            for index in range(2):
                # Another URL of the store stands for another machine: the two share no folder.
                settings, passing = WorkerSettings(job(), f"{url}#{index}", index), Passing()
                http_server = PodHttp(0, ready=lambda: True, alive=lambda: True, others=passing.answer)
                port = servers.enter_context(http_server).port
                passing.join(settings.worker.name, own_address(url, port), store.workers)
                workers.append(Worker(settings, store, ScriptedEngine(Scripted()), passing=passing))
                tasks.append(asyncio.create_task(workers[-1].run()))
                while not await has_loaded(store, settings.worker.name):
                    await asyncio.sleep(0.05)
                if not index:
                    source.close()
            for worker in workers:
                worker.drain()
            await asyncio.gather(*tasks)
        await store.close()
    assert source.sent == source.sizes()


async def has_loaded(store: Store, name: str) -> bool:
    reports = {status.name: status.heartbeat.weights for status in await store.workers()}
    report = reports.get(name)
    return report is not None and bool(report.loaded)


def test_a_workers_address_is_that_of_its_connection_to_the_store() -> None:
    assert own_address("redis://:password@127.0.0.1:6379/0", 8080) == "http://127.0.0.1:8080"
    assert own_address("unix:///tmp/store.sock", 8080) in ("http://127.0.0.1:8080", "http://[::1]:8080")
    with pytest.raises(socket.gaierror):
        own_address("redis://no-such-host.invalid", 8080)
