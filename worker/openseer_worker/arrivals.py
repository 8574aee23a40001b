"""When a worker that has room claims: while it finds something, when its room grows, and when the store calls it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from openseer_store.port import WorkerStore

POLL_SECONDS = 0.5
"""A worker that nobody calls claims so often: calls get lost, and leases that expire are found by claims alone."""

CLAIMS_THAT_YIELD = 3
"""So many claims in a row that find nothing leave what waits to faster workers that are free; the next one does not,
for these may be unable to take it."""


class Arrivals:
    """Listens for work beside the worker's loop; `wake` is called when some may have come."""

    def __init__(self, store: WorkerStore, lanes: tuple[str, ...], wake: Callable[[], None]) -> None:
        self._store = store
        self._lanes = lanes
        self._wake = wake
        self._listening: asyncio.Task[bool] | None = None
        self._versions: tuple[str, ...] = ()
        self._due = True
        self._in_vain = 0

    @property
    def is_waiting(self) -> bool:
        """Whether the last claim found nothing, and no call has come since."""
        return not self._due

    @property
    def is_patient(self) -> bool:
        """Whether the next claim leaves the tail to faster workers."""
        return self._in_vain < CLAIMS_THAT_YIELD

    def is_due(self, versions: tuple[str, ...]) -> bool:
        """Whether a claim may find something. Raises StoreUnavailableError when the store was away for too long."""
        if self._listening is not None and self._listening.done():
            self._listening.result()
            self._listening, self._due = None, True
        return self._due or versions != self._versions

    def note_room(self) -> None:
        """The worker has more room than at its last claim."""
        self._due = True

    def note_claim(self, versions: tuple[str, ...], *, found: bool) -> None:
        """After a claim for these versions that found nothing the next one waits for a call."""
        self._versions, self._due = versions, found
        self._in_vain = self._in_vain + 1 if not found and self.is_patient else 0
        if not found and self._listening is None:
            waiting = self._store.wait_for_work(versions[0], self._lanes, POLL_SECONDS, versions[1:])
            self._listening = asyncio.ensure_future(waiting)
            self._listening.add_done_callback(lambda _: self._wake())

    async def close(self) -> None:
        """Listens no longer."""
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._listening
