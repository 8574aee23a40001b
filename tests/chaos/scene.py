"""The processes of a run, and the faults that strike them.

Redis, workers and driver or API are real; killed processes are restarted as by an operator.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

from openseer_core.errors import StoreError
from openseer_core.manifest.job import RolloutJob
from openseer_core.queue.states import Event
from openseer_store.connect import open_store
from openseer_store.port import Store
from tests.chaos import full_disk
from tests.chaos.faulty_pool import FaultyPool
from tests.chaos.members import Member, Members
from tests.chaos.proxy import LossyProxy
from tests.chaos.redis_server import RedisServer
from tests.chaos.schedule import Fault, Mode
from tests.chaos.verdict import Taken, Verdict, check_ends
from tests.chaos.workload import JOB, LEASE_SECONDS, EngineName, write_job

AWAY_SECONDS = 0.3
"""Downtime of a killed store, in seconds."""
STUCK_SECONDS = 120.0
"""Longest time without progress after the last fault, in seconds; beyond it a run has lost data on any machine."""
START_SECONDS = 600.0
"""Longest wait for real engines on a busy machine, in seconds."""
CALM_SECONDS = 2 * LEASE_SECONDS
"""Least time between a measured recovery and any fault of the store, in seconds."""
Progress = Callable[[], int]


class Scene:
    """The processes of one run, and the faults that struck them."""

    def __init__(
        self, folder: Path, verdict: Verdict, server: RedisServer, proxy: LossyProxy, disk: Path, job: RolloutJob
    ) -> None:
        self.folder = folder
        self.job = job
        self.verdict = verdict
        self.server = server
        self.proxy = proxy
        self.disk = disk
        self.url = f"unix://{folder / 'front.sock'}"
        self.members = Members()
        self.boots: dict[str, list[str]] = {}
        """Boots of each worker, in order: all but the last one are dead."""
        self.deaths: list[tuple[str, float, float]] = []
        """name#boot of a killed worker, the store's time then, and the monotonic time."""
        self.store_faults: list[float] = []
        self.store: Store
        self.pool: FaultyPool | None = None
        self._fetched: dict[str, int] = {}
        self._left = False

    def start_workers(self) -> None:
        """Starts the workers of the job."""
        module = ["-m", "openseer_worker.main" if self.pool is None else "tests.chaos.eager_worker"]
        pool = [] if self.pool is None else ["--kv-pool", self.pool.master]
        for index in range(self.job.spec.workers.replicas):
            command = [*module, "--job", str(self.folder / "job.json"), "--store", self.url, *pool]
            self.members.add(Member(f"worker-{index}", [*command, "--index", str(index)], self.folder))

    async def until_workers_are_there(self) -> None:
        """Waits for all real engines: each takes a minute to start, and the first would do most of the work alone."""
        async with asyncio.timeout(START_SECONDS):
            while self.job.spec.model.engine != "scripted" and len(self.boots) < self.job.spec.workers.replicas:
                assert not any(member.done for member in self.members.all.values()), self.members.ends
                await asyncio.sleep(0.1)

    def add_head(self, command: list[str], name: str = "head") -> Member:
        """Starts the driver or a replica of the API; faults strike the process named head."""
        return self.members.add(Member(name, command, self.folder))

    def note_recoveries(self, taken: Iterable[Taken]) -> None:
        """Records the recoveries: seconds from a worker's death to the reap of its requests, by the store's time."""
        reaped = dict[str, float]()
        for chunk in (chunk for result in taken for chunk in result.chunks if chunk.event == Event.REAP):
            reaped[chunk.worker] = max(chunk.ended_at, reaped.get(chunk.worker, 0.0))
        calm = ((worker, at) for worker, at, moment in self.deaths if self._is_calm(moment))
        recoveries = (reaped[worker] - at for worker, at in calm if worker in reaped)
        self.verdict.recoveries = sorted(round(seconds, 2) for seconds in recoveries)

    async def note_boots(self) -> None:
        """Records the boots of each worker, until the fleet leaves."""
        while not self._left:
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(1.0):
                    for status in await self.store.workers():
                        boots = self.boots.setdefault(status.name, [])
                        if status.boot not in boots:
                            boots.append(status.boot)
                        self._fetched[status.boot] = status.heartbeat.metrics.contexts.fetched
                    self.verdict.fetched = sum(self._fetched.values())
            await asyncio.sleep(0.2)

    @property
    def dead(self) -> set[str]:
        """name#boot of every worker that was killed."""
        return {f"{name}#{boot}" for name, boots in self.boots.items() for boot in boots[:-1]}

    async def carry_out(self, fault: Fault) -> None:
        """Applies one fault until its end."""
        why_not = self._why_not(fault)
        self.verdict.note(fault, why_not)
        if why_not:
            return
        if fault.target.startswith("pool"):
            assert self.pool is not None
            await self.pool.strike(fault)
            return
        if fault.target != "store":
            await self._strike(self.members.all[fault.target], fault)
            return
        self.store_faults.append(time.monotonic())
        await self._strike_store(fault)
        self.store_faults.append(time.monotonic())

    async def _strike(self, member: Member, fault: Fault) -> None:
        if fault.kind == "kill":
            await self._kill(member)
        else:
            await member.pause(fault.amount)

    async def _strike_store(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                await self.server.restart(AWAY_SECONDS)
            case "pause":
                await self.server.pause(fault.amount)
            case "cut":
                await self.server.cut(fault.amount, AWAY_SECONDS)
            case "replies":
                self.proxy.lose += round(fault.amount)
            case "memory":
                await self.server.fill_memory(fault.amount)
            case "clock":
                self.server.step_clock(fault.amount)
            case "disk":
                full_disk.fill(self.disk)
                await asyncio.sleep(fault.amount)
                full_disk.free(self.disk)
            case kind:
                raise AssertionError(f"{kind} strikes no store")

    def _why_not(self, fault: Fault) -> str:
        if fault.target.startswith("pool"):
            return "there is no pool" if self.pool is None else self.pool.why_not()
        if fault.kind == "disk" and not self.disk.is_mount():
            return full_disk.why_not()
        return "no C compiler for a clock that steps" if fault.kind == "clock" and not self.server.has_clock else ""

    async def _kill(self, member: Member) -> None:
        boots = self.boots.get(member.name, [])
        member.kill()
        moment = time.monotonic()
        if boots and self._is_calm(moment):
            with suppress(StoreError, TimeoutError):
                async with asyncio.timeout(0.5):
                    self.deaths.append((f"{member.name}#{boots[-1]}", await self.store.now(), moment))

    def _is_calm(self, moment: float) -> bool:
        return all(abs(moment - at) > CALM_SECONDS for at in self.store_faults)

    async def play(self, faults: list[Fault], ended: Callable[[], bool], progress: Progress) -> None:
        """Applies each fault at its time; returns when the run has ended or makes no progress."""
        while not await self._has_begun() and not ended():
            await asyncio.sleep(0.1)
        started, tasks = time.monotonic(), list[asyncio.Task[None]]()
        for fault in faults:
            while not ended() and time.monotonic() - started < fault.at:
                await asyncio.sleep(0.02)
            if ended():
                break
            tasks.append(asyncio.create_task(self.carry_out(fault)))
        await asyncio.gather(*tasks)
        seen, moved = progress(), time.monotonic()
        while not ended():
            await asyncio.sleep(0.1)
            if progress() != seen:
                seen, moved = progress(), time.monotonic()
            if time.monotonic() - moved > STUCK_SECONDS:
                self.verdict.add("comes to its end", f"no progress for {STUCK_SECONDS:.0f} s at {seen} results")
                break
        self.verdict.makespan_seconds = round(time.monotonic() - started, 1)

    async def _has_begun(self) -> bool:
        """Whether requests run, so that faults can strike them; with a pool, whether contexts were fetched from it."""
        if self.job.spec.model.engine == "scripted":
            return True
        if self.pool is not None:
            return self.verdict.fetched > 0
        return (await self.store.load()).running > 0  # the driver loads a tokenizer first

    async def leave(self) -> None:
        """Drains the workers; afterwards nothing of the job may be left in the store."""
        self._left = True
        for name, member in self.members.all.items():
            if name.startswith("worker-") and await member.end():
                self.verdict.add("drains", f"{name} ended with code {member.process and member.process.returncode}")
        self.members.close()
        check_ends(self.verdict, self.members.ends, disk_was_full="disk" in self.verdict.kinds)
        for file in self.members.tracebacks():
            self.verdict.add("no traceback", file)
        load = await self.store.load()
        if self.verdict.results == self.verdict.requests and (load.waiting or load.running):
            self.verdict.add("nothing left queued", str(load))
        await self.store.purge(forget=True)
        left = {key: ttl for key, ttl in (await self.server.keys("*")).items() if ttl < 0 or not key.endswith(":store")}
        for key in left:
            self.verdict.add("no key left", key)
        self.verdict.lost_replies = self.proxy.lost


@asynccontextmanager
async def scene(folder: Path, verdict: Verdict, mode: Mode, engine: EngineName) -> AsyncGenerator[Scene]:
    """A store, a proxy to it, and a job; all are removed afterwards."""
    async with AsyncExitStack() as stack:
        disk = folder / "disk"
        stack.enter_context(full_disk.small_disk(disk))
        job = write_job(folder, mode, engine)
        server = RedisServer(disk / "store", folder / "back.sock")
        stack.push_async_callback(server.stop)
        await server.start()
        proxy = await stack.enter_async_context(LossyProxy(folder / "front.sock", server.socket))
        stage = Scene(folder, verdict, server, proxy, disk, job)
        if job.spec.kv_pool.is_on:
            stage.pool = await stack.enter_async_context(FaultyPool(folder))
        stage.store = await open_store(f"unix://{server.socket}", JOB)
        stack.push_async_callback(stage.store.close)
        stack.callback(stage.members.close)
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        aside = [tasks.create_task(work) for work in (server.watch(), stage.note_boots(), stage.members.operate())]
        yield stage
        for task in aside:
            task.cancel()
