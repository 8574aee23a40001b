"""Starts and watches Mooncake's master and store, and restarts both together.

Neither can continue with a new process of the other: a master whose store has been restarted directs readers to freed
memory. So the end of either empties the pool, and contexts are computed again.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from openseer_core.errors import InputError
from openseer_store.embedded import LAUNCHER
from openseer_worker.kv_pool.mooncake.installed import MASTER, STORE, program
from openseer_worker.kv_pool.mooncake.watching import EVICTION_SHARE, usage

PORTS = 3
"""Number of consecutive ports: the master's, its web server's, the store's. The store opens two more, of its choice."""
READY_SECONDS = 30.0
"""Timeout of the start of either process, in seconds."""
POLL_SECONDS = 0.1
"""Interval of checks whether a starting process answers, in seconds."""
LOOK_SECONDS = 1.0
"""Interval of checks whether both processes run, in seconds."""
MOST_MISSES = 4
"""Consecutive checks without an answer, or without a store, after which both are restarted."""
FIRST_BACKOFF_SECONDS = 0.5
MOST_BACKOFF_SECONDS = 30.0
FORGET_SECONDS = 60.0
"""Uptime, in seconds, after which the restart back-off begins at FIRST_BACKOFF_SECONDS again."""
_FIXED_PORTS = range(20_000, 32_700)
"""First ports of servers: above Mooncake's own, and below those of outgoing connections (from 32,768 on in Linux)."""
_FIND_TRIES = 100


