"""A proxy to the store that loses replies: the store executes the command, then the connection is cut."""

import asyncio
from pathlib import Path

_PIECE = 1 << 16


class LossyProxy:
    """`async with LossyProxy(front, back) as proxy`: clients connect to `front`; `lose`: replies still to lose."""

    def __init__(self, front: Path, back: Path) -> None:
        self.lose = 0
        self.lost = 0
        self._front = front
        self._back = back
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> "LossyProxy":
        self._server = await asyncio.start_unix_server(self._accept, self._front)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_unix_connection(self._back)
        except OSError:
            writer.close()
            return
        ways = [
            asyncio.create_task(self._pump(reader, back_writer, replies=False)),
            asyncio.create_task(self._pump(back_reader, writer, replies=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.close()
            back_writer.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        try:
            while data := await reader.read(_PIECE):
                if replies and self.lose > 0:
                    self.lose -= 1
                    self.lost += 1
                    return
                writer.write(data)
                await writer.drain()
        except OSError:
            return
