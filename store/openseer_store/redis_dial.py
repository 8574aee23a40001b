"""Connections only to checked addresses: a second lookup of the host's name may return others (DNS rebinding)."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from redis.asyncio.connection import Connection

from openseer_store.reply_limit import BoundedReader, ReplyLimit

Dial = Callable[[str, int], Awaitable[tuple[str, ...]]]
"""Returns one or more addresses for a host and a port, in the order of preference."""


CONNECT_SECONDS = 5.0
"""Timeout of a new connection, in seconds."""


def dialled(kind: type[Connection], dial: Dial, limit: ReplyLimit) -> type[Connection]:
    """A class of connections to untrusted stores, each to an address that `dial` returns. `connect` passes on the
    exceptions of `dial`. No reply may be longer than `limit`."""

    class Dialled(kind):
        """Resolves the name once per connection; TLS still checks the certificate for the name."""

        _addresses: tuple[str, ...] = ()
        _address = ""

        async def connect(self) -> None:
            self._addresses = await dial(self.host, self.port)
            await super().connect()

        async def _connect(self) -> None:
            """Tries each address for an equal share of the timeout, so that an unreachable one leaves time for the
            others."""
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
