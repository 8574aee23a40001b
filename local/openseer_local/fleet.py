"""Runs the local workers through a fork server: starts, scales and drains them; restarts them by the failure policy."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from openseer_core.admission import ModelLimits
from openseer_core.errors import InputError, JobFailedError, OpenseerError
from openseer_core.ids import worker_name
from openseer_core.manifest.job import FailurePolicy
from openseer_process.logs import error_in

LOG_LINES = 5
"""Number of lines from the end of a dead worker's log that the error message quotes."""
FIRST_BACKOFF_SECONDS = 0.5
"""Wait before a worker's first restart, in seconds; each further death doubles it."""
MOST_BACKOFF_SECONDS = 30.0
"""Limit of the wait before a restart, in seconds."""
KILL_SECONDS = 5.0
"""Time in which the fork server must exit after its standard input is closed, in seconds; then it is killed."""
FORK_SERVER_RESTARTS = 3
"""Limit of restarts of a killed fork server. Its workers die with it; `workerRestarts` does not count these deaths."""

OnMessage = Callable[[str], None]


class LocalFleet:
    """The workers of one job on this machine. `replicas`: number of workers at the start, which `scale` changes.
    `routed`: folder for the workers' rows of routed experts, None without capture."""

    def __init__(
        self,
        job_file: Path,
        store_url: str,
        logs: Path,
        replicas: int,
        failure_policy: FailurePolicy,
        on_message: OnMessage,
        kv_pool: str = "",
        routed: Path | None = None,
    ) -> None:
        """`kv_pool`: HOST:PORT of Mooncake's master; "" without one."""
        self._kv_pool = kv_pool
        self._routed = routed
        self._job_file = job_file
        self._store_url = store_url
        self._logs = logs
        self._replicas = replicas
        self._failure_policy = failure_policy
        self._on_message = on_message
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self._failure: asyncio.Future[None] | None = None
        self._running: dict[int, int] = {}  # process ids by worker
        self._deaths: dict[int, tuple[int, float]] = {}  # by worker: deaths in a window, and the window's start
        self._warm = False  # whether the fork server has imported the engine
        self._limits: asyncio.Future[ModelLimits] | None = None
        self._spawned: set[int] = set()  # workers that were requested and have not ended
        self._draining: set[int] = set()
        self._stopping = False
        self._empty = asyncio.Event()
        self._restarts: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of the running workers, by name."""
        return {worker_name(index): pid for index, pid in self._running.items()}

    @property
    def replicas(self) -> int:
        """Number of requested workers."""
        return self._replicas

    def scale(self, replicas: int) -> None:
        """Requests workers 0 to `replicas` - 1: missing ones are started, workers from `replicas` on drain and exit."""
        self._replicas = replicas
        if not self._warm or self._stopping:
            return
        for index in sorted(self._spawned):
            if index >= replicas and index not in self._draining:
                self._draining.add(index)
                self._send("stop", index)
        for index in range(replicas):
            self._spawn(index)

    async def start(self) -> None:
        """Starts the fork server, which the kernel kills when this process ends."""
        self._process = await self._launch()
        loop = asyncio.get_running_loop()
        self._failure, self._limits = loop.create_future(), loop.create_future()
        self._reader = asyncio.create_task(self._read(self._process, self._failure))

    async def _launch(self) -> asyncio.subprocess.Process:
        log = os.open(self._logs / "fork-server.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        command = [
            *(sys.executable, "-m", "openseer_worker.fork_server", "--parent", str(os.getpid())),
            *("--job", str(self._job_file), "--store", self._store_url, "--logs", str(self._logs)),
            *("--kv-pool", self._kv_pool),
            *(() if self._routed is None else ("--routed", str(self._routed))),
        ]
        pipe = asyncio.subprocess.PIPE
        try:
            # In its own session, so that Ctrl-C signals only the runner, which then drains the workers.
            return await asyncio.create_subprocess_exec(
                *command, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True
            )
        finally:
            os.close(log)

    async def limits(self) -> ModelLimits:
        """Waits for the fork server to compute the limits of one request from the model's configuration.

        All limits are unknown if the fork server cannot compute them or ends first.
        """
        assert self._limits is not None
        return await asyncio.shield(self._limits)

    async def watch(self) -> None:
        """Waits for a failure of the fleet and raises it: JobFailedError, or InputError if no worker can use the model.
        Never returns."""
        assert self._failure is not None
        await self._failure

    async def _read(self, process: asyncio.subprocess.Process, failure: asyncio.Future[None]) -> None:
        """Reads the fork server's reports until the server ends; restarts a killed server."""
        try:
            await self._read_restarting(process, failure)
        finally:
            self._note_limits(ModelLimits())

    async def _read_restarting(self, process: asyncio.subprocess.Process, failure: asyncio.Future[None]) -> None:
        restarts = 0
        while (code := await self._follow(process, failure)) < 0 and restarts < FORK_SERVER_RESTARTS:
            if self._stopping:
                return
            restarts += 1
            self._on_message(
                f"the fork server and its workers were killed by {_signal(code)}; "
                f"restart {restarts} of {FORK_SERVER_RESTARTS}"
            )
            self._forget_workers()
            self._process = process = await self._launch()
            if self._stopping:
                await self._end_parent(process)
                return
        if self._stopping:
            return
        end = self._log_end("fork-server")
        if code == InputError.exit_code:
            _fail(failure, InputError(f"no worker can start: {end}"))
        else:
            how = f"by {_signal(code)}" if code < 0 else f"with code {code}"
            again = f" after {restarts} restarts" if restarts else ""
            _fail(failure, JobFailedError(f"the fork server ended {how}{again}: {end}"))

    async def _follow(self, process: asyncio.subprocess.Process, failure: asyncio.Future[None]) -> int:
        assert process.stdout is not None
        async for line in process.stdout:
            try:
                self._handle(json.loads(line))
            except OpenseerError as error:
                _fail(failure, error)
            if self._stopping and not self._spawned:
                self._empty.set()
        self._empty.set()
        return await process.wait()

    def _forget_workers(self) -> None:
        """Kills the process groups of workers that died with the fork server, and clears their state."""
        for pid in self._running.values():
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._warm = False
        self._running.clear()
        self._spawned.clear()
        self._draining.clear()
        self._empty.clear()

    def _handle(self, report: object) -> None:
        match report:
            case {"warm": float(seconds)}:
                self._warm = True
                self._on_message(f"engine imported in {seconds:.0f} s; {_starting(self._replicas)}")
                self.scale(self._replicas)
            case {"limits": str(limits)}:
                self._note_limits(ModelLimits.from_json(limits))
            case {"started": int(index), "pid": int(pid)}:
                self._running[index] = pid
            case {"ended": int(index), "code": int(code)}:
                self._running.pop(index, None)
                self._spawned.discard(index)
                self._worker_ended(index, code)
            case other:
                raise JobFailedError(f"the fork server sent an unknown message: {other!r}")

    def _note_limits(self, limits: ModelLimits) -> None:
        if self._limits is not None and not self._limits.done():
            self._limits.set_result(limits)

    async def stop(self, grace_seconds: float) -> None:
        """Drains all workers. After `grace_seconds` it kills the others, whose leases expire; 0: kills all at once."""
        self._stopping = True
        for restart in self._restarts:
            restart.cancel()
        if self._process is None or self._process.returncode is not None:
            return
        # Includes workers that the fork server has not reported as started: it processes commands in order.
        for index in sorted(self._spawned):
            self._send("stop", index)
        try:
            async with asyncio.timeout(grace_seconds):
                if self._spawned:
                    await self._empty.wait()
        except TimeoutError:
            if grace_seconds:
                self._on_message(f"workers did not drain within {grace_seconds:.0f} s; killing them")
        await self._end_parent(self._process)

    async def _end_parent(self, process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):  # it has already ended
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    def _send(self, verb: str, index: int) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write((json.dumps({verb: index}) + "\n").encode())

    def _spawn(self, index: int) -> None:
        """Starts a requested worker that does not run, once the fork server has imported the engine."""
        if self._warm and index < self._replicas and index not in self._spawned:
            self._spawned.add(index)
            self._send("spawn", index)

    def _worker_ended(self, index: int, code: int) -> None:
        if self._stopping:
            return
        name = worker_name(index)
        if index in self._draining:
            self._draining.remove(index)
            self._spawn(index)  # it may have been requested again
        elif code == 0:
            self._on_message(f"{name} drained; starting it again")
            self._restart_in(index, FIRST_BACKOFF_SECONDS)
        else:
            self._worker_died(index, name, code)

    def _worker_died(self, index: int, name: str, code: int) -> None:
        cause = _signal(code) if code < 0 else f"exit code {code}"
        if code == InputError.exit_code:
            raise InputError(f"{name} cannot start: {self._log_end(name)}")
        now = asyncio.get_running_loop().time()
        remembered, since = self._failure_policy.remembered(*self._deaths.get(index, (0, now)), now)
        deaths = remembered + 1
        self._deaths[index] = deaths, since if remembered else now
        if deaths > self._failure_policy.worker_restarts:
            raise JobFailedError(
                f"{name} died {deaths} times, last by {cause}; spec.failurePolicy.workerRestarts allows "
                f"{self._failure_policy.worker_restarts} restarts. {self._log_end(name)}"
            )
        self._on_message(f"{name} died by {cause}; restart {deaths} of {self._failure_policy.worker_restarts}")
        self._restart_in(index, min(FIRST_BACKOFF_SECONDS * 2 ** (deaths - 1), MOST_BACKOFF_SECONDS))

    def _restart_in(self, index: int, seconds: float) -> None:
        async def restart() -> None:
            await asyncio.sleep(seconds)
            self._spawn(index)

        task = asyncio.get_running_loop().create_task(restart())
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    def _log_end(self, name: str) -> str:
        path = self._logs / f"{name}.log"
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            return f"(no log at {path})"
        errors = [error for line in lines if (error := error_in(line)) is not None]
        if errors:
            return f"{errors[-1]} (log: {path})"
        return f"Its log {path} ends:\n  " + "\n  ".join(lines[-LOG_LINES:])


def _signal(code: int) -> str:
    return f"signal {-code} ({signal.Signals(-code).name})"


def _starting(count: int) -> str:
    return f"starting {count} worker{'s' if count != 1 else ''}" if count else "no worker is requested"


def _fail(failure: asyncio.Future[None], error: OpenseerError) -> None:
    if not failure.done():
        failure.set_exception(error)
        failure.exception()  # marks it as retrieved: `watch` may have ended
