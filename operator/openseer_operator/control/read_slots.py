"""Limits concurrent readings of stores. Stores whose last reading failed use a separate pool of slots, so that they do
not delay the other stores. A namespace has at most 8 slots of each pool."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

READS_AT_ONCE = 32
"""Size of each of the two pools: for stores whose last reading succeeded, and for the others."""
NAMESPACE_READS = 8
"""Limit of the slots of each pool that the stores of one namespace use at the same time."""


class ReadSlots:
    """The two pools of slots. Each gives out its slots in the order of requests."""

    def __init__(self) -> None:
        self._all = {answered: asyncio.Semaphore(READS_AT_ONCE) for answered in (True, False)}
        self._namespaces = WeakValueDictionary[tuple[str, bool], asyncio.Semaphore]()

    @asynccontextmanager
    async def slot(self, namespace: str, *, answered: bool) -> AsyncGenerator[None]:
        """A slot for one reading of a store in this namespace. `answered`: whether the store's last reading
        succeeded."""
        of_namespace = self._namespaces.setdefault((namespace, answered), asyncio.Semaphore(NAMESPACE_READS))
        async with of_namespace, self._all[answered]:
            yield