class PoolServers:
    """Mooncake's master and store; `async with PoolServers(…) as master` gives HOST:PORT of the master.

    Both end with this process, even by SIGKILL. `host`: the address at which workers reach them; `port`: the first of
    PORTS ports; `most_bytes`: the store's capacity; `logs`: folder of their logs; `on_message`: called with a message
    for people at each restart. Enter the context in the main thread.
    """

    def __init__(self, host: str, port: int, most_bytes: int, logs: Path, on_message: Callable[[str], None]) -> None:
        self._host = host
        self._port = port
        self._most_bytes = most_bytes
        self._logs = logs
        self._on_message = on_message
        self._processes: list[asyncio.subprocess.Process] = []
        self._watching: asyncio.Task[None] | None = None

    @property
    def pids(self) -> list[int]:
        """Process ids of the started master and store."""
        return [process.pid for process in self._processes]

    @property
    def is_up(self) -> bool:
        """Whether both processes run."""
        return len(self._processes) == 2 and all(process.returncode is None for process in self._processes)

    async def __aenter__(self) -> str:
        """Starts both processes. Raises InputError if one does not start."""
        try:
            await self._start()
        except OSError as error:
            raise InputError(f"spec.kvPool.backend: found mooncake, which does not start: {error}") from error
        except BaseException:
            await self._kill()
            raise
        self._watching = asyncio.create_task(self._watch(), name="kv-pool")
        return f"{self._host}:{self._port}"

    async def __aexit__(self, *_: object) -> None:
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self._kill()

    async def _start(self) -> None:
        """Starts both processes. Raises OSError if one does not start, after ending both."""
        host, port = self._host, self._port
        master = [
            *(f"--rpc_address={host}", f"--rpc_port={port}", f"--metrics_host={host}", f"--metrics_port={port + 1}"),
            # client_ttl: seconds after which a silent store is dropped; default_kv_lease_ttl: milliseconds for which a
            # block is kept after a lookup.
            *("--client_ttl=3", "--default_kv_lease_ttl=5000", "--rpc_thread_num=4"),
            *(f"--eviction_high_watermark_ratio={EVICTION_SHARE}", "--eviction_ratio=0.05"),
        ]
        store = [
            *(f"--host={host}", f"--port={port + 2}", f"--master_server_address={host}:{port}", "--threads=4"),
            *("--metadata_server=P2PHANDSHAKE", "--protocol=tcp", f"--global_segment_size={self._most_bytes}"),
        ]
        try:
            await self._launch(MASTER, master)
            await self._until("its master did not answer", lambda _: True)
            await self._launch(STORE, store)
            await self._until("its store did not register", lambda capacity: capacity > 0)
        except BaseException:
            await self._kill()
            raise

    async def _launch(self, name: str, arguments: list[str]) -> None:
        log = os.open(self._log(name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        quiet = ["--logtostderr", "--minloglevel=1"]
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), str(program(name)), *arguments, *quiet),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal must reach only this process, which ends the servers
            )
        finally:
            os.close(log)
        self._processes.append(process)

    async def _until(self, otherwise: str, holds: Callable[[int], bool]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + READY_SECONDS
        while not await self._answers(holds):
            for process, name in zip(self._processes, (MASTER, STORE), strict=False):
                if process.returncode is not None:
                    raise OSError(f"{name} ended with code {process.returncode}: {self._last_line(name)}")
            if loop.time() > end:
                raise OSError(f"{otherwise} within {READY_SECONDS:.0f} s; see {self._logs}")
            await asyncio.sleep(POLL_SECONDS)

    async def _answers(self, holds: Callable[[int], bool]) -> bool:
        try:
            return holds((await asyncio.to_thread(usage, f"{self._host}:{self._port}")).capacity)
        except OSError:
            return False

    async def _watch(self) -> None:
        """Restarts both processes whenever one has ended or does not answer, with a growing back-off."""
        loop = asyncio.get_running_loop()
        backoff, up_since = FIRST_BACKOFF_SECONDS, loop.time()
        while True:
            reason = await self._trouble()
            await self._kill()
            if loop.time() - up_since > FORGET_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            self._on_message(f"the KV pool's {reason}; it restarts, empty, in {backoff:g} s")
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, MOST_BACKOFF_SECONDS)
            try:
                await self._start()
            except (OSError, InputError) as error:
                self._on_message(f"the KV pool does not start: {error}")
            up_since = loop.time()

    async def _trouble(self) -> str:
        """Waits until a process ends or does not answer; returns the reason for the restart."""
        misses = 0
        while True:
            for process, name in zip(self._processes, (MASTER, STORE), strict=False):
                if (code := process.returncode) is not None:
                    return f"{name} ended by {signal.Signals(-code).name}" if code < 0 else f"{name} ended: {code}"
            if not self._processes:
                return "processes do not run"
            misses = 0 if await self._answers(lambda capacity: capacity > 0) else misses + 1
            if misses >= MOST_MISSES:
                return "master or store does not answer"
            ended = [asyncio.create_task(process.wait()) for process in self._processes]
            await asyncio.wait(ended, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.cancel()

    async def _kill(self) -> None:
        """Kills both processes; they have no data that needs a clean end."""
        processes, self._processes = self._processes, []
        for process in processes:
            with suppress(ProcessLookupError):
                process.kill()
        for process in processes:
            await process.wait()

    def _log(self, name: str) -> Path:
        return self._logs / f"{name.replace('_', '-')}.log"

    def _last_line(self, name: str) -> str:
        lines = self._log(name).read_text(errors="replace").splitlines()
        return f"{lines[-1] if lines else ''} (log: {self._log(name)})"


def free_ports(host: str) -> int:
    """Returns the first of PORTS consecutive free ports, outside the kernel's range for outgoing connections.

    Within that range a connection could get the master's port during a restart, and keep it. Raises OSError if no such
    ports are found.
    """
    for _ in range(_FIND_TRIES):
        port = random.choice(_FIXED_PORTS)
        if all(_is_free(host, port + one) for one in range(PORTS)):
            return port
    raise OSError(f"{host}: no {PORTS} ports in a row are free from {_FIXED_PORTS[0]} to {_FIXED_PORTS[-1]}")


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind((host, port))
        except OSError:
            return False
    return True
