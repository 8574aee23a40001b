"""The gateway reads a job's routed experts from its pod; without an answer it returns no result without its rows."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

import pytest

from openseer_api.cluster import rows as asking
from openseer_api.cluster import rows_memory
from openseer_api.cluster.rows import RowsOfPod
from openseer_api.cluster.rows_memory import ALL_BYTES, JOB_BYTES, PAUSE_SECONDS, RowsMemory
from openseer_api.http.problems import fault_of
from openseer_api.job.rows import RowsUnavailable
from openseer_core.errors import StoreForbiddenError
from openseer_core.routed_rows import RowShape, Stretch
from openseer_driver.rows_pod import RowsGiver, give_rows
from openseer_process.pod_http import OtherAnswer, PodHttp
from openseer_process.store_hosts import StoreHosts
from openseer_store.embedded import EmbeddedRedis
from openseer_store.routed import removal
from openseer_store.routed.asking import MOST_BYTES, MOST_FILES, pack_answer
from openseer_store.routed.folders import STALE_SECONDS
from openseer_store.routed.places import group_folder
from openseer_store.routed.records import pack_record
from tests.api.served import serving_job
from tests.store.routed.test_assembly import GROUP, chunk, lease, positions, put, put_prompt, result, rows

URL = "redis://:word@served-redis.default.svc:6379/0"


class Pod:
    """The rows' pod of a job, on this machine; `answers`: played answers in place of its own."""

    def __init__(self, folder: Path) -> None:
        self._giver = RowsGiver(folder, URL)
        self.answers: list[OtherAnswer | None] = []
        self.asked: list[str] = []

    def answer(self, path: str) -> OtherAnswer | None:
        self.asked.append(path)
        return self.answers.pop(0) if self.answers else self._giver.answer(path)


async def until_free(memory: RowsMemory) -> None:
    """Waits until no rows are held, also by the thread that read them."""
    async with asyncio.timeout(60):
        while memory.bytes:
            await asyncio.sleep(0.01)


async def here(host: str, _port: int) -> tuple[str, ...]:
    assert host == "served-rows.default.svc"
    return ("127.0.0.1",)


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


@pytest.fixture
def memory() -> RowsMemory:
    return RowsMemory(ALL_BYTES)


@pytest.fixture
async def source(pod: Pod, memory: RowsMemory) -> AsyncIterator[RowsOfPod]:
    with PodHttp(0, ready=lambda: True, alive=lambda: True, others=pod.answer) as http:
        found = RowsOfPod(serving_job(), URL, here, memory, http.port)
        yield found
        await found.close()


async def test_the_pod_returns_the_same_rows_as_the_folder(tmp_path: Path, source: RowsOfPod) -> None:
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 2)))
    found = await source.find(result(4, chunk(0, 2, 1), chunk(2, 4, 2)))
    assert (positions(found)[:5], found.missing) == ([0, 1, 2, 3, 4], ((5, 7),))


async def test_a_result_of_many_leases_needs_several_requests(tmp_path: Path, pod: Pod, source: RowsOfPod) -> None:
    put_prompt(tmp_path)
    leases = MOST_FILES + 6
    for start in range(leases):
        put(tmp_path, lease(start, start), (3 + start, rows(3 + start, 1)))
    found = await source.find(result(leases, *(chunk(start, start + 1, start) for start in range(leases))))
    assert (found.gaps, len(pod.asked)) == (0, 2)


