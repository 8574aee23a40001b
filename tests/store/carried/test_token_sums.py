"""Sums of tokens of groups that move to another batch, the same on every store."""

from openseer_core.ids import PARKED_BATCH, GroupId
from openseer_core.queue.batch import OpenBatch
from openseer_store.port import Store
from tests.store.builders import ANN, delta, extend, finish, group, query


async def opened(store: Store) -> int:
    record, _ = await store.open_batch(OpenBatch("v1", "{}"))
    return record.number


async def test_expected_tokens_of_groups_move_with_them(store: Store) -> None:
    first, second = await opened(store), await opened(store)
    await store.submit([group("a", 3, batch=first)])
    claims = await store.claim(ANN, query(2))
    await store.complete(ANN, [finish(claims[0], 5)])
    await store.carry([GroupId(first, "a")], PARKED_BATCH, "v1")
    await store.carry([GroupId(PARKED_BATCH, f"a~{first}")], second, "v1")
    counts = [await store.progress(batch) for batch in (first, PARKED_BATCH, second)]
    assert [(page.open_known, page.open_expected) for page in counts] == [(0, 0), (0, 0), (2, 10)]
    assert (counts[2].ok_tokens, counts[2].closed_tokens) == (5, 5)


async def test_tokens_of_a_carried_group_are_not_the_batchs_own(store: Store) -> None:
    first, second = await opened(store), await opened(store)
    await store.submit([group("a", 2, batch=first)])
    claims = await store.claim(ANN, query())
    await store.complete(ANN, [finish(claims[0], 5)])
    await extend(store, ANN, [delta(claims[1], 4)])
    await store.carry([GroupId(first, "a")], PARKED_BATCH, "v1")
    await store.carry([GroupId(PARKED_BATCH, f"a~{first}")], second, "v1")
    [again] = await store.claim(ANN, query())
    await store.complete(ANN, [finish(again, 6)])
    pages = [await store.progress(batch) for batch in (first, PARKED_BATCH, second)]
    assert [(page.tokens, page.carried_tokens, page.own_tokens) for page in pages] == [(9, 0, 9), (9, 9, 0), (15, 9, 6)]
