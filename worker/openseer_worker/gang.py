"""A gang: one worker over several pods, connected so that, when one rank ends, all end.

Rank 0 leads: it acts as the worker towards the store. Each follower holds one TCP connection to rank 0, from before the
build of the engine to its end. The death of a rank closes its connection; the other ranks then end too, because their
collective operations would hang.

Messages are lines of JSON. Follower: {"hello": …} first; later {"drain": true} after SIGTERM, {"sick": reason} when its
GPUs are sick. Leader: {"go": …} once all ranks are connected, or {"refused": reason}; {"end": true} after a drain.
TCP's keepalive detects a cut network, also while a process is busy.
"""

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from openseer_core.errors import EngineError
from openseer_worker.settings import WorkerSettings

log = logging.getLogger(__name__)

ASSEMBLE_SECONDS = 1800.0
"""Timeout for all ranks to connect, in seconds. It is long, because a node may have to start and to pull an image of
many gigabytes."""
HELLO_SECONDS = 10.0
"""Timeout of a connection attempt, and of a connection's first line, in seconds."""
RETRY_SECONDS = 0.5
"""Pause before another attempt to reach the leader, in seconds; its name may not resolve yet."""
LINE_BYTES = 4096
"""Limit of bytes per line."""
IDLE_SECONDS, PROBE_SECONDS, PROBES = 3, 2, 3
"""TCP keepalive: seconds of silence before the first probe, seconds between probes, unanswered probes to give up."""
SILENCE_SECONDS = IDLE_SECONDS + PROBE_SECONDS * PROBES
"""Time until a cut network is detected, in seconds."""


@dataclass(frozen=True, slots=True)
class GangPlace:
    """The position of a rank. `leader`: address of rank 0; `host`: address of this rank; `port`: for the rendezvous of
    torch.distributed.

    `seed`: the leader draws it; it is the same on all ranks, so that all sample the same tokens.
    """

    nodes: int
    rank: int
    leader: str
    host: str
    port: int
    seed: int


