"""Silent stores do not delay reads of other stores."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from openseer_operator.control.read_slots import NAMESPACE_READS, READS_AT_ONCE, ReadSlots


async def is_free(slots: ReadSlots, namespace: str, *, answered: bool) -> bool:
    """Whether a slot is free."""

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
async def test_a_namespace_holds_a_limited_share_of_the_read_slots(answered: bool) -> None:
    slots = ReadSlots()
    async with AsyncExitStack() as held:
        for _ in range(NAMESPACE_READS):
            assert await is_free(slots, "hostile", answered=answered)
            await held.enter_async_context(slots.slot("hostile", answered=answered))
        assert not await is_free(slots, "hostile", answered=answered)
        assert await is_free(slots, "good", answered=answered)
    assert await is_free(slots, "hostile", answered=answered)


async def test_answering_stores_do_not_wait_for_silent_ones() -> None:
    slots = ReadSlots()
    async with AsyncExitStack() as held:
        for number in range(READS_AT_ONCE):
            await held.enter_async_context(slots.slot(f"hostile-{number}", answered=False))
        assert not await is_free(slots, "good", answered=False)
        assert await is_free(slots, "good", answered=True)
