"""Stores that keep their readers waiting hold up nobody else's."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from openseer_operator.control.read_slots import NAMESPACE_READS, READS_AT_ONCE, ReadSlots


async def is_free(slots: ReadSlots, namespace: str, *, answered: bool) -> bool:
    """Whether a place is to be had without another's leaving."""

    async def take() -> None:
        async with slots.slot(namespace, answered=answered):
            pass

    task = asyncio.create_task(take())
    for _ in range(5):
        await asyncio.sleep(0)
    free = task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return free


@pytest.mark.parametrize("answered", [True, False])
async def test_a_namespace_takes_a_part_of_the_places_and_gives_them_back(answered: bool) -> None:
    slots = ReadSlots()
    async with AsyncExitStack() as held:
        for _ in range(NAMESPACE_READS):
            assert await is_free(slots, "hostile", answered=answered)
            await held.enter_async_context(slots.slot("hostile", answered=answered))
        assert not await is_free(slots, "hostile", answered=answered)
        assert await is_free(slots, "good", answered=answered)
    assert await is_free(slots, "hostile", answered=answered)


async def test_stores_that_answer_wait_for_none_that_does_not() -> None:
    slots = ReadSlots()
    async with AsyncExitStack() as held:
        for number in range(READS_AT_ONCE):
            await held.enter_async_context(slots.slot(f"hostile-{number}", answered=False))
        assert not await is_free(slots, "good", answered=False)
        assert await is_free(slots, "good", answered=True)
