"""Answers that stay good for a moment: of many who ask the same at once, one asks for all."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """Holds at most `most` answers, the longest unused goes first. `good_for`: seconds that an answer stays good.

    A failure is no answer: whoever waited for it hears of it, the next one asks anew.
    """

    def __init__(self, good_for: Callable[[V], float], most: int) -> None:
        self._good_for = good_for
        self._most = most
        self._held: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._asked: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._held)

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The answer that is held, else what `ask` says. Raises what `ask` raises."""
        held = self._held.get(key)
        if held is not None and time.monotonic() < held[0]:
            self._held.move_to_end(key)
            return held[1]
        task = self._asked.get(key)
        if task is None:
            task = self._asked[key] = asyncio.create_task(self._ask(key, ask))
            task.add_done_callback(_seen)
        # One of those who wait may go away; the others still want to know.
        return await asyncio.shield(task)

    def put(self, key: K, value: V) -> None:
        """An answer that came by another way."""
        self._held[key] = time.monotonic() + self._good_for(value), value
        self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)

    async def _ask(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        try:
            value = await ask()
            self.put(key, value)
            return value
        finally:
            del self._asked[key]


def _seen(task: "asyncio.Task[V]") -> None:
    """Nobody may be left to hear of a failure."""
    if not task.cancelled():
        task.exception()
