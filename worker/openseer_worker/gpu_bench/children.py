"""The bench's side of the measuring processes: starts and watches them, and ends a process that exceeds its time."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from openseer_core.errors import EngineError
from openseer_worker.gpu_bench.figures import writing
from openseer_worker.gpu_bench.ways import Order

_POLL_SECONDS = 0.25
WARM_SECONDS = 240.0
"""Timeout of importing vLLM, in seconds; a cold disk is slow."""
LOG = "forks.log"


class _EndedError(Exception):
    """Raised if the process that starts engines has ended."""


class Children:
    """A context manager that runs orders in child processes; its end kills all of them."""

    def __init__(self, folder: Path, model: Path) -> None:
        self._folder, self._model = folder, model
        self._forks: subprocess.Popen[bytes] | None = None
        self._child = 0
        self.cpu_seconds = 0.0
        """CPU seconds of the last child; if they are much less than its duration, the machine was busy."""
        self._rest = b""

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    @property
    def warm(self) -> bool:
        """Whether the process that imports vLLM runs."""
        return self._forks is not None and self._forks.poll() is None

    def warm_up(self, seconds: float = WARM_SECONDS) -> float:
        """Starts the process that imports vLLM, unless one runs; returns the seconds of the import. Raises EngineError
        if it fails or takes longer than `seconds`, OutputError if the log cannot be written."""
        if self.warm:
            return 0.0
        self._end()
        with writing(self._folder):
            log = (self._folder / LOG).open("ab")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
        # With this order CUDA numbers cards as nvidia-smi does, so that the reported device is the measured device.
        environment.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        self._forks = subprocess.Popen(
            [sys.executable, "-m", "openseer_worker.gpu_bench.forks", str(self._model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only the bench, which then ends all processes
        )
        log.close()
        seconds = min(seconds, WARM_SECONDS)
        try:
            return float(self._answer(time.monotonic() + seconds, lambda: None)["warm"])
        except TimeoutError as error:
            self._end()
            raise EngineError(f"vLLM was not imported within {seconds:.0f} s") from error
        except _EndedError as error:
            raise EngineError(f"vLLM cannot be imported: {self._last_words()}") from error

    def run(self, order: Order, seconds: float, watch: Callable[[], None]) -> str:
        """Runs an order for at most `seconds`; returns the reason of a failure, or "". Calls `watch` several times a
        second."""
        forks = self._forks
        assert forks is not None, "warm_up comes first"
        deadline = time.monotonic() + seconds
        try:
            _pipe(forks.stdin).write(order.to_json().encode() + b"\n")
            _pipe(forks.stdin).flush()
            self._child = int(self._answer(deadline, watch)["started"])
            ended = self._answer(deadline, watch)
            self.cpu_seconds = float(ended["cpu_seconds"])
            return _meaning(int(ended["ended"]))
        except TimeoutError:
            return self._ended_by_force(seconds, watch)
        except (_EndedError, BrokenPipeError):
            self._end()
            return f"the process that starts engines has ended: {_meaning(forks.returncode) or 'for no known reason'}"
        finally:
            # Also after a success: processes that the child has started may still run.
            self._end_child()
            watch()

    def _ended_by_force(self, seconds: float, watch: Callable[[], None]) -> str:
        """Ends a child that exceeds its time; returns the message. If it does not end, ends all processes."""
        if not self._child:
            self._end()
            return f"no process was started within {seconds:.0f} s"
        self._end_child()
        try:
            self._answer(time.monotonic() + 30.0, watch)
        except (TimeoutError, _EndedError):
            self._end()
            return "it cannot be ended"
        return f"ended by the bench after {seconds:.0f} s"

    def _end_child(self) -> None:
        if self._child:
            _end_group(self._child)
        self._child = 0

    def _end(self) -> None:
        """Ends all processes."""
        self._end_child()
        forks, self._forks, self._rest = self._forks, None, b""
        if forks is None:
            return
        _end_group(forks.pid)
        forks.wait()
        for pipe in (forks.stdin, forks.stdout):
            with suppress(OSError):
                _pipe(pipe).close()

    def _answer(self, deadline: float, watch: Callable[[], None]) -> dict[str, Any]:
        """Returns the next message. Raises TimeoutError after the deadline, and _EndedError at the end of output."""
        assert self._forks is not None
        pipe = _pipe(self._forks.stdout)
        while b"\n" not in self._rest:
            if time.monotonic() > deadline:
                raise TimeoutError
            if select.select([pipe], [], [], _POLL_SECONDS)[0]:
                read = os.read(pipe.fileno(), 65536)
                if not read:
                    raise _EndedError
                self._rest += read
            elif not self.warm:
                raise _EndedError  # without an end of output, since its children may still have it open
            watch()
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        path = self._folder / LOG
        if not path.exists():
            return "it left no log"
        lines = [line.strip() for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"see {path}"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _end_group(pid: int) -> None:
    """Kills a process and all processes that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _meaning(code: int) -> str:
    if code < 0:
        return f"killed by signal {-code}"
    return f"failed with exit code {code}" if code else ""
