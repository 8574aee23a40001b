"""A Redis of the harness, which can be killed, stopped, and restarted from an earlier state of its log."""

# redis comes without complete types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
import asyncio
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from openseer_store.embedded import LAUNCHER, find_server

SAMPLE_SECONDS = 0.05
"""Seconds between two samples of the log's size."""
KEPT_SAMPLES = 200
START_SECONDS = 120.0
COMMAND_SECONDS = 30.0


class RedisServer:
    """One store on `socket`, with its log in `folder`. Operations on its process run one after the other."""

    def __init__(self, folder: Path, socket: Path) -> None:
        self.folder = folder
        self.socket = socket
        self.cuts: list[int] = []
        """Bytes of the log that each cut has removed."""
        self._process: subprocess.Popen[bytes] | None = None
        self._sizes: deque[tuple[float, int]] = deque(maxlen=KEPT_SAMPLES)
        self._busy = asyncio.Lock()
        self._clock_file = folder.parent / "clock"
        self._clock_file.write_bytes(struct.pack("q", 0))
        self._clock_library = _clock_library(folder.parent)
        self._stepped = 0.0

    @property
    def has_clock(self) -> bool:
        """Whether its clock can be stepped here (this needs a C compiler)."""
        return self._clock_library is not None

    async def start(self) -> None:
        """Starts the server; returns once it has loaded its log."""
        self.folder.mkdir(exist_ok=True)
        self.socket.unlink(missing_ok=True)
        arguments = [
            *("--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder), "--save", ""),
            *("--logfile", "redis.log", "--appendonly", "yes", "--appendfsync", "everysec"),
            *("--auto-aof-rewrite-percentage", "0", "--aof-load-truncated", "yes"),
        ]
        environment = dict(os.environ)
        if self._clock_library is not None:
            environment |= {"LD_PRELOAD": str(self._clock_library), "PLAYED_CLOCK": str(self._clock_file)}
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(find_server()), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        end = time.monotonic() + START_SECONDS
        while not await self._answers():
            assert time.monotonic() < end, f"redis did not start: {self.log()}"
            if self._process.poll() is not None:
                raise AssertionError(f"redis ended with {self._process.returncode}: {self.log()}")
            await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Kills the server without a restart."""
        async with self._busy:
            self._kill()

    async def watch(self) -> None:
        """Never returns: follows the size of the log."""
        while True:
            log = self._aof()
            self._sizes.append((time.monotonic(), log.stat().st_size if log.exists() else 0))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def restart(self, away: float) -> None:
        """Kills the server (SIGKILL) and starts it again on the same log after `away` seconds."""
        async with self._busy:
            self._kill()
            await asyncio.sleep(away)
            await self.start()

    async def cut(self, seconds: float, away: float) -> None:
        """Kills the server and restarts it on its log as of `seconds` earlier, cut at any byte."""
        async with self._busy:
            self._kill()
            now, log = time.monotonic(), self._aof()
            size = log.stat().st_size
            kept = next((size for at, size in reversed(self._sizes) if at <= now - seconds), size)
            os.truncate(log, min(kept, size))
            self._sizes.clear()
            self.cuts.append(size - min(kept, size))
            await asyncio.sleep(away)
            await self.start()

    async def pause(self, seconds: float) -> None:
        """Stops the process for `seconds`."""
        process = self._process
        assert process is not None
        await pause(process, seconds)

    async def fill_memory(self, seconds: float) -> None:
        """Lets the server refuse every write that needs memory, for `seconds` or until its next start."""
        if await self._told("CONFIG", "SET", "maxmemory", "1") is not None:
            await asyncio.sleep(seconds)
            await self._told("CONFIG", "SET", "maxmemory", "0")

    def step_clock(self, seconds: float) -> None:
        """Sets the server's wall clock forward or back."""
        self._stepped += seconds
        with self._clock_file.open("r+b") as file:
            file.write(struct.pack("q", round(self._stepped * 1e6)))

    def log(self) -> str:
        """The last lines of the server's log."""
        file = self.folder / "redis.log"
        return "\n".join(file.read_text(errors="replace").splitlines()[-5:]) if file.exists() else "no log"

    def alive(self) -> bool:
        """Whether its process runs or is being started."""
        return self._busy.locked() or (self._process is not None and self._process.poll() is None)

    async def keys(self, pattern: str) -> dict[str, int]:
        """Keys with the seconds until their expiry (-1: none)."""
        async with self._client() as client:
            names: list[Any] = await client.keys(pattern)
            return {name.decode(): await client.ttl(name) for name in sorted(names)}

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _aof(self) -> Path:
        pieces = sorted(self.folder.glob("appendonlydir/*.incr.aof"), key=lambda path: int(path.name.split(".")[-3]))
        return pieces[-1] if pieces else self.folder / "appendonly.aof"

    def _client(self) -> Redis:
        return Redis(unix_socket_path=str(self.socket), socket_timeout=COMMAND_SECONDS)

    async def _told(self, *words: str) -> object | None:
        """The reply to a command; None if there is none."""
        try:
            async with self._client() as client:
                return await client.execute_command(*words)
        except (RedisError, OSError):
            return None

    async def _answers(self) -> bool:
        return self.socket.exists() and await self._told("PING") is not None


async def pause(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Sends SIGSTOP, and SIGCONT after `seconds`."""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            process.send_signal(signal.SIGCONT)


def _clock_library(folder: Path) -> Path | None:
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "played_clock.so"
    source = Path(__file__).with_name("played_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library
