"""Routed experts of jobs in a cluster: the gateway mounts no job's volume, and asks the pod of the job's that does."""

import asyncio
import time
from http import HTTPStatus

import aiohttp

from openseer_api.cluster.rows_memory import JOB_BYTES, RowsMemory
from openseer_api.job.rows import RowsUnavailable
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.messages import Result
from openseer_process.store_hosts import Dialler, resolve_name
from openseer_store.routed.asking import (
    LONGEST_ANSWER,
    MOST_BYTES,
    MOST_FILES,
    ROWS_PORT,
    RowsSecret,
    rows_name,
    unpack_answer,
)
from openseer_store.routed.assembly import RoutedExperts, put_together, row_files, rows_bytes

WAIT_SECONDS = 10.0
"""How long a pod that does not answer, being made anew for example, is asked again before it is 503."""
PAUSE_SECONDS = 0.25
CONNECT_SECONDS = 2.0
"""Longest wait for a connection."""
READ_SECONDS = 10.0
"""Longest wait for its next bytes: a volume may hang."""
ASKED_AT_ONCE = 4
"""Questions of one job and replica; the pod answers eight."""


class RowsOfPod:
    """Asks the rows' pod of a job. `store_url`: of the job's store; `dial`: to which addresses names may lead, None:
    to all; `memory`: of the process, for all jobs; `port`: of the pod."""

    def __init__(
        self, job: RolloutJob, store_url: str, dial: Dialler | None, memory: RowsMemory, port: int = ROWS_PORT
    ) -> None:
        self._host = f"{rows_name(job.name)}.{job.namespace}.svc"
        self._secret = RowsSecret(store_url)
        self._dial = dial or _resolve
        self._port = port
        self._memory = RowsMemory(JOB_BYTES, memory)
        self._gate = asyncio.Semaphore(ASKED_AT_ONCE)
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        self._session = aiohttp.ClientSession(timeout=limits)

    async def close(self) -> None:
        """Nothing is asked any more."""
        await self._session.close()

    async def find(self, result: Result) -> RoutedExperts:
        """What the pod does not find is a gap; so are all rows where they would have more than MOST_BYTES. Raises
        RowsUnavailable where it does not answer, or this process has no memory left for them."""
        files = list(row_files(result))
        contents: list[memoryview] = []
        async with self._gate:
            with self._memory.part() as held:
                for first in range(0, len(files), MOST_FILES):
                    names = [file.name for file in files[first : first + MOST_FILES]]
                    path = self._secret.ask(result.request.group, names)
                    contents += await self._ask(path, len(names), held)
                size = await asyncio.to_thread(rows_bytes, result, files, contents)
                if size > MOST_BYTES:
                    contents, size = [memoryview(b"")] * len(files), 0
                await held.take(size)
                found = await asyncio.to_thread(put_together, result, files, contents)
        self._memory.keep(found)
        return found

    async def _ask(self, path: str, count: int, held: RowsMemory) -> list[memoryview]:
        until = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return unpack_answer(await self._get(path, held), count)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                problem = type(error).__name__  # no more of it: a URL holds the secret
            except ValueError as error:
                problem = str(error)
            if time.monotonic() > until:
                raise RowsUnavailable(f"{self._host}, which has the routed experts of this result, fails: {problem}")
            await asyncio.sleep(PAUSE_SECONDS)

    async def _get(self, path: str, held: RowsMemory) -> bytearray:
        """The body of an answer. Raises ValueError for one that is none, and what the connection raises."""
        address = (await self._dial(self._host, self._port))[0]
        host = f"[{address}]" if ":" in address else address
        async with self._session.get(f"http://{host}:{self._port}{path}", allow_redirects=False) as response:
            if response.status != HTTPStatus.OK:
                raise ValueError(f"it answered {response.status}")
            body = bytearray()
            async for part in response.content.iter_any():
                await held.take(len(part))
                body += part
                if len(body) > LONGEST_ANSWER:
                    raise ValueError("it sent more than an answer")
        return body


async def _resolve(host: str, port: int) -> tuple[str, ...]:
    return tuple((await resolve_name(host, port))[1])
