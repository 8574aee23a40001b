"""The worker's side of a reception of weights: follows the reception in the fleet spec, with a separate process."""

import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from openseer_core.errors import LoadError
from openseer_core.ids import WorkerId
from openseer_core.manifest.fleet import WeightTransfer
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.reception import (
    BEGIN_SECONDS,
    FINISH_SECONDS,
    JOIN_SECONDS,
    UPDATE_SECONDS,
    Reception,
)
from openseer_core.worker.heartbeat import ReceptionReport
from openseer_worker.weights.received_files import PART

log = logging.getLogger(__name__)

ANSWER_BYTES = 2**16
"""Limit of the receiving process's answer, in bytes."""
REASON_CHARS = 500


@dataclass(frozen=True, slots=True)
class ReceivingSettings:
    """The settings of a worker that may receive weights. `transfer`: the job's spec.weights.transfer at the worker's
    start, None without it; `fleet`: WorkerSettings.fleet."""

    worker: WorkerId
    transfer: WeightTransfer | None
    fleet: str

    @property
    def folder(self) -> Path:
        """This fleet's folder, within transfer's folder, which all workers share. Raises LoadError without transfer."""
        if self.transfer is None:
            raise LoadError(f"{self.worker.name} was started without spec.weights.transfer; restart it")
        return Path(self.transfer.folder) / f"openseer-{sha256(self.fleet.encode()).hexdigest()[:16]}"


class WeightReceiver:
    """Receives weights from a trainer, if the fleet spec given to `follow` names this worker. `report`: the progress of
    the reception; None without one here. Calls `wake` when the report has changed."""

    def __init__(self, settings: ReceivingSettings | None, wake: Callable[[], None]) -> None:
        self._settings = settings
        self._wake = wake
        self._wanted: Reception | None = None
        self._kept: frozenset[Path] = frozenset()
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._report: ReceptionReport | None = None

    @property
    def report(self) -> ReceptionReport | None:
        """The report for the next heartbeat."""
        return self._report

    @property
    def is_busy(self) -> bool:
        """Whether the sender waits, or will send soon: during a round, and until the process group is complete."""
        wanted, report = self._wanted, self._report
        if wanted is None or report is None or report.error:
            return False
        return not wanted.is_followed(report) or (bool(wanted.round) and not wanted.finished)

    def follow(self, fleet_spec: FleetSpec) -> None:
        """Follows a new fleet spec: begins, continues or stops a reception."""
        self._kept = _kept(fleet_spec)
        reception, before = fleet_spec.reception, self._wanted
        is_ours = self._settings is not None and reception is not None and self._is_named(reception)
        self._wanted = reception if is_ours else None
        if self._wanted is None or before is None or self._wanted.id != before.id:
            self._stop()
            if self._wanted is not None:
                self._report = ReceptionReport(id=self._wanted.id)
                self._task = asyncio.create_task(self._receive(self._wanted.id))
        self._changed.set()

    async def close(self) -> None:
        """Stops receiving and ends the process."""
        task = self._task
        self._stop()
        if task is not None:
            await asyncio.gather(task, return_exceptions=True)

    def _is_named(self, reception: Reception) -> bool:
        assert self._settings is not None
        worker = self._settings.worker
        return (reception.worker, reception.boot) == (worker.name, worker.boot)

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._task = self._report = None

    # ---- the steps

    async def _receive(self, number: int) -> None:
        """Follows one reception until a cancel, or until it fails; reports the error."""
        assert self._settings is not None
        assert self._wanted is not None
        try:
            folder, transfer = self._settings.folder, self._settings.transfer
            join = {"backend": transfer and transfer.backend, "init": self._wanted.init}
            async with _Process() as process:
                await process.call("join", JOIN_SECONDS, **join)
                self._note(number, joined=True)
                while True:
                    await process.while_it_lasts(self._changed.wait())
                    self._changed.clear()
                    await self._catch_up(process, number, folder)
        except (LoadError, OSError) as error:
            log.error("reception of weights: %s", error)
            self._note(number, error=str(error) or type(error).__name__)
        except Exception as error:
            log.exception("reception of weights")  # reported, so that the sender need not wait for its deadline
            self._note(number, error=f"{type(error).__name__}: {str(error)[:REASON_CHARS]}")
        finally:
            await asyncio.to_thread(_remove_parts, self._settings, number)

    async def _catch_up(self, process: "_Process", number: int, folder: Path) -> None:
        wanted, report = self._wanted, self._report
        assert wanted is not None
        assert report is not None
        if wanted.round != report.round:
            made = str(folder / f"{wanted.id}-{wanted.round}")
            await asyncio.to_thread(_remove_others, folder, self._kept)
            await process.call("begin", BEGIN_SECONDS, folder=made)
            report = self._note(number, round=wanted.round, updates=0, finished=False, path=made, digest="")
        if wanted.updates == report.updates + 1 and wanted.update is not None:
            await process.call("update", UPDATE_SECONDS, info=wanted.update)
            report = self._note(number, updates=wanted.updates)
        if wanted.updates != report.updates:
            raise LoadError("an update was announced before the last one had arrived")
        if wanted.finished and not report.finished:
            answer = await process.call("finish", FINISH_SECONDS)
            self._note(number, finished=True, digest=answer["digest"])

    def _note(self, number: int, **update: Any) -> ReceptionReport:
        assert self._report is not None
        assert self._report.id == number
        self._report = self._report.model_copy(update=update)
        self._wake()
        return self._report


