"""A follower of a gang: joins its leader, runs its part of the engine, and ends when the leader or this part ends."""

import asyncio
import logging
from typing import TYPE_CHECKING

from openseer_core.errors import EngineError
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_process.termination import report
from openseer_worker.engine_factory import build_rank, gpus_of_engine, warm_up
from openseer_worker.gang import GangFollower, GangPlace
from openseer_worker.hardware.sickness import sick
from openseer_worker.hardware.telemetry import Telemetry
from openseer_worker.health import Health
from openseer_worker.loop import HEARTBEAT_SECONDS
from openseer_worker.settings import WorkerSettings
from openseer_worker.startup import all_or_stop, end_at_once, in_thread

if TYPE_CHECKING:
    from openseer_worker.vllm.gang import VllmRank

log = logging.getLogger(__name__)


async def follow(settings: WorkerSettings, health: Health, stop: asyncio.Event) -> None:
    """Runs one follower until the leader ends it. Raises EngineError, InputError.

    `stop` requests a drain of the whole worker, because the other ranks cannot continue without this one. When the
    leader is lost the process ends at once, without cleanup, because collective operations of the other ranks hang.
    """
    link = GangFollower(settings)
    joining = asyncio.create_task(link.join())
    warming = asyncio.create_task(in_thread(lambda: warm_up(settings.job)))
    if not await all_or_stop(stop, joining, warming):
        link.ask_drain()
        log.info("ended before the gang was complete")
        return
    place = joining.result()
    if place is None:
        log.info("the leader ended before the gang was complete")
        return
    share = _Share(settings, health, link)
    tasks = [asyncio.create_task(work) for work in (_ask_drain(stop, link), health.tick(), share.watch())]
    computing = asyncio.create_task(share.compute(place))
    holding = asyncio.create_task(link.hold())
    try:
        await asyncio.wait({computing, holding}, return_when=asyncio.FIRST_COMPLETED)
        if not holding.done():
            computing.result()
        try:
            holding.result()
        except EngineError as error:
            end_at_once(report(error))
        await share.close()
    finally:
        for task in (*tasks, computing, holding):
            task.cancel()
    log.info("%s rank %d drained", settings.worker, settings.rank)


async def _ask_drain(stop: asyncio.Event, link: GangFollower) -> None:
    await stop.wait()
    link.ask_drain()


class _Share:
    """This rank's processes and GPUs of the engine."""

    def __init__(self, settings: WorkerSettings, health: Health, link: GangFollower) -> None:
        self._settings = settings
        self._health = health
        self._link = link
        self._rank: VllmRank | None = None
        self._built = asyncio.Event()
        self._heartbeat = Heartbeat(WorkerState.STARTING)

    async def compute(self, place: GangPlace) -> None:
        """Builds this rank's part, and raises EngineError when the part ends; never returns for a scripted engine."""
        rank = self._rank = await in_thread(lambda: build_rank(self._settings, place))
        self._built.set()
        log.info("%s rank %d ready on %s", self._settings.worker, self._settings.rank, place.host)
        self._health.serve(lambda: True, lambda: self._heartbeat)
        if rank is None:
            await asyncio.Event().wait()
            return
        await in_thread(rank.wait)
        raise EngineError(f"the engine's process on rank {self._settings.rank} ended; see this pod's log")

    async def watch(self) -> None:
        """Reads the GPUs every HEARTBEAT_SECONDS after the build, and reports sick GPUs to the leader, once."""
        await self._built.wait()
        telemetry, reported = Telemetry(most=gpus_of_engine(self._settings)), False
        while True:
            readings = telemetry()
            self._heartbeat = Heartbeat(WorkerState.FOLLOWING, readings)
            illness = sick(readings)
            if illness and not reported:
                log.error("the GPU is sick: %s", illness)
                self._link.report_sick(f"{self._settings.node} {illness}".strip())
                reported = True
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def close(self) -> None:
        """Ends this rank's processes."""
        if self._rank is not None:
            await asyncio.to_thread(self._rank.close)
