"""A cache whose values expire; concurrent calls for the same key share one load."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """A cache of at most `most` values, which evicts the least recently used one. `good_for`: maps a value to its TTL,
    in seconds.

    An exception of a load is not cached: every caller that waited for the load gets it, and the next call loads again.
    """

    def __init__(self, good_for: Callable[[V], float], most: int) -> None:
        self._good_for = good_for
        self._most = most
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._pending: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        """Returns the cached value, else the value that `load` returns. Raises the exceptions of `load`."""
        entry = self._entries.get(key)
        if entry is not None and time.monotonic() < entry[0]:
            self._entries.move_to_end(key)
            return entry[1]
        task = self._pending.get(key)
        if task is None:
            task = self._pending[key] = asyncio.create_task(self._load(key, load))
            task.add_done_callback(_mark_seen)
        # One waiting caller may be cancelled; the others still need the result.
        return await asyncio.shield(task)

    def put(self, key: K, value: V) -> None:
        """Stores a value that was not loaded through `get`."""
        self._entries[key] = time.monotonic() + self._good_for(value), value
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    async def _load(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        try:
            value = await load()
            self.put(key, value)
            return value
        finally:
            del self._pending[key]


def _mark_seen(task: "asyncio.Task[V]") -> None:
    """Reads the exception of a load: asyncio logs an unread one, and all waiting callers may have been cancelled."""
    if not task.cancelled():
        task.exception()
