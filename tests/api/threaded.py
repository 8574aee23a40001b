"""A served job in its own thread, for clients that block."""

import asyncio
import threading
from types import TracebackType

from openseer_core.manifest.job import RolloutJob
from tests.api.served import Served


class ThreadedServer:
    """`with ThreadedServer(job) as server`: runs at `server.url`, with all its workers."""

    def __init__(self, job: RolloutJob) -> None:
        self._job = job
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._ready = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.url = ""

    async def _run(self) -> None:
        self._stop, self._loop = asyncio.Event(), asyncio.get_running_loop()
        async with Served(self._job) as server:
            for index in range(self._job.spec.workers.replicas):
                server.start_worker(index)
            self.url = server.url
            self._ready.set()
            await self._stop.wait()

    def __enter__(self) -> "ThreadedServer":
        self._thread.start()
        assert self._ready.wait(120)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(120)
