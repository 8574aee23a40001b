"""A fork server: imports the engine once, then forks workers, each pinned to its own core on a CPU.

Importing vLLM takes about 20 s of CPU time. A forked worker has it imported already, so a fleet starts in the time of
one worker, and a killed worker restarts in seconds. This process must stay single-threaded and never use a GPU, because
a fork copies only the calling thread and CUDA cannot be used after a fork.

Messages are lines of JSON. In: {"spawn": index}, {"stop": index}. Out: {"warm": seconds}, {"started": index, "pid": …},
{"ended": index, "pid": …, "code": …} (negative: the signal's number); once {"limits": …}: the limits of a request,
empty if unknown. The end of input kills all workers.
"""

import argparse
import ctypes
import json
import os
import selectors
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn

from openseer_core.admission import ModelLimits
from openseer_core.errors import OpenseerError
from openseer_core.ids import worker_name
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_process.logs import start_log
from openseer_process.parent import PR_SET_PDEATHSIG, die_with_parent
from openseer_process.termination import report
from openseer_worker.engine_factory import limits_of, warm_up
from openseer_worker.hardware.devices import core_of, pin_to_gpus
from openseer_worker.kv_pool.places import EnginePool, hold_fleet_folder
from openseer_worker.main import run_worker
from openseer_worker.settings import WorkerSettings

READ_BYTES = 65536


class ForkServer:
    """The parent of local workers; it stores the process id of each worker."""

    def __init__(
        self,
        job: RolloutJob,
        store_url: str,
        logs: Path,
        routed: str = "",
        *,
        out: int,
        pin: bool,
        kv_pool: str = "",
    ) -> None:
        self._job = job
        self._store_url = store_url
        self._kv_pool = kv_pool
        self._logs = logs
        self._routed = routed
        self._out = out
        self._pin = pin
        self._pids: dict[int, int] = {}
        self._aside: int | None = None
        self._held: IO[bytes] | None = None

    def handle(self, line: str) -> None:
        """Carries out one command. Raises ValueError for an unknown command."""
        match json.loads(line):
            case {"spawn": int(index)}:
                self._spawn(index)
            case {"stop": int(index)}:
                self._signal(index, signal.SIGTERM)
            case other:
                raise ValueError(f"unknown command {other!r}")

    def reap(self) -> None:
        """Reports every worker that has ended, and kills the rest of its process group."""
        if self._aside is not None and os.waitpid(self._aside, os.WNOHANG)[0]:
            self._aside = None
        for index, pid in list(self._pids.items()):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                _kill_group(pid)  # before waitpid frees the id
                _, status = os.waitpid(pid, 0)
                del self._pids[index]
                self._send({"ended": index, "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def report_limits(self) -> None:
        """Sends the model's limits from a child process: reading the configuration may start threads or use a GPU."""
        parent = os.getpid()
        self._aside = os.fork()
        if self._aside:
            return
        limits = ModelLimits()
        try:
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _close_input()  # it carries the parent's commands; a library that reads it must get end-of-file
            limits = limits_of(self._job)
        except OpenseerError as error:
            report(error)  # a worker will fail with the same error and end the job
        except BaseException:  # noqa: BLE001 - as in a worker
            traceback.print_exc()
        finally:
            self._send({"limits": limits.to_json()})
            sys.stderr.flush()
            os._exit(0)

    def kill(self) -> None:
        """Kills all workers: the process that sent the commands has ended."""
        for pid in self._pids.values():
            _kill_group(pid)

    def hold_pool(self) -> None:
        """Marks these workers' KV blocks, so that other runs' workers remove them if this process is killed."""
        if (pool := self._pool) is not None:
            self._held = hold_fleet_folder(pool.folder)

    def remove_pool(self) -> None:
        """Removes the KV blocks of these workers; no later run fetches them."""
        if (pool := self._pool) is not None:
            shutil.rmtree(pool.folder, ignore_errors=True)

    @property
    def _pool(self) -> EnginePool | None:
        """The workers' KV pool in a shared directory; None for another backend or without a pool."""
        pool = WorkerSettings(self._job, self._store_url, 0).pool
        return pool if pool is not None and pool.backend == "shared-directory" else None

    def _send(self, message: dict[str, object]) -> None:
        os.write(self._out, (json.dumps(message) + "\n").encode())

    def _spawn(self, index: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._run_worker(index, parent)
        self._pids[index] = pid
        self._send({"started": index, "pid": pid})

    def _signal(self, index: int, number: int) -> None:
        if index in self._pids:
            os.kill(self._pids[index], number)

    def _assign_devices(self, index: int) -> None:
        """Pins this process to a core on a CPU, or makes only its own GPUs visible."""
        if self._pin:
            os.sched_setaffinity(0, {core_of(index, sorted(os.sched_getaffinity(0)))})
        elif self._job.spec.model.engine == "vllm":
            parallelism = self._job.spec.workers.parallelism
            pin_to_gpus(index, parallelism.gpus, os.environ)

    def _run_worker(self, index: int, parent: int) -> NoReturn:
        code = 1
        try:
            os.setsid()
            os.close(self._out)
            die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _redirect(self._logs / f"{worker_name(index)}.log")
            start_log()
            self._assign_devices(index)
            settings = WorkerSettings(self._job, self._store_url, index, kv_pool=self._kv_pool, routed=self._routed)
            code = run_worker(settings)
        except OpenseerError as error:
            code = report(error)
        except BaseException:  # noqa: BLE001 - nothing may unwind into the parent's code
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)  # the child must not run the parent's exit handlers


def _outlive_parent() -> None:
    """Disables the kill signal at the parent's death.

    This process reads the end of standard input instead, and then kills the workers' process groups, which contain
    their engines.
    """
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, 0)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the group has ended


def _close_input() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)


