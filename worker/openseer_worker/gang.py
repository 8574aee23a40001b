"""A gang: one worker over several pods, tied together by a link that means "all or none".

Rank 0 leads: it is the worker that the store knows. Each follower keeps one TCP connection to it, from before the
engine is built until the end, and the death of any rank closes it: everybody else then ends too, for an engine that
has lost a part only hangs. Lines of JSON. Follower: {"hello": …} first, later {"drain": true} when it is asked to end,
{"sick": reason} when its GPUs are. Leader: {"go": …} once all are there, or {"refused": why}; {"end": true} after a
drain. A network that is cut shows through TCP's keepalive, which needs no help of a process that is busy.
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
"""Longest wait for all ranks: a node may have to come up first and to pull an image of many gigabytes."""
HELLO_SECONDS = 10.0
"""Longest wait for the first line of a connection, and for a connection to be made."""
RETRY_SECONDS = 0.5
"""Pause between two tries to reach the leader, whose name may not even be known yet."""
LINE_BYTES = 4096
"""Longest line."""
IDLE_SECONDS, PROBE_SECONDS, PROBES = 3, 2, 3
"""Keepalive: first probe after so long a silence, then every so often; so many without answer break the link."""
SILENCE_SECONDS = IDLE_SECONDS + PROBE_SECONDS * PROBES
"""How soon a cut network is noticed at the latest."""


@dataclass(frozen=True, slots=True)
class GangPlace:
    """The position of a rank: `leader` and `host` are the addresses of rank 0 and of its own; `port` is torch's.

    `seed`: drawn by the leader, the same on all ranks, so that they sample alike.
    """

    nodes: int
    rank: int
    leader: str
    host: str
    port: int
    seed: int


class GangLeader:
    """The leader's side: `assemble`, then `broken` is set when a rank is lost."""

    def __init__(self, settings: WorkerSettings, seed: int, on_drain: Callable[[], None]) -> None:
        self._settings = settings
        self._nodes = settings.job.spec.workers.parallelism.nodes
        self._seed = seed
        self._on_drain = on_drain
        self._followers: dict[int, asyncio.StreamWriter] = {}
        self._complete = asyncio.Event()
        self._ending = False
        self.broken: asyncio.Future[EngineError] = asyncio.get_running_loop().create_future()
        """Done, with the reason, once a rank has gone."""
        self.sick = ""
        """Why one of the followers is sick, or ""."""

    async def assemble(self, seconds: float = ASSEMBLE_SECONDS) -> GangPlace:
        """Waits until every rank is there and lets all go on. Raises EngineError when one is missing."""
        port = self._settings.gang_port
        server = await asyncio.start_server(self._serve, port=port + 1, limit=LINE_BYTES)
        try:
            async with asyncio.timeout(seconds):
                await self._complete.wait()
        except TimeoutError:
            missing = [str(rank) for rank in range(1, self._nodes) if rank not in self._followers]
            raise EngineError(
                f"gang of {self._settings.worker.name}: no word from rank {', '.join(missing)} within {seconds:g} s; "
                "look at those pods"
            ) from None
        finally:
            server.close()
        host = _address(self._followers[1], "sockname")
        for follower in self._followers.values():
            _send(follower, {"go": {"seed": self._seed}})
        log.info("the gang of %d is complete", self._nodes)
        return GangPlace(self._nodes, 0, host, host, port, self._seed)

    async def end(self) -> None:
        """Sends all followers the end, and closes their connections."""
        self._ending = True
        for follower in self._followers.values():
            _send(follower, {"end": True})
            await _close(follower)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its hello to its end."""
        _keep_alive(writer)
        rank = self._rank_of(await _receive(reader, HELLO_SECONDS))
        if isinstance(rank, str):
            log.warning("refused %s: %s", _address(writer, "peername"), rank)
            _send(writer, {"refused": rank})
            await _close(writer)
            return
        self._followers[rank] = writer
        log.info("rank %d is there, from %s", rank, _address(writer, "peername"))
        if len(self._followers) == self._nodes - 1:
            self._complete.set()
        drains = False
        while (message := await _receive(reader)) is not None:
            drains = drains or "drain" in message
            self._handle(rank, message)
        # Until all are there, a rank that was asked to end has nothing to wait for.
        excused = self._ending or (drains and not self._complete.is_set())
        if not excused and not self.broken.done():
            self.broken.set_result(EngineError(f"rank {rank} of the gang has gone; look at its pod"))

    def _rank_of(self, message: dict[str, Any] | None) -> int | str:
        """The rank that says hello, or why it is refused."""
        match message:
            case {"hello": {"worker": str(worker), "rank": int(rank)}} if worker == _identity(self._settings):
                if rank in self._followers:
                    return f"rank {rank} is there already"
                return rank if 0 < rank < self._nodes else f"rank {rank} is none of {self._nodes}"
            case {"hello": {"worker": str(worker)}}:
                return f"this is {_identity(self._settings)}, not {worker}"
            case _:
                return "not a hello"

    def _handle(self, rank: int, message: dict[str, Any]) -> None:
        if "sick" in message:
            self.sick = f"rank {rank}: {message['sick']}"
        elif "drain" in message:
            log.info("rank %d asks to drain", rank)
            self._on_drain()


class GangFollower:
    """A follower's side: `join`, then `hold` until the leader ends it."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._link: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def join(self, seconds: float = ASSEMBLE_SECONDS) -> GangPlace | None:
        """Finds the leader and waits until all are there; None when the leader ends it before.

        Raises EngineError when the leader is not found, refuses or breaks off.
        """
        settings = self._settings
        try:
            async with asyncio.timeout(seconds):
                reader, writer = self._link = await self._reach()
                _send(writer, {"hello": {"worker": _identity(settings), "rank": settings.rank}})
                message = await _receive(reader)
        except TimeoutError:
            raise EngineError(f"the gang's leader at {self._where} was not complete within {seconds:g} s") from None
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
        """Returns when the leader ends the gang. Raises EngineError when the link breaks before."""
        assert self._link is not None
        reader, writer = self._link
        message = await _receive(reader)
        writer.close()
        if message is None or "end" not in message:
            raise self._gone()

    def ask_drain(self) -> None:
        """Asks the leader to drain the worker, for this rank is asked to end."""
        if self._link is not None:
            _send(self._link[1], {"drain": True})

    def report_sick(self, reason: str) -> None:
        """Reports that this rank's GPUs are sick."""
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
        return EngineError(f"rank 0 of the gang, at {self._where}, has gone; look at its pod")


def _identity(settings: WorkerSettings) -> str:
    """What ranks of one gang have in common."""
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
    """The next line; None at the end of the link, however it came, and for what is no such line."""
    try:
        async with asyncio.timeout(seconds):
            message: Any = json.loads(await reader.readline())
    except (OSError, TimeoutError, ValueError):
        return None
    return cast("dict[str, Any]", message) if isinstance(message, dict) else None


async def _close(writer: asyncio.StreamWriter) -> None:
    """Closes a link once what was written has left."""
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
