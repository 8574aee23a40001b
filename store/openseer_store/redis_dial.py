"""Connections to the very addresses that somebody has found fit, whatever the host's name leads to a moment later."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import Connection

from openseer_store.reply_limit import BoundedReader, ReplyLimit

Dial = Callable[[str, int], Awaitable[tuple[str, ...]]]
"""The addresses to dial for a host and a port, one or more, the one to try first in front."""


CONNECT_SECONDS = 5.0
"""Longest wait for a connection to be made."""


def dialled(kind: type[Connection], dial: Dial, limit: ReplyLimit) -> type[Connection]:
    """Connections of that kind to stores of others, each to an address that `dial` gives; what it raises, `connect`
    raises. No answer is longer than `limit`."""

    class Dialled(kind):
        """The name is resolved once for each connection, and TLS still asks for a certificate of the name."""

        _addresses: tuple[str, ...] = ()
        _address = ""

        async def connect(self) -> None:
            self._addresses = await dial(self.host, self.port)
            await super().connect()

        async def _connect(self) -> None:
            """Each address has its share of the time: one that is dead keeps nobody from the others."""
            *first, last = self._addresses
            share = (self.socket_connect_timeout or CONNECT_SECONDS) / len(self._addresses)
            for address in first:
                with suppress(OSError):
                    return await self._connect_to(address, share)
            return await self._connect_to(last, share)

        async def _connect_to(self, address: str, seconds: float) -> None:
            self._address = address
            async with asyncio.timeout(seconds):
                await super()._connect()
            self._reader: Any = BoundedReader(self._reader, limit)

        async def read_response(self, *arguments: Any, **options: Any) -> Any:
            if isinstance(self._reader, BoundedReader):
                self._reader.begin()
            return await super().read_response(*arguments, **options)

        def _connection_arguments(self) -> dict[str, Any]:
            arguments = {**super()._connection_arguments(), "host": self._address}
            return {**arguments, "server_hostname": self.host.rstrip(".")} if "ssl" in arguments else arguments

    return Dialled
