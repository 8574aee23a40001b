"""A worker's part in keeping a pool within its bytes: where groups lie, which of them are over, what is removed.

Removed first are groups that are over, then those unused for longest. All of it runs in a thread, beside the worker's
loop, and nobody waits for it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from openseer_worker.kv_pool.daemons import DaemonThreads
from openseer_worker.kv_pool.mooncake.watching import MooncakeSweeper
from openseer_worker.kv_pool.places import EnginePool, group_place, version_place
from openseer_worker.kv_pool.sweeping import DirectorySweeper

log = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0
"""How often a worker marks groups that are over, and looks through the pool where no other does."""
GRACE_SECONDS = 60.0
"""How long blocks of replaced weights stay: other workers may need them still."""
MOST_ENDED = 10_000
"""Groups whose end is noted at once, at most; others are removed by their age."""


class Sweeper(Protocol):
    """What removes blocks of one kind of pool; it may take long, or hang."""

    def sweep(self, ended: Sequence[str], leaving: Sequence[str]) -> Sequence[str]:
        """Removes what must go: `leaving`, places of versions, at once, and while room is short the groups at `ended`,
        places in the order in which they ended. Gives those of `ended` that need not be named again. Raises OSError.
        """
        ...


class PoolKeeper:
    """`pool`: None without one. `most_bytes`: of the blocks of all its workers. `epoch`: the store's now."""

    def __init__(self, pool: EnginePool | None, most_bytes: int, epoch: Callable[[], int]) -> None:
        self._sweeper = None if pool is None else _sweeper(pool, most_bytes, epoch)
        self._epoch = epoch
        self._weights: str | None = None
        self._ended: dict[str, None] = {}
        self._leaving: dict[str, float] = {}
        self._thread = DaemonThreads(1, "openseer-kv-sweep")

    @property
    def is_on(self) -> bool:
        """Whether there is a pool."""
        return self._sweeper is not None

    def place(self, group: str, version: str, weights: str) -> str:
        """The place of a group's blocks with weights of `version`; "" without a pool. `weights`: the engine's own."""
        if self._sweeper is None:
            return ""
        if self._weights not in (None, weights):
            self._leaving[version_place(self._epoch(), self._weights or "")] = time.monotonic() + GRACE_SECONDS
        self._weights = weights
        place = group_place(self._epoch(), version, group)
        self._ended.pop(place, None)
        return place

    def end(self, group: str, version: str) -> None:
        """A group is over: its blocks are among the first to go. They stay while there is room, for a next turn."""
        if self._sweeper is not None and len(self._ended) < MOST_ENDED:
            self._ended[group_place(self._epoch(), version, group)] = None

    async def run(self) -> None:
        """Sweeps until it is cancelled."""
        while self._sweeper is not None:
            await asyncio.sleep(SWEEP_SECONDS)
            now = time.monotonic()
            leaving = [place for place, due in self._leaving.items() if due <= now]
            try:
                swept = await asyncio.wrap_future(self._thread.submit(self._sweeper.sweep, list(self._ended), leaving))
            except OSError as error:
                log.warning("the KV pool is not swept: %s", error)
                continue
            for place in leaving:
                del self._leaving[place]
            for place in swept:
                self._ended.pop(place, None)


def _sweeper(pool: EnginePool, most_bytes: int, epoch: Callable[[], int]) -> Sweeper:
    if pool.backend == "mooncake":
        return MooncakeSweeper(pool.master)
    return DirectorySweeper(pool.folder, most_bytes, epoch)
