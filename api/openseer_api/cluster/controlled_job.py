"""The batch controller of one job in the gateway, with a short interval while the job is used and a long one otherwise.

A cluster may have hundreds of serving jobs, most of them idle: a step for each of them every 0.2 s costs too much.
"""

import asyncio
import logging
from contextlib import suppress

from openseer_api.batch_controller import ROUND_SECONDS, TROUBLE_SECONDS, reconcile
from openseer_api.job.context import JobContext
from openseer_core.errors import OpenseerError

IDLE_SECONDS = 5.0
"""Interval between two reconcile steps of an idle job (no recent call, no waiting or running request), in seconds."""
USED_SECONDS = 60.0
"""Time after a call in which a job counts as used, in seconds."""

log = logging.getLogger(__name__)


class ControlledJob:
    """A job's context with its batch controller, which runs until `end`."""

    def __init__(self, context: JobContext) -> None:
        self.context = context
        self._woken = asyncio.Event()
        self._used_at = float("-inf")
        self.is_troubled = False
        """Whether the last reconcile step failed."""
        self._task = asyncio.create_task(
            self._run(), name=f"batch controller of {context.job.namespace}/{context.job.name}"
        )

    def mark_used(self) -> None:
        """Records a call: the controller uses the short interval for the next USED_SECONDS."""
        self._used_at = asyncio.get_running_loop().time()
        self._woken.set()

    async def end(self) -> None:
        """Stops the controller and closes the context."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self.context.close()

    async def _run(self) -> None:
        while True:
            pause = await self._round()
            if pause < IDLE_SECONDS:
                await asyncio.sleep(pause)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._woken.wait()
            self._woken.clear()

    async def _round(self) -> float:
        """Runs one reconcile step and returns the seconds until the next one. Logs only the first of consecutive
        failures, because the store of a suspended job never responds."""
        job = self.context.job
        try:
            publishes = await reconcile(self.context)
            load = await self.context.store.load()
        except Exception as error:  # a batch that cannot be handled must not stop the controller
            if not self.is_troubled:
                known = isinstance(error, OpenseerError)
                log.warning("%s/%s: %s", job.namespace, job.name, error, exc_info=not known)
            self.is_troubled = True
            return TROUBLE_SECONDS
        self.is_troubled = False
        if publishes:
            return ROUND_SECONDS / 2
        used = asyncio.get_running_loop().time() - self._used_at < USED_SECONDS
        return ROUND_SECONDS if used or load.running or load.waiting else IDLE_SECONDS
