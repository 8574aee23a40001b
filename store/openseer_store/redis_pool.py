"""Connections to one Redis: a bounded number, each reused until one of them breaks."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions
from redis.asyncio.connection import AbstractConnection

CALLS = 32
"""Limit of connections for commands that do not wait. Redis runs one command at a time, so further ones would only
queue at the server."""
WAITS = 256
"""Limit of connections for commands that wait at the server. It is separate from CALLS, so that waiting readers never
block a writer."""
ELSEWHERE = re.compile(r"\b(READONLY|MASTERDOWN|CLUSTERDOWN|NOEPOCH)\b")
"""Error codes of a server that is no longer the primary, or has lost its data. The idle connections are closed then: a
new connection resolves the name again, and begins an epoch if there is none."""
BROKEN = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError, TimeoutError)
"""Exceptions of a call whose connection is broken."""
_CODES: dict[type[Exception], str] = {
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.BusyLoadingError: "LOADING",
}


def refusal(error: Exception) -> str:
    """The text of the server's error, or its code if redis-py has removed the text."""
    return _CODES.get(type(error)) or str(error)


class RedisPool:
    """Runs commands; no two of them share a connection at the same time."""

    def __init__(self, make: Callable[[], AbstractConnection]) -> None:
        self._make = make
        self._idle: list[AbstractConnection] = []
        self._calls = asyncio.Semaphore(CALLS)
        self._waits = asyncio.Semaphore(WAITS)
        self._closed = False

    async def call(
        self, parts: Sequence[Any], seconds: float, *, waits: bool = False, check: Callable[[], None] = lambda: None
    ) -> Any:
        """Runs one command and returns its reply, within `seconds`, including the wait for a connection.

        `waits`: the command waits at the server. `check`: called after connecting; if it raises an exception, nothing
        is sent. Raises redis-py's exceptions, and TimeoutError.
        """
        try:
            async with asyncio.timeout(seconds), self._waits if waits else self._calls:
                return await self._exchange(parts, check)
        except BROKEN:
            # A restarting server closes all connections. Dropping them all now saves one failed call for each.
            await self._drop_idle(nowait=True)
            raise

    async def close(self) -> None:
        """Closes all connections; one in use is closed at the end of its call."""
        self._closed = True
        await self._drop_idle(nowait=False)

    async def _exchange(self, parts: Sequence[Any], check: Callable[[], None]) -> Any:
        idle = self._idle
        connection = idle.pop() if idle else self._make()
        in_order = False
        try:
            if not connection.is_connected:
                await connection.connect()
            in_order = True
            check()
            in_order = False
            await connection.send_command(*parts, check_health=False)
            reply: Any = await connection.read_response(disable_decoding=True)
            in_order = True
        except redis.exceptions.ResponseError as error:
            in_order = connection.is_connected  # an error is a complete reply
            if ELSEWHERE.search(refusal(error)):
                await self._drop_idle(nowait=True)
            raise
        finally:
            if in_order and not self._closed and idle is self._idle:
                idle.append(connection)
            else:  # its reply may still arrive, and a later call must not read it
                await connection.disconnect(nowait=True)
        return reply

    async def _drop_idle(self, *, nowait: bool) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait)