async def test_a_failed_answer_is_requested_again(
    tmp_path: Path, pod: Pod, source: RowsOfPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSE_SECONDS", 0.01)
    put_prompt(tmp_path)
    put(tmp_path, lease(0, 1), (3, rows(3, 1)))
    pod.answers = [OtherAnswer(HTTPStatus.SERVICE_UNAVAILABLE), None, OtherAnswer(HTTPStatus.OK, b"torn")]
    assert (await source.find(result(2, chunk(0, 2, 1)))).gaps == 1
    assert len(pod.asked) == 4


async def test_failed_answers_take_no_memory_from_later_ones(
    tmp_path: Path, pod: Pod, memory: RowsMemory, source: RowsOfPod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(rows_memory, "WAIT_SECONDS", 0.0)
    put_prompt(tmp_path)
    await memory.take(ALL_BYTES - 1000)
    pod.answers = [OtherAnswer(HTTPStatus.OK, bytes(600))] * 3
    found = await source.find(result(4, chunk(0, 4, 1)))
    assert (found.gaps, memory.bytes) == (4, ALL_BYTES - 1000 + len(found.rows))


async def test_a_missing_pod_is_reported_without_its_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WAIT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    source = RowsOfPod(serving_job(), URL, here, RowsMemory(ALL_BYTES), port)
    with pytest.raises(RowsUnavailable, match=r"served-rows\.default\.svc, which has the routed .*: Client") as told:
        await source.find(result(2, chunk(0, 2, 1)))
    assert "rows/" not in str(told.value)
    await source.close()


async def test_rows_beyond_the_answer_limit_are_gaps(pod: Pod, source: RowsOfPod, memory: RowsMemory) -> None:
    wide, length = RowShape(1000, 1000, 1), 2 * MOST_BYTES // 10**6
    record = pack_record(lease(0, 1), wide, Stretch(0, bytes(wide.row_bytes)))
    pod.answers = [OtherAnswer(HTTPStatus.OK, pack_answer([b"", record]))]
    found = await source.find(result(length, chunk(0, length, 1)))
    assert (found.rows, found.gaps, memory.bytes) == (b"", found.count, 0)


async def test_rows_count_as_memory_until_their_reader_drops_them(
    tmp_path: Path, source: RowsOfPod, memory: RowsMemory
) -> None:
    put_prompt(tmp_path)
    found = await source.find(result(4, chunk(0, 4, 1)))
    assert memory.bytes == len(found.rows) == 14
    del found
    await until_free(memory)


async def test_rows_without_memory_wait_and_are_then_reported_missing(
    tmp_path: Path, source: RowsOfPod, memory: RowsMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_prompt(tmp_path)
    await memory.take(ALL_BYTES)
    waiting = asyncio.create_task(source.find(result(4, chunk(0, 4, 1))))
    await asyncio.sleep(2 * PAUSE_SECONDS)
    assert not waiting.done()
    memory.give(ALL_BYTES)
    assert (await waiting).gaps == 4
    del waiting
    await until_free(memory)
    await memory.take(ALL_BYTES)
    monkeypatch.setattr(rows_memory, "WAIT_SECONDS", 0.0)
    with pytest.raises(RowsUnavailable, match=r"no .* bytes left") as told:
        await source.find(result(4, chunk(0, 4, 1)))
    assert fault_of(told.value).status == 503
    assert "Retry-After" in fault_of(told.value).headers
    assert memory.bytes == ALL_BYTES


async def test_one_job_leaves_memory_for_the_rows_of_others() -> None:
    everyone = RowsMemory(ALL_BYTES)
    one, other = RowsMemory(JOB_BYTES, everyone), RowsMemory(JOB_BYTES, everyone)
    await one.take(JOB_BYTES)
    await other.take(ALL_BYTES - JOB_BYTES)
    assert everyone.bytes == ALL_BYTES
    with pytest.raises(RowsUnavailable):
        await one.take(JOB_BYTES + 1)


async def test_the_pod_is_dialled_only_at_permitted_addresses() -> None:
    async def elsewhere(name: str, _port: int) -> tuple[str, list[str]]:
        return name, ["169.254.169.254"]

    source = RowsOfPod(serving_job(), URL, StoreHosts(resolve=elsewhere).dial("default"), RowsMemory(ALL_BYTES), 1)
    with pytest.raises(StoreForbiddenError):
        await source.find(result(2, chunk(0, 2, 1)))
    await source.close()


async def test_the_pod_serves_rows_and_removes_acknowledged_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "LOOK_SECONDS", 0.05)
    put(tmp_path / "rows", "x", (0, rows(0, 1)))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = int(taken.getsockname()[1])
    async with EmbeddedRedis(tmp_path / "redis") as url:
        giving = asyncio.create_task(give_rows(serving_job(), tmp_path / "rows", url, port))
        source = RowsOfPod(serving_job(), url, here, RowsMemory(ALL_BYTES), port)
        put(tmp_path / "rows", lease(0, 1), (3, rows(3, 1)))
        assert (await source.find(result(1, chunk(0, 1, 1)))).missing == ((0, 3),)
        # A batch that the store does not have may have been carried: its rows are removed once they are stale.
        past = time.time() - STALE_SECONDS - 60
        os.utime(group_folder(tmp_path / "rows", GROUP), (past, past))
        async with asyncio.timeout(60):
            while group_folder(tmp_path / "rows", GROUP).exists():
                await asyncio.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)
        await giving
        await source.close()
