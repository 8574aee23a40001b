"""When a worker with room claims: while claims find work, when its room grows, and when the store calls it."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from openseer_store.port import WorkerStore

POLL_SECONDS = 0.5
"""Claim interval without a call, in seconds: a call may be lost, and only claims take back expired leases."""

CLAIMS_THAT_YIELD = 3
"""Claims in a row without a result that leave waiting requests to faster free workers. The next claim does not, since
those workers may be unable to take them."""


class Arrivals:
    """Listens for work beside the worker's loop; calls `wake` when some may have arrived."""

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
        """Whether a claim may find work. Raises StoreUnavailableError when the store did not answer in time."""
        if self._listening is not None and self._listening.done():
            self._listening.result()
            self._listening, self._due = None, True
        return self._due or versions != self._versions

    def note_room(self) -> None:
        """Notes that the worker has more room than at its last claim."""
        self._due = True

    def note_claim(self, versions: tuple[str, ...], *, found: bool) -> None:
        """Notes a claim for these versions; after one that found nothing, the next one waits for a call."""
        self._versions, self._due = versions, found
        self._in_vain = self._in_vain + 1 if not found and self.is_patient else 0
        if not found and self._listening is None:
            waiting = self._store.wait_for_work(versions[0], self._lanes, POLL_SECONDS, versions[1:])
            self._listening = asyncio.ensure_future(waiting)
            self._listening.add_done_callback(lambda _: self._wake())

    async def close(self) -> None:
        """Stops listening."""
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._listening
