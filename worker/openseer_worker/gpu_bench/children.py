"""The bench's side of the processes that measure: starts them, looks after them, ends one that takes too long."""

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
from openseer_worker.gpu_bench.ways import Order

_POLL_SECONDS = 0.25
_WARM_SECONDS = 240.0
"""Longest that importing vLLM may take; a cold disk is slow."""
LOG = "forks.log"


class Children:
    """A context: within it orders can be carried out; afterwards no process is left."""

    def __init__(self, folder: Path, model: Path) -> None:
        self._folder, self._model = folder, model
        self._forks: subprocess.Popen[bytes] | None = None
        self._child = 0
        self.cpu_seconds = 0.0
        """What the last child computed, for a busy machine to be seen."""
        self._rest = b""

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._child:
            _end_group(self._child)
        if self._forks is not None:
            _end_group(self._forks.pid)
            self._forks.wait()
            for pipe in (self._forks.stdin, self._forks.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def warm_up(self) -> float:
        """Starts what imports vLLM, if it has not been; the seconds that took. Raises EngineError."""
        if self._forks is not None:
            return 0.0
        log = (self._folder / LOG).open("ab")
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONUNBUFFERED": "1"}
        self._forks = subprocess.Popen(
            [sys.executable, "-m", "openseer_worker.gpu_bench.forks", str(self._model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the bench alone, which then ends all
        )
        log.close()
        answer = self._answer(time.monotonic() + _WARM_SECONDS, lambda: None)
        if answer is None:
            raise EngineError(f"vLLM cannot be imported: {self._last_words()}")
        return float(answer["warm"])

    def run(self, order: Order, seconds: float, watch: Callable[[], None]) -> str:
        """Carries an order out, calling `watch` now and then; why it came to no good end, or ""."""
        forks = self._forks
        assert forks is not None, "warm_up comes first"
        deadline = time.monotonic() + seconds
        try:
            _pipe(forks.stdin).write(order.to_json().encode() + b"\n")
            _pipe(forks.stdin).flush()
            started = self._answer(deadline, watch)
            if started is None:
                raise EngineError(f"the process that starts engines has ended: {self._last_words()}")
            self._child = int(started["started"])
            ended = self._answer(deadline, watch)
            if ended is None:
                _end_group(self._child)
                ended = self._answer(time.monotonic() + 30.0, watch)
                return f"ended by the bench after {seconds:.0f} s" if ended else "it cannot be ended"
        finally:
            self._child = 0
            watch()
        self.cpu_seconds = float(ended["cpu_seconds"])
        return _meaning(int(ended["ended"]))

    def _answer(self, deadline: float, watch: Callable[[], None]) -> dict[str, Any] | None:
        """The next line, or None after the deadline or at the end of output."""
        assert self._forks is not None
        pipe = _pipe(self._forks.stdout)
        while b"\n" not in self._rest:
            if time.monotonic() > deadline:
                return None
            if select.select([pipe], [], [], _POLL_SECONDS)[0]:
                read = os.read(pipe.fileno(), 65536)
                if not read:
                    return None
                self._rest += read
            watch()
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def _last_words(self) -> str:
        path = self._folder / LOG
        lines = [line.strip() for line in path.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else f"see {path}"


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


def _end_group(pid: int) -> None:
    """Ends a process and all that it has started."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _meaning(code: int) -> str:
    if code < 0:
        return f"killed by signal {-code}"
    return f"failed with exit code {code}" if code else ""