def _redirect(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _close_input()
    os.dup2(handle, 1)
    os.dup2(handle, 2)


def _ignore_signal(_number: int, _frame: FrameType | None) -> None:
    """Does nothing. Python writes to the wake-up pipe only if the signal has a handler."""


def _serve(server: ForkServer, children: int) -> None:
    pending = ""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(children, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                data = os.read(key.fd, READ_BYTES)
                if key.fd == children:
                    server.reap()
                elif not data:
                    return
                else:
                    *lines, pending = (pending + data.decode()).split("\n")
                    for line in lines:
                        server.handle(line)


def main() -> None:
    """`python -m openseer_worker.fork_server`: started by the local runner; ends at the end of its input."""
    parser = argparse.ArgumentParser(description="Parent of local workers that has imported their engine.")
    parser.add_argument("--job", type=Path, required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--logs", type=Path, required=True)
    parser.add_argument("--routed", default="", help="folder for rows of routed experts, of this job alone")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--kv-pool", default="", help="HOST:PORT of Mooncake's master")
    options = parser.parse_args()
    die_with_parent(options.parent)
    started = time.monotonic()
    out = os.dup(1)
    os.dup2(2, 1)  # libraries print to standard output, which carries the messages alone
    job = parse_job(json.loads(options.job.read_text()), str(options.job))
    try:
        pin = warm_up(job)
    except OpenseerError as error:
        start_log()
        sys.exit(report(error))
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.signal(signal.SIGCHLD, _ignore_signal)
    signal.set_wakeup_fd(writable)
    places = (options.store, options.logs, options.routed)
    server = ForkServer(job, *places, out=out, pin=pin, kv_pool=options.kv_pool)
    server.hold_pool()
    server.report_limits()
    os.write(out, (json.dumps({"warm": round(time.monotonic() - started, 1)}) + "\n").encode())
    _outlive_parent()
    try:
        _serve(server, readable)
    finally:
        server.kill()
        server.remove_pool()


if __name__ == "__main__":
    main()
