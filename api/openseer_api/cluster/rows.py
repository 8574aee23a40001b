"""Reads routed experts of jobs in a cluster from a pod that mounts the job's volume, which the gateway does not."""

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
"""Time for which failed reads are retried, for example while the pod restarts, in seconds; then HTTP 503."""
PAUSE_SECONDS = 0.25
"""Interval between two tries, in seconds."""
CONNECT_SECONDS = 2.0
"""Timeout of a connection, in seconds."""
READ_SECONDS = 10.0
"""Timeout until the next bytes of a response, in seconds: a volume may hang."""
ASKED_AT_ONCE = 4
"""Limit of concurrent results whose rows are read, per job and replica of the gateway; the pod serves eight calls."""


class RowsOfPod:
    """A client of a job's rows pod. `store_url`: URL of the job's store, from which the calls' secret is derived;
    `dial`: resolves a name to allowed addresses, None: all are allowed; `memory`: the process's count for all jobs;
    `port`: of the pod."""

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
        """Closes the connections."""
        await self._session.close()

    async def find(self, result: Result) -> RoutedExperts:
        """Returns the routed experts of a result. Rows that the pod does not find are gaps; if the result would have
        more than MOST_BYTES, all its rows are. Raises RowsUnavailable if the pod fails for WAIT_SECONDS, or if this
        process has no memory left for the rows."""
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
        until, before = time.monotonic() + WAIT_SECONDS, held.bytes
        while True:
            try:
                return unpack_answer(await self._get(path, held), count)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                problem = type(error).__name__  # not the error's text, which may contain the URL with the secret
            except ValueError as error:
                problem = str(error)
            held.give(held.bytes - before)  # the bytes of the failed response
            if time.monotonic() > until:
                raise RowsUnavailable(f"{self._host}, which has the routed experts of this result, failed: {problem}")
            await asyncio.sleep(PAUSE_SECONDS)

    async def _get(self, path: str, held: RowsMemory) -> bytearray:
        """Returns the body of a response. Raises ValueError for an invalid response, and the connection's errors."""
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
                    raise ValueError("its response exceeds the limit of bytes")
        return body


async def _resolve(host: str, port: int) -> tuple[str, ...]:
    return tuple((await resolve_name(host, port))[1])
