"""The async client has the methods and the behaviour of the sync client."""

import asyncio
import inspect
from pathlib import Path

import pytest

from openseer_client import AsyncBatchHandle, AsyncClient, BatchHandle, Checkpoint, Client, Group, UnavailableError
from openseer_client.http.retry import Limits
from tests.client.remote import QUICK, URL, Remote, answers, end, lost_answer, refused_connection, result, torn_answer

PAIRS = [(Client, AsyncClient), (BatchHandle, AsyncBatchHandle)]


def methods(kind: type) -> dict[str, list[tuple[str, str, object]]]:
    """Public methods with their parameters: name, kind, default."""
    found: dict[str, list[tuple[str, str, object]]] = {}
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_") or name == "__init__":
            parameters = inspect.signature(method).parameters.values()
            found[name] = [(parameter.name, parameter.kind.name, parameter.default) for parameter in parameters]
    return found


@pytest.mark.parametrize(("sync", "other"), PAIRS)
def test_both_clients_have_the_same_methods_parameters_and_docstrings(sync: type, other: type) -> None:
    assert methods(sync) == methods(other)
    for name in methods(sync):
        assert inspect.getdoc(getattr(sync, name)) == inspect.getdoc(getattr(other, name))


async def test_the_async_client_survives_the_same_faults_as_the_sync_one(tmp_path: Path) -> None:
    remote = Remote("secret")
    remote.faults.extend([refused_connection, lost_answer, answers(503)])
    async with AsyncClient(URL, token="secret", limits=QUICK, transport=remote.transport()) as client:
        handle = await client.open_batch(key="run/1")
        assert (await handle.submit([Group(id="g", prompt="x")])).accepted == 1
        remote.batches[1].add(result("g", 0), result("g", 1), end("g", 2))
        await handle.seal()
        remote.batches[1].complete = True
        remote.faults.append(torn_answer)
        assert [item.cursor async for item in handle.results(after=0)] == [1, 2, 3]
        checkpoint = Checkpoint(tmp_path / "state.json")
        (group,) = [group async for group in handle.groups(checkpoint=checkpoint, acknowledge=True)]
        assert group.whole
        assert (await handle.status()).state == "complete"
    assert remote.batches[1].acknowledged == 3
    assert len(remote.batches) == 1


async def test_the_async_client_gives_up_as_the_sync_one_does() -> None:
    limits = Limits(unreachable=0.02, first_delay=0.001, longest_delay=0.005)
    async with AsyncClient("http://127.0.0.1:9", limits=limits) as client:
        with pytest.raises(UnavailableError, match="GET /v1/job"):
            await client.job()


async def test_readers_of_several_batches_share_one_client() -> None:
    remote = Remote()
    async with AsyncClient(URL, limits=QUICK, transport=remote.transport()) as client:
        handles = [await client.open_batch(key=str(number)) for number in range(3)]
        for number, handle in enumerate(handles):
            remote.batches[handle.id].add(*(result(f"g{index}") for index in range(number + 1)))
            remote.batches[handle.id].complete = True

        async def read(handle: AsyncBatchHandle) -> int:
            return len([item async for item in handle.results()])

        assert await asyncio.gather(*map(read, handles)) == [1, 2, 3]
