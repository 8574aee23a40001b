"""The client against the real API, with workers that play responses."""

import asyncio
import signal
import sys
from collections import Counter
from itertools import count
from pathlib import Path

import pytest

from openseer_api.job.context import UploadLimits as ApiLimits
from openseer_client import (
    Acquire,
    AdapterSpec,
    AsyncClient,
    BatchSpec,
    Canary,
    Checkpoint,
    Client,
    ConflictError,
    FinishedGroup,
    Group,
    Limits,
    NotFoundError,
    Publish,
    Release,
    ResultItem,
    Sampling,
    Source,
    Target,
    UnauthorizedError,
    WeightsError,
)
from openseer_client.verl import Router
from openseer_core.errors import InputError
from openseer_store.memory import MemoryStore
from tests.api.adapting import adapting, ready
from tests.api.served import TOKEN, Served, served, serving_job
from tests.worker.weights.adapters import write_adapter
from tests.worker.weights.made import write_weights

QUICK = Limits(unreachable=120.0, busy=120.0, first_delay=0.01, longest_delay=0.2)


def groups(number: int, size: int | None = None) -> list[Group]:
    return [Group(id=f"g{index}", prompt_token_ids=[1, index + 2], n=size) for index in range(number)]


def connected(server: Served) -> AsyncClient:
    return AsyncClient(server.url, token=TOKEN, limits=QUICK)


async def test_a_sync_client_runs_a_batch_from_open_to_acknowledgement() -> None:
    def train(url: str) -> tuple[list[FinishedGroup], dict[str, float], str]:
        with Client(url, token=TOKEN) as client:
            batch = client.open_batch(BatchSpec(group_size=3, metadata={"step": 1}))
            batch.submit(groups(40))
            batch.seal()
            found = list(batch.groups(acknowledge=True))
            assert client.job().weights_version == "initial"
            assert len(client.workers()) == 2
            assert client.autoscaling().queue_depth == 0
            return found, batch.metrics(), batch.status().state

    async with served() as server:
        found, metrics, state = await asyncio.to_thread(train, server.url)
    assert sorted(group.name for group in found) == sorted(f"g{number}" for number in range(40))
    assert all(group.whole and len(group.results) == 3 for group in found)
    assert metrics["rollout/groups_whole"] == 40
    assert state == "acknowledged"


@pytest.mark.slow
async def test_a_reader_outlives_a_restart_of_the_api() -> None:
    store = MemoryStore()
    async with Served(store=store) as first, connected(first) as client:
        batch = await client.open_batch(key="step-1")
        await batch.submit(groups(20))
        await batch.seal()
        port = int(first.url.rsplit(":", 1)[1])
        reading = asyncio.create_task(collected(client, batch.id))
        await asyncio.sleep(0.2)
        await first.__aexit__()
        await asyncio.sleep(0.5)
        async with Served(store=store, port=port) as second:
            second.start_worker()
            taken = await reading
            assert Counter(taken) == {(f"g{number}", index): 1 for number in range(20) for index in range(4)}
            assert (await client.open_batch(key="step-1")).id == batch.id


async def collected(client: AsyncClient, batch: int) -> list[tuple[str, int]]:
    items = client.batch(batch).results(acknowledge=True)
    return [(item.group, item.index) async for item in items if isinstance(item, ResultItem)]


@pytest.mark.slow
async def test_a_repeatedly_killed_trainer_gets_every_group(tmp_path: Path) -> None:
    job = serving_job(sampling={"maxTokens": 300})
    async with served(job=job) as server:
        script = str(Path(__file__).with_name("killed_trainer.py"))
        for _ in range(3):
            trainer = await asyncio.create_subprocess_exec(sys.executable, script, server.url, TOKEN, str(tmp_path))
            before = taken_lines(tmp_path)
            while trainer.returncode is None and len(taken_lines(tmp_path)) < len(before) + 8:
                await asyncio.sleep(0.02)
            if trainer.returncode is None:
                trainer.send_signal(signal.SIGKILL)
            await trainer.wait()
        trainer = await asyncio.create_subprocess_exec(sys.executable, script, server.url, TOKEN, str(tmp_path))
        assert await trainer.wait() == 0
    taken = Counter(line.split()[0] for line in taken_lines(tmp_path))
    assert set(taken) == {f"g{number}" for number in range(60)}
    assert all(line.endswith("4 True") for line in taken_lines(tmp_path))
    # The group in hand at a kill was not taken: it was returned again.
    assert sum(taken.values()) <= 60 + 3


