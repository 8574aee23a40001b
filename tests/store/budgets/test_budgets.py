"""Large operations run in calls of bounded size, and repeating an interrupted operation continues it."""

from typing import Any

import pytest

from openseer_core.errors import StoreUnavailableError
from openseer_core.ids import PARKED_BATCH, GroupId
from openseer_core.queue import budgets
from openseer_core.queue.batch import OpenBatch
from openseer_core.queue.states import Event
from openseer_store.connect import open_store
from openseer_store.port import Store
from openseer_store.redis_link import RedisLink
from tests.store.builders import ANN, BOB, delta, extend, group, query, results, tokens

pytestmark = pytest.mark.redis


class Calls:
    """Counts the calls of each verb; calls of a verb after its `last`-th raise an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: dict[str, int] = {}
        self.last: dict[str, int] = {}
        whole = RedisLink.run

        async def run(link: RedisLink, verb: str, *arguments: Any, **more: Any) -> Any:
            self.made[verb] = self.made.get(verb, 0) + 1
            if self.made[verb] > self.last.get(verb, 10**6):
                raise StoreUnavailableError("the caller ends here")
            return await whole(link, verb, *arguments, **more)

        monkeypatch.setattr(RedisLink, "run", run)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    for name, value in {"STEP_REQUESTS": 4, "MOVE_REQUESTS": 4, "STEP_BYTES": 64, "SUBMIT_REQUESTS": 4}.items():
        monkeypatch.setattr(budgets, name, value)
    return Calls(monkeypatch)


@pytest.fixture
async def store(redis_url: str, job: str) -> Any:
    opened = await open_store(redis_url, job)
    yield opened
    await opened.close()


async def opened(store: Store, sizes: list[int]) -> int:
    record, _ = await store.open_batch(OpenBatch("v1", "{}"))
    await store.submit([group(f"g{number}", size, batch=record.number) for number, size in enumerate(sizes)])
    return record.number


async def test_a_large_group_is_ended_in_several_calls(store: Store, calls: Calls) -> None:
    batch = await opened(store, [9, 2, 1])
    assert calls.made["submit"] == 2
    assert await store.end(batch) == 12
    assert calls.made["end_requests"] == 3
    assert (await store.progress(batch)).aborted == 12
    assert await store.end(batch, Event.CANCEL) == 0


async def test_long_responses_are_copied_ahead_of_the_move(store: Store, calls: Calls) -> None:
    batch = await opened(store, [3, 1])
    claims = await store.claim(ANN, query())
    await extend(store, ANN, [delta(claim, 20) for claim in claims])
    calls.last["carry"] = 2
    gids = [GroupId(batch, "g0"), GroupId(batch, "g1")]
    with pytest.raises(StoreUnavailableError):
        await store.carry(gids, PARKED_BATCH, "v1")
    assert await store.group_names(PARKED_BATCH, 0, 9) == []
    await extend(store, ANN, [delta(claim, 5, 20) for claim in claims])
    calls.last.clear()
    assert await store.carry(gids, PARKED_BATCH, "v1") == 2
    later, _ = await store.open_batch(OpenBatch("v2", "{}"))
    parked = [GroupId(PARKED_BATCH, name) for name in await store.group_names(PARKED_BATCH, 0, 9)]
    assert await store.carry(parked, later.number, "v2") == 2
    assert [claim.tokens for claim in await store.claim(BOB, query(version="v2"))] == [tokens(0, 25)] * 4
    assert [result.tokens for result in await results(store, batch)] == [tokens(0, 25)] * 4


async def test_a_batch_that_is_half_forgotten_is_forgotten_by_the_next_call(
    store: Store, calls: Calls, redis_url: str, job: str
) -> None:
    batch = await opened(store, [9, 2])
    claims = await store.claim(ANN, query(3))
    await extend(store, ANN, [delta(claim, 5) for claim in claims])
    calls.last["forget"] = 3
    with pytest.raises(StoreUnavailableError):
        await store.forget(batch)
    calls.last.clear()
    assert [record.forgotten for record in await store.batches()] == [True]
    await store.forget(batch)
    assert await store.batches() == []
    link = RedisLink(redis_url, "")
    left = [key.decode().partition("}")[2] for key in await link.command("KEYS", f"*/{job}}}*")]
    await link.close()
    assert {key for key in left if f":{batch}" in key or f"{batch}/" in key} == {f":batch:{batch}"}
    made = calls.made["forget"]
    await store.forget(batch)
    assert calls.made["forget"] == made + 1
