"""The processes of a run, and an operator that restarts the ended ones."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from openseer_core.errors import AuditError, InputError
from openseer_store.embedded import LAUNCHER
from tests.chaos.redis_server import pause
from tests.repository import ROOT

LOOK_SECONDS = 0.05
RESTART_SECONDS = 0.5
"""Time before the operator restarts a process, in seconds."""
END_SECONDS = 120.0
"""Longest wait for the end of a process after SIGTERM, in seconds."""
_FINAL = (0, InputError.exit_code, AuditError.exit_code)
_UNSAID = re.compile(r"^(?!future: ).*\nTraceback |\ATraceback ", re.MULTILINE)
"""A traceback, except asyncio's report of a broken connection that no code awaited."""


@dataclass(frozen=True, slots=True)
class End:
    """One unexpected end of a process."""

    name: str
    code: int
    words: str


@dataclass
class Member:
    """A process of a run; `lives`: the number of its starts."""

    name: str
    command: list[str]
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0
    kills: list[float] = field(default_factory=list[float])
    asked: bool = False
    done: bool = False

    @property
    def log_file(self) -> Path:
        """The log of the present start."""
        return self.folder / f"{self.name}-{self.lives}.log"

    def start(self) -> None:
        """Starts the process, which ends with the calling one."""
        self.lives += 1
        self.asked = False
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), sys.executable, *self.command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ
                | {
                    "OPENSEER_TERMINATION_LOG": str(self.folder / f"{self.name}.end"),
                    # The API's module is in tests/, which is part of no package.
                    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
                },
                start_new_session=True,
            )

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        if self.process is not None and self.process.poll() is None:
            self.asked = True
            self.kills.append(time.monotonic())
            self.process.kill()
            self.process.wait()

    async def pause(self, seconds: float) -> None:
        """Stops the process (SIGSTOP) for `seconds`."""
        if self.process is not None:
            await pause(self.process, seconds)

    async def end(self) -> int:
        """Sends SIGTERM; returns the exit code, or 0 if the process is down or has not begun."""
        process = self.process
        self.asked = self.done = True
        if process is None:
            return 0
        end = time.monotonic() + END_SECONDS
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        while process.poll() is None and time.monotonic() < end:
            await asyncio.sleep(LOOK_SECONDS)
        if process.poll() is None:
            process.kill()
        code = process.wait()
        return 0 if code == -signal.SIGTERM and not self.log_file.stat().st_size else code


class Members:
    """All processes of a run except the store."""

    def __init__(self) -> None:
        self.all: dict[str, Member] = {}
        self.ends: list[End] = []

    def add(self, member: Member) -> Member:
        """Adds a process and starts it."""
        self.all[member.name] = member
        member.start()
        return member

    async def operate(self) -> None:
        """Never returns: restarts ended processes by the operator's rules.

        A process that ends with code 0 is done. A process whose exit code reports a broken run is not restarted.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for member in self.all.values():
                code = None if member.process is None else member.process.poll()
                if code is None or member.done:
                    continue
                if code and not member.asked:
                    self.ends.append(End(member.name, code, _last_words(member.log_file)))
                if code in _FINAL:
                    member.done = True
                    continue
                member.process = None
                asyncio.get_running_loop().call_later(RESTART_SECONDS, self._start, member)

    def close(self) -> None:
        """Kills the processes that still run."""
        for member in self.all.values():
            member.done = True
            member.kill()

    def tracebacks(self) -> list[str]:
        """The names of the log files with a traceback."""
        files = sorted(file for member in self.all.values() for file in member.folder.glob(f"{member.name}-*.log"))
        return [file.name for file in files if _UNSAID.search(file.read_text(errors="replace"))]

    def _start(self, member: Member) -> None:
        if member.process is None and not member.done:
            member.start()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else ""
