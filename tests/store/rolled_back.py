"""A real Redis that loses its last writes: it is killed and restarted from an older copy of its log."""

import contextlib
import os
import shutil
import signal
from collections.abc import AsyncGenerator
from pathlib import Path

from openseer_store.embedded import EmbeddedRedis


class ForgetfulRedis:
    """Successive servers behind one URL. `save` copies the log; `roll_back` restarts from that copy."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._saved, self._link = folder / "store", folder / "saved", folder / "s"
        self._server: EmbeddedRedis | None = None
        self.url = f"unix://{self._link}/redis.sock"

    async def start(self) -> None:
        """Starts the server from the log in its folder."""
        self._server = EmbeddedRedis(self._folder, "always")  # `save` copies what is written
        url = await self._server.__aenter__()
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(Path(url.removeprefix("unix://")).parent)

    async def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        assert self._server is not None
        assert self._server.pid is not None
        os.kill(self._server.pid, signal.SIGKILL)
        await self._server.__aexit__(None, None, None)
        self._server = None

    def save(self) -> None:
        """Keeps the log as it is now; Redis has written every answered command to it."""
        shutil.rmtree(self._saved, ignore_errors=True)
        shutil.copytree(self._folder, self._saved)

    async def roll_back(self) -> None:
        """Kills the server and starts it from the log that was kept."""
        await self.kill()
        shutil.rmtree(self._folder)
        shutil.copytree(self._saved, self._folder)
        await self.start()


@contextlib.asynccontextmanager
async def forgetful_redis(folder: Path) -> AsyncGenerator[ForgetfulRedis]:
    """A running server, killed at the end."""
    redis = ForgetfulRedis(folder)
    await redis.start()
    try:
        yield redis
    finally:
        await redis.kill()