class GangLeader:
    """The leader's side: `assemble` connects all ranks; later `broken` is set when a rank is lost."""

    def __init__(self, settings: WorkerSettings, seed: int, on_drain: Callable[[], None]) -> None:
        self._settings = settings
        self._nodes = settings.job.spec.workers.parallelism.nodes
        self._seed = seed
        self._on_drain = on_drain
        self._followers: dict[int, asyncio.StreamWriter] = {}
        self._complete = asyncio.Event()
        self._ending = False
        self.broken: asyncio.Future[EngineError] = asyncio.get_running_loop().create_future()
        """Receives the error when a rank is lost."""
        self.sick = ""
        """The rank and the reason of a follower whose GPUs are sick, or ""."""

    async def assemble(self, seconds: float = ASSEMBLE_SECONDS) -> GangPlace:
        """Waits until every rank is connected, and starts all of them. Raises EngineError when a rank is missing."""
        port = self._settings.gang_port
        server = await asyncio.start_server(self._serve, port=port + 1, limit=LINE_BYTES)
        try:
            async with asyncio.timeout(seconds):
                await self._complete.wait()
        except TimeoutError:
            missing = [str(rank) for rank in range(1, self._nodes) if rank not in self._followers]
            raise EngineError(
                f"gang of {self._settings.worker.name}: no connection from rank {', '.join(missing)} within "
                f"{seconds:g} s; see those pods"
            ) from None
        finally:
            server.close()
        host = _address(self._followers[1], "sockname")
        for follower in self._followers.values():
            _send(follower, {"go": {"seed": self._seed}})
        log.info("the gang of %d is complete", self._nodes)
        return GangPlace(self._nodes, 0, host, host, port, self._seed)

    async def end(self) -> None:
        """Sends {"end": true} to all followers, and closes their connections."""
        self._ending = True
        for follower in self._followers.values():
            _send(follower, {"end": True})
            await _close(follower)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection, from its hello to its end."""
        _keep_alive(writer)
        rank = self._rank_of(await _receive(reader, HELLO_SECONDS))
        if isinstance(rank, str):
            log.warning("refused %s: %s", _address(writer, "peername"), rank)
            _send(writer, {"refused": rank})
            await _close(writer)
            return
        self._followers[rank] = writer
        log.info("rank %d connected, from %s", rank, _address(writer, "peername"))
        if len(self._followers) == self._nodes - 1:
            self._complete.set()
        drains = False
        while (message := await _receive(reader)) is not None:
            drains = drains or "drain" in message
            self._handle(rank, message)
        # Until all ranks are connected, a rank that has requested a drain may disconnect without an error.
        excused = self._ending or (drains and not self._complete.is_set())
        if not excused and not self.broken.done():
            self.broken.set_result(EngineError(f"rank {rank} of the gang has ended; see its pod"))

    def _rank_of(self, message: dict[str, Any] | None) -> int | str:
        """The rank in a hello, or the reason to refuse it."""
        match message:
            case {"hello": {"worker": str(worker), "rank": int(rank)}} if worker == _identity(self._settings):
                if rank in self._followers:
                    return f"rank {rank} is connected already"
                return rank if 0 < rank < self._nodes else f"rank {rank} is none of {self._nodes}"
            case {"hello": {"worker": str(worker)}}:
                return f"this is {_identity(self._settings)}, not {worker}"
            case _:
                return "not a hello"

    def _handle(self, rank: int, message: dict[str, Any]) -> None:
        if "sick" in message:
            self.sick = f"rank {rank}: {message['sick']}"
        elif "drain" in message:
            log.info("rank %d requests a drain", rank)
            self._on_drain()


class GangFollower:
    """A follower's side: `join`, then `hold` until the leader ends it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def join(self, seconds: float = ASSEMBLE_SECONDS) -> GangPlace | None:
        """Connects to the leader and waits until all ranks are connected; None when the leader ends before that.

        Raises EngineError when the leader does not answer in time, refuses or closes the connection.
        """
        settings = self._settings
        try:
            async with asyncio.timeout(seconds):
                reader, writer = self._link = await self._reach()
                _send(writer, {"hello": {"worker": _identity(settings), "rank": settings.rank}})
                message = await _receive(reader)
        except TimeoutError:
            raise EngineError(f"the gang of {self._where} was not complete within {seconds:g} s") from None
        match message:
            case {"go": {"seed": int(seed)}}:
                nodes = settings.job.spec.workers.parallelism.nodes
                leader, host = _address(writer, "peername"), _address(writer, "sockname")
                return GangPlace(nodes, settings.rank, leader, host, settings.gang_port, seed)
            case {"refused": str(why)}:
                raise EngineError(f"the gang's leader at {self._where} refused: {why}")
            case {"end": True}:
                return None
            case _:
                raise self._gone()

    async def hold(self) -> None:
        """Returns when the leader ends the gang. Raises EngineError when the connection breaks before that."""
        assert self._link is not None
        reader, writer = self._link
        message = await _receive(reader)
        writer.close()
        if message is None or "end" not in message:
            raise self._gone()

    def ask_drain(self) -> None:
        """Requests a drain of the whole worker from the leader, because this rank must end."""
        if self._link is not None:
            _send(self._link[1], {"drain": True})

    def report_sick(self, reason: str) -> None:
        """Reports this rank's sick GPUs to the leader."""
        if self._link is not None:
            _send(self._link[1], {"sick": reason})

    @property
    def _where(self) -> str:
        return f"{self._settings.leader}:{self._settings.gang_port + 1}"

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(HELLO_SECONDS):
                    reader, writer = await asyncio.open_connection(
                        self._settings.leader, self._settings.gang_port + 1, limit=LINE_BYTES
                    )
                _keep_alive(writer)
                return reader, writer
            await asyncio.sleep(RETRY_SECONDS)

    def _gone(self) -> EngineError:
        return EngineError(f"rank 0 of the gang, at {self._where}, has ended; see its pod")


def _identity(settings: WorkerSettings) -> str:
    """The name of a gang, the same on all its ranks."""
    return f"{settings.job.namespace}/{settings.job.name}/{settings.worker.name}"


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    link: socket.socket = writer.get_extra_info("socket")
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, IDLE_SECONDS)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENCE_SECONDS * 1000)


def _address(writer: asyncio.StreamWriter, end: str) -> str:
    return str(writer.get_extra_info(end)[0])


def _send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


async def _receive(reader: asyncio.StreamReader, seconds: float | None = None) -> dict[str, Any] | None:
    """The next message; None at the end of the connection, after `seconds`, or for a line that is no message."""
    try:
        async with asyncio.timeout(seconds):
            message: Any = json.loads(await reader.readline())
    except (OSError, TimeoutError, ValueError):
        return None
    return cast("dict[str, Any]", message) if isinstance(message, dict) else None


async def _close(writer: asyncio.StreamWriter) -> None:
    """Closes a connection after sending its buffered lines."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