def taken_lines(folder: Path) -> list[str]:
    file = folder / "taken"
    return file.read_text().splitlines() if file.exists() else []


async def test_a_batch_is_filled_until_enough_groups_are_valid() -> None:
    async with served() as server, connected(server) as client:
        batch = await client.open_batch(BatchSpec(target=Target(groups=6, count="valid")))
        supply = (Group(id=f"g{number}", prompt_token_ids=[1, number + 2]) for number in count())
        good = [
            group.name
            async for group in batch.fill(supply, lambda group: int(group.name[1:]) % 2 == 0, acknowledge=True)
        ]
        assert len(good) >= 6
        assert all(int(name[1:]) % 2 == 0 for name in good)
        assert (await batch.status()).target_met


async def test_turns_are_answered_and_every_token_has_its_origin() -> None:
    def tool(item: ResultItem) -> list[int] | None:
        return [9, 9, 9] if item.turn == 0 and item.index == 0 else None

    async with served() as server, connected(server) as client:
        batch = await client.open_batch(BatchSpec(group_size=2, sampling=Sampling(max_tokens=200)))
        await batch.submit(groups(3))
        found = [group async for group in batch.groups(environment=tool, seal_after=3)]
    assert len(found) == 3
    for group in found:
        continued, plain = group.results
        assert (continued.turn, plain.turn) == (1, 0)
        mask = continued.mask()
        assert mask.count(False) == 3
        start = mask.index(False)
        assert continued.token_ids[start : start + 3] == [9, 9, 9]
        assert all(plain.mask())


async def test_back_pressure_slows_an_upload_without_losing_groups() -> None:
    async with served(limits=ApiLimits(queued=64)) as server, connected(server) as client:
        batch = await client.open_batch(BatchSpec(sampling=Sampling(max_tokens=8)))
        receipt = await batch.submit(groups(300, 1))
        assert receipt.accepted + receipt.present == 300
        await batch.seal()
        assert len([group async for group in batch.groups()]) == 300


async def test_an_adapter_is_published_sampled_from_and_removed(tmp_path: Path) -> None:
    async with served(job=adapting()) as server, connected(server) as client:
        await ready(server)
        source = Source(path=str(write_adapter(tmp_path / "a1", "a1")))
        await client.publish(Publish(version="a1", source=source, adapter=AdapterSpec(name="math"), mode="keep"))
        batch = await client.open_batch(BatchSpec(adapter="math"))
        await batch.submit(groups(1, 1))
        await batch.seal()
        [group] = [group async for group in batch.groups()]
        assert {span.version for span in group.results[0].versions} == {"a1"}
        for _ in range(2):  # again: the adapter is removed already, which is no error
            await client.remove_adapter("math")
        assert (await client.weights()).adapters == []
        with Client(server.url, token=TOKEN) as blocking:
            await asyncio.to_thread(blocking.remove_adapter, "math")


async def test_a_publication_with_a_wrong_canary_restores_the_old_weights(tmp_path: Path) -> None:
    async with served() as server, connected(server) as client:
        write_weights(tmp_path, "new")
        source = Source(path=str(tmp_path))
        phases: list[str] = []
        done = await client.publish(
            Publish(version="v2", source=source), progress=lambda transaction: phases.append(transaction.phase)
        )
        assert done.phase == "done"
        assert phases[-1] == "done"
        assert (await client.weights()).version == "v2"
        wrong = Canary(token_ids=[1, 2, 3], logprobs=[5.0, 5.0], tolerance=0.01)
        with pytest.raises(WeightsError, match="v3: not published"):
            await client.publish(Publish(version="v3", source=source, canary=wrong, retries=0))
        assert (await client.weights()).version == "v2"
        assert (await (await client.open_batch()).status()).weights_version == "v2"
        with pytest.raises(ConflictError, match="v3"):
            await client.open_batch(BatchSpec(weights_version="v3"))


async def test_gpus_are_handed_over_and_back() -> None:
    async with served() as server, connected(server) as client:
        assert (await client.release(patience=120.0)).state == "released"
        assert (await client.acquire(patience=120.0)).state == "awake"


