"""A job that the gateway keeps: looked after often while somebody uses it, seldom while nobody does.

A cluster may have hundreds of jobs that serve, most of them idle: these must not cost a look every moment.
"""

import asyncio
import logging
from contextlib import suppress

from openseer_api.batch_controller import ROUND_SECONDS, TROUBLE_SECONDS, look
from openseer_api.job.context import JobContext
from openseer_core.errors import OpenseerError

IDLE_SECONDS = 5.0
"""Between two looks at a job that nobody uses, in which nothing waits or runs."""
STIRRED_SECONDS = 60.0
"""After a request a job counts as used for so long."""

log = logging.getLogger(__name__)


class ControlledJob:
    """Looks after a job from now on, until `end`."""

    def __init__(self, context: JobContext) -> None:
        self.context = context
        self._stirred = asyncio.Event()
        self._used_at = float("-inf")
        self._troubled = False
        self._task = asyncio.create_task(self._keep(), name=f"keeper of {context.job.namespace}/{context.job.name}")

    def stir(self) -> None:
        """Somebody uses the job."""
        self._used_at = asyncio.get_running_loop().time()
        self._stirred.set()

    async def end(self) -> None:
        """Looks after it no longer, and lets go of it."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self.context.close()

    async def _keep(self) -> None:
        while True:
            pause = await self._round()
            if pause < IDLE_SECONDS:
                await asyncio.sleep(pause)
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stirred.wait()
            self._stirred.clear()

    async def _round(self) -> float:
        """One look; how long to rest after it. Trouble is told when it begins: a suspended job has no store."""
        job = self.context.job
        try:
            publishes = await look(self.context)
            load = await self.context.store.load()
        except Exception as error:  # a batch that cannot be handled must not end the keeping of all
            if not self._troubled:
                known = isinstance(error, OpenseerError)
                log.warning("%s/%s: %s", job.namespace, job.name, error, exc_info=not known)
            self._troubled = True
            return TROUBLE_SECONDS
        self._troubled = False
        if publishes:
            return ROUND_SECONDS / 2
        used = asyncio.get_running_loop().time() - self._used_at < STIRRED_SECONDS
        return ROUND_SECONDS if used or load.running or load.waiting else IDLE_SECONDS
