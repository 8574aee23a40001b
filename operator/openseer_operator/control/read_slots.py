"""Who may read a store now: a store that says nothing takes time from stores of its own namespace, and of no other."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

READS_AT_ONCE = 32
"""Stores that have answered and are read at the same time; those that have not have as many places of their own."""
NAMESPACE_READS = 8
"""Of each, those of one namespace."""


class ReadSlots:
    """Places for readings, given in the order in which they are asked for."""

    def __init__(self) -> None:
        self._all = {answered: asyncio.Semaphore(READS_AT_ONCE) for answered in (True, False)}
        self._namespaces = WeakValueDictionary[tuple[str, bool], asyncio.Semaphore]()

    @asynccontextmanager
    async def slot(self, namespace: str, *, answered: bool) -> AsyncGenerator[None]:
        """A place for one reading of a store in that namespace. `answered`: whether it did when it was last read."""
        of_namespace = self._namespaces.setdefault((namespace, answered), asyncio.Semaphore(NAMESPACE_READS))
        async with of_namespace, self._all[answered]:
            yield