async def test_gpus_are_acquired_in_stages_with_a_publication_between(tmp_path: Path) -> None:
    async with served() as server, connected(server) as client:
        write_weights(tmp_path, "new")
        slept = await client.release(Release(keep_weights=False), patience=120.0)
        assert (slept.state, slept.awake) == ("released", [])
        assert {worker.version for worker in await client.workers()} == {""}
        woken = await client.acquire(Acquire(parts=["weights"]), patience=120.0)
        assert (woken.state, woken.awake) == ("released", ["weights"])
        await client.publish(Publish(version="v2", source=Source(path=str(tmp_path)), mode="abort"))
        whole = await client.acquire(Acquire(parts=["kv_cache"]), patience=120.0)
        assert (whole.state, whole.awake) == ("awake", ["weights", "kv_cache"])
        assert {worker.version for worker in await client.workers()} == {"v2"}


async def test_groups_and_requests_can_be_read_and_cancelled() -> None:
    # Each step takes so long that no response ends before it is cancelled.
    model = {"path": "none", "engine": "scripted", "scripted": {"stepSeconds": 0.1, "stepSecondsPerRequest": 0.0}}
    job = serving_job(sampling={"maxTokens": 20_000}, model=model)
    async with served(job=job) as server, connected(server) as client:
        batch = await client.open_batch()
        await batch.submit(groups(3))
        await batch.seal()
        assert await batch.names() == ["g0", "g1", "g2"]
        assert (await batch.group("g1")).size == 4
        assert (await batch.request("g1", 2)).index == 2
        assert await batch.cancel(["g0"], index=1) == 1
        assert await batch.cancel() == 11
        ended = [group async for group in batch.groups(acknowledge=True)]
        assert not any(group.whole for group in ended)
        await batch.forget()
        with pytest.raises(ConflictError, match="its data are gone"):
            _ = [item async for item in batch.results()]
        with pytest.raises(NotFoundError):
            await client.batch(99).status()


async def test_a_wrong_and_a_missing_token_give_different_errors(tmp_path: Path) -> None:
    async with Served() as server:
        for token in (None, "wrong"):
            async with AsyncClient(server.url, token=token) as client:
                with pytest.raises(UnauthorizedError, match="needed" if token is None else "not this job"):
                    await client.job()


async def test_a_checkpoint_of_a_complete_batch_needs_no_api(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "state.json")
    async with served() as server, connected(server) as client:
        batch = await client.open_batch()
        await batch.submit(groups(2))
        await batch.seal()
        assert len([group async for group in batch.groups(checkpoint=checkpoint, acknowledge=True)]) == 2
        # Its data are deleted, and no call reads them.
        assert [group async for group in batch.groups(checkpoint=checkpoint)] == []


@pytest.mark.parametrize(
    ("job", "said"), [("served", "the store was emptied since"), ("other", "of job default/served")]
)
async def test_a_checkpoint_from_before_the_store_was_emptied_is_refused(tmp_path: Path, job: str, said: str) -> None:
    path = tmp_path / "state.json"

    async def read(server: Served) -> int:
        async with connected(server) as client:
            batch = await client.open_batch(key="run/1")
            await batch.submit(groups(2))
            await batch.seal()
            return len([group async for group in batch.groups(checkpoint=Checkpoint(path))])

    async with served() as server:
        assert await read(server) == 2
        assert await read(server) == 0
    kept = path.read_text()
    async with served(job=serving_job(job)) as emptied:
        with pytest.raises(InputError, match=said) as refused:
            await read(emptied)
        assert "remove this one to read from the beginning" in str(refused.value)
        assert path.read_text() == kept


@pytest.mark.usefixtures("token_output")
async def test_verls_server_works_with_the_real_route() -> None:
    async with served() as server:
        _, engine = Router({}, {"url": server.url, "token": TOKEN, "response_length": 12}).acquire_server("r")
        sampling = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}
        calls = [
            engine.generate.remote(prompt_ids=[1, 2, 3], sampling_params=sampling, request_id=f"r{number}")
            for number in range(8)
        ]
        found = await asyncio.gather(*calls)
    assert {output.stop_reason for output in found} == {"completed"}
    assert all(0 < len(output.token_ids) == len(output.log_probs) <= 12 for output in found)
