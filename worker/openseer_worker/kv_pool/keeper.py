"""A worker's part in limiting a pool's bytes: names the groups' places, notes the ends of groups, and sweeps.

A sweep removes ended groups first, then the least recently used ones. Each worker sweeps in a thread, without blocking
its loop; in a shared directory one worker sweeps at a time.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection

from openseer_worker.kv_pool import sweeps
from openseer_worker.kv_pool.daemons import DaemonThreads
from openseer_worker.kv_pool.places import EnginePool, group_place, version_place
from openseer_worker.kv_pool.sweepers import open_sweeper

log = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""Time for which the blocks of a replaced version are kept, in seconds: other workers may still serve it."""
MOST_ENDED = 10_000
"""Limit of ended groups that are noted; further ones are removed by their age."""


class PoolKeeper:
    """Keeps a pool, with the blocks of all workers, within `most_bytes`. `pool`: None without a pool. `epoch`: returns
    the store's epoch. `versions`: returns the versions of weights and adapters that this worker serves."""

    def __init__(
        self,
        pool: EnginePool | None,
        most_bytes: int,
        epoch: Callable[[], int],
        versions: Callable[[], Collection[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sweeper = None if pool is None else open_sweeper(pool, most_bytes, epoch)
        self._epoch = epoch
        self._versions = versions
        self._clock = clock
        self._served: set[str] = set()
        self._leaving: dict[str, float] = {}
        self._ended: dict[str, None] = {}
        self._logged = ""
        self._thread = DaemonThreads(1, "openseer-kv-sweep")

    def place(self, group: str, version: str) -> str:
        """Returns the place of a group's blocks for weights, or an adapter, of `version`; "" without a pool. Notes that
        the group runs."""
        if self._sweeper is None:
            return ""
        place = group_place(self._epoch(), version, group)
        self._ended.pop(place, None)
        return place

    def end(self, group: str, version: str) -> None:
        """Notes that a group has ended: its blocks are removed first, but kept for a next turn while there is room."""
        if self._sweeper is not None and len(self._ended) < MOST_ENDED:
            self._ended[group_place(self._epoch(), version, group)] = None

    async def run(self) -> None:
        """Sweeps every SWEEP_SECONDS until cancelled."""
        while self._sweeper is not None:
            await asyncio.sleep(sweeps.SWEEP_SECONDS)
            swept, problem = (), ""
            try:
                replaced = self._replaced()
                places = [version_place(self._epoch(), version) for version in replaced]
                sweeping = self._thread.submit(self._sweeper.sweep, list(self._ended), places)
                swept = await asyncio.wrap_future(sweeping)
            except Exception as error:  # noqa: BLE001 - a pool that cannot be swept must not end the worker
                problem = str(error) or type(error).__name__
            else:  # the next sweep repeats a failed one
                for version in replaced:
                    del self._leaving[version]
            if problem and problem != self._logged:
                log.warning("the KV pool is not swept: %s", problem)
            self._logged = problem
            for place in swept:
                self._ended.pop(place, None)

    def _replaced(self) -> list[str]:
        """Returns the versions that this worker has not served for GRACE_SECONDS and no sweep has removed."""
        now, served = self._clock(), set(self._versions())
        for version in self._served - served:
            self._leaving[version] = now + GRACE_SECONDS
        for version in served:
            self._leaving.pop(version, None)
        self._served = served
        return [version for version, at in self._leaving.items() if at <= now]
