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
"""Limit of connections for calls that Redis answers at once; it runs one at a time, so more would only queue there."""
WAITS = 256
"""Limit of connections for commands that wait at the server, separate from CALLS: readers never block a writer."""
ELSEWHERE = re.compile(r"\b(READONLY|MASTERDOWN|CLUSTERDOWN|NOEPOCH)\b")
"""Refusals of a server that is no longer the primary, or has lost its data: only a new connection finds the present
server of that name, and begins an epoch."""
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
    """The error's text, or only its code where redis-py removes the text."""
    return _CODES.get(type(error)) or str(error)


class RedisPool:
    """Runs commands, each on a connection of its own."""

    def __init__(self, make: Callable[[], AbstractConnection]) -> None:
        self._make = make
        self._idle: list[AbstractConnection] = []
        self._calls = asyncio.Semaphore(CALLS)
        self._waits = asyncio.Semaphore(WAITS)
        self._closed = False

    async def call(
        self, parts: Sequence[Any], seconds: float, *, waits: bool = False, check: Callable[[], None] = lambda: None
    ) -> Any:
        """The reply to one command, within `seconds`, including the wait for a connection.

        `waits`: the command waits at the server. `check`: called after connecting; if it raises, nothing
        is sent. Raises redis-py's exceptions, and TimeoutError.
        """
        try:
            async with asyncio.timeout(seconds), self._waits if waits else self._calls:
                return await self._exchange(parts, check)
        except BROKEN:
            # A restarting server closes all connections: finding each dead one would cost one failed call each.
            await self._drop_idle(nowait=True)
            raise

    async def close(self) -> None:
        """Closes all connections, those in use at the end of their call."""
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
            in_order = connection.is_connected  # a refusal is a complete reply
            if ELSEWHERE.search(refusal(error)):
                await self._drop_idle(nowait=True)
            raise
        finally:
            if in_order and not self._closed and idle is self._idle:
                idle.append(connection)
            else:  # a reply may still come, and a later call must not read it
                await connection.disconnect(nowait=True)
        return reply

    async def _drop_idle(self, *, nowait: bool) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait)
