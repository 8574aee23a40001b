"""Limits concurrent readings of stores. Stores that did not answer have slots of their own, so they do not delay those
that did; a namespace has at most 8 of each kind."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

READS_AT_ONCE = 32
"""Limit of concurrent readings of stores that answered last time; the others have a separate limit of this size."""
NAMESPACE_READS = 8
"""The same limits per namespace."""


class ReadSlots:
    """Slots for readings, in the order of requests."""

    def __init__(self) -> None:
        self._all = {answered: asyncio.Semaphore(READS_AT_ONCE) for answered in (True, False)}
        self._namespaces = WeakValueDictionary[tuple[str, bool], asyncio.Semaphore]()

    @asynccontextmanager
    async def slot(self, namespace: str, *, answered: bool) -> AsyncGenerator[None]:
        """A slot for one reading of a store in this namespace. `answered`: whether its last reading succeeded."""
        of_namespace = self._namespaces.setdefault((namespace, answered), asyncio.Semaphore(NAMESPACE_READS))
        async with of_namespace, self._all[answered]:
            yield