class _Process:
    """The receiving process, from the begin of a context to its end."""

    async def __aenter__(self) -> "_Process":
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "openseer_worker.vllm.receiving.process", str(os.getpid()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=ANSWER_BYTES,
        )  # fmt: skip
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()

    async def while_it_lasts(self, event: Coroutine[Any, Any, Any]) -> None:
        """Awaits `event`. Raises LoadError if the process ends first."""
        awaited, ended = asyncio.ensure_future(event), asyncio.ensure_future(self._process.wait())
        try:
            await asyncio.wait((awaited, ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            awaited.cancel()
            ended.cancel()
        if ended.done() and not ended.cancelled():
            assert self._process.stdout is not None
            _answer(await self._process.stdout.readline(), f"exit code {self._process.returncode}")

    async def call(self, command: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """Sends a command and returns the answer. Raises LoadError for an error, the process's end, and no answer
        within `seconds`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(seconds):
                self._process.stdin.write(json.dumps({command: arguments}).encode() + b"\n")
                await self._process.stdin.drain()
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise LoadError(f"{command}: not done within {seconds:g} s; check that the sender runs") from None
        except ConnectionError:
            line = await self._process.stdout.readline()
        exit_code = "" if line else f"exit code {await self._process.wait()}"
        return _answer(line, exit_code, f"{command}: ")


def _answer(line: bytes, exit_code: str, whose: str = "") -> dict[str, Any]:
    """Parses the process's answer. Raises LoadError if it is an error, or the process has ended."""
    if not line:
        raise LoadError(f"{whose}the receiving process has ended ({exit_code})")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise LoadError(f"{whose}{answer['error']}")
    return answer


def _kept(fleet_spec: FleetSpec) -> frozenset[Path]:
    """Returns the folders that a worker may have to load: of the served, the previous and the published version."""
    transaction = fleet_spec.transaction
    sources = [fleet_spec.source]
    if transaction is not None:
        sources += [transaction.previous_source, transaction.publish.source]
    return frozenset(Path(source.path) for source in sources if source is not None and source.path is not None)


def _remove_parts(settings: ReceivingSettings, number: int) -> None:
    """Removes a reception's incomplete folders, which may be as large as the model."""
    with suppress(LoadError):
        for path in settings.folder.glob(f"{number}-*{PART}"):
            shutil.rmtree(path, ignore_errors=True)


def _remove_others(folder: Path, kept: Collection[Path]) -> None:
    for path in folder.glob("*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
