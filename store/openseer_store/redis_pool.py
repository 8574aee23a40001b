"""Connections to one Redis: a bounded number, each kept for later calls until the first of them breaks."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any

import redis.exceptions
from redis.asyncio.connection import AbstractConnection

CALLS = 32
"""Most connections for calls that Redis answers at once; it carries out one at a time, more would only queue there."""
WAITS = 256
"""Most connections for commands that wait at the server, apart from those: readers never keep a writer waiting."""
ELSEWHERE = re.compile(r"\b(READONLY|MASTERDOWN|CLUSTERDOWN|NOEPOCH)\b")
"""How a server refuses that is not the primary any more, or has lost its data: only a new connection tells where its
name leads now, and begins an epoch."""
BROKEN = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError, TimeoutError)
"""What a call raises whose connection is gone."""
_CODES: dict[type[Exception], str] = {
    redis.exceptions.ReadOnlyError: "READONLY",
    redis.exceptions.OutOfMemoryError: "OOM",
    redis.exceptions.MasterDownError: "MASTERDOWN",
    redis.exceptions.ClusterDownError: "CLUSTERDOWN",
    redis.exceptions.BusyLoadingError: "LOADING",
}


def refusal(error: Exception) -> str:
    """The error's text, or only its code where redis-py takes it off."""
    return _CODES.get(type(error)) or str(error)


class RedisPool:
    """Runs commands, each on a connection of its own for as long as it takes."""

    def __init__(self, make: Callable[[], AbstractConnection]) -> None:
        self._make = make
        self._idle: list[AbstractConnection] = []
        self._calls = asyncio.Semaphore(CALLS)
        self._waits = asyncio.Semaphore(WAITS)
        self._closed = False

    async def call(
        self, parts: Sequence[Any], seconds: float, *, waits: bool = False, check: Callable[[], None] = lambda: None
    ) -> Any:
        """The reply to one command, within `seconds`, the wait for a connection included.

        `waits`: the command waits at the server. `check`: called once the connection is there; where it raises, nothing
        is sent. Raises what redis-py raises, and TimeoutError.
        """
        try:
            async with asyncio.timeout(seconds), self._waits if waits else self._calls:
                return await self._exchange(parts, check)
        except BROKEN:
            # A server that restarts ends all connections: to find each one dead would cost a failed call each.
            await self._drop_idle(nowait=True)
            raise

    async def close(self) -> None:
        """Closes all connections, those in use once their call ends."""
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
            in_order = connection.is_connected  # a refusal is an answer like any other
            if ELSEWHERE.search(refusal(error)):
                await self._drop_idle(nowait=True)
            raise
        finally:
            if in_order and not self._closed and idle is self._idle:
                idle.append(connection)
            else:  # an answer may still come; no later call must read it
                await connection.disconnect(nowait=True)
        return reply

    async def _drop_idle(self, *, nowait: bool) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.disconnect(nowait)
