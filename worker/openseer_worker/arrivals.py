"""Decides when a worker with room claims.

It claims again after a claim that found requests, when slots or blocks become free, when its weights versions change,
when the store notifies it (GLOSSARY: call), and otherwise every POLL_SECONDS.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from openseer_store.port import WorkerStore

POLL_SECONDS = 0.5
"""Longest time between two claims of an idle worker, in seconds. Claims must not stop: a notification may be lost, and
only claims take back expired leases."""

CLAIMS_THAT_YIELD = 3
"""A worker leaves waiting requests to a faster free worker in at most this many empty claims in a row. The next claim
ignores faster workers, because they may be unable to run these requests."""


class Arrivals:
    """Waits for notifications of the store in a separate task, and calls `wake` when a claim may find requests."""

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
        """Whether the last claim was empty and there has been no reason for another one since."""
        return not self._due

    @property
    def yields_to_faster(self) -> bool:
        """Whether the next claim leaves the waiting requests to faster free workers."""
        return self._in_vain < CLAIMS_THAT_YIELD

    def is_due(self, versions: tuple[str, ...]) -> bool:
        """Whether a claim may find requests. Raises StoreUnavailableError when the store did not answer in time."""
        if self._listening is not None and self._listening.done():
            self._listening.result()
            self._listening, self._due = None, True
        return self._due or versions != self._versions

    def note_room(self) -> None:
        """Records that the worker has more room than at its last claim."""
        self._due = True

    def note_claim(self, versions: tuple[str, ...], *, found: bool) -> None:
        """Records a claim for these versions. After an empty claim the next one waits for a notification."""
        self._versions, self._due = versions, found
        self._in_vain = self._in_vain + 1 if not found and self.yields_to_faster else 0
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
