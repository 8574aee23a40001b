"""The weights that a worker serves: carries out, beside its work, what core's weights_worker says comes next."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from openseer_core.errors import LoadError
from openseer_core.ids import INITIAL_VERSION
from openseer_core.weights.canary import canary_difference, canary_tolerance
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Canary, Source
from openseer_core.weights.worker_step import (
    Attempt,
    WeightsState,
    WeightsTarget,
    WorkerStep,
    current_attempt,
    next_step,
)
from openseer_core.worker.heartbeat import WeightsReport
from openseer_worker.engine import Engine, NewWeights
from openseer_worker.weights.files import WeightFiles

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
"""Outside a transaction a load that failed is tried again after so long, twice as long each time."""


class ServedWeights:
    """`look` is called again and again; what takes longer runs as a task and calls `wake` when it has ended."""

    def __init__(self, engine: Engine, salt: str, wake: Callable[[], None]) -> None:
        self._engine = engine
        self._salt = salt
        self._wake = wake
        self._files = WeightFiles()
        self._have = WeightsState()
        self._report = WeightsReport(version=INITIAL_VERSION)
        self._orders = FleetSpec()
        self._act: asyncio.Task[None] | None = None
        self._fetch: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._pause = FIRST_RETRY_SECONDS

    @property
    def version(self) -> str:
        """The version that is loaded, "" while none is whole."""
        return self._have.version

    @property
    def revision(self) -> int:
        """Of the orders that are obeyed."""
        return self._orders.revision

    @property
    def report(self) -> WeightsReport:
        """What the next heartbeat says."""
        return self._report

    @property
    def asleep(self) -> bool:
        """Whether the engine has given the GPU's memory back."""
        return self._have.asleep

    def is_urgent(self, held: int) -> bool:
        """Whether the next orders are near: the fleet waits for this worker, or it waits for the fleet."""
        ongoing = self._orders.active_transaction
        if ongoing is None:
            return self._act is not None or self._orders.rest is not None
        drains = ongoing.phase == "quiesce" and ongoing.publish.mode == "drain"
        return not (drains and held)

    def follow(self, orders: FleetSpec) -> None:
        """Takes newer orders."""
        self._orders = orders
        ongoing = orders.active_transaction
        self._files.keep([orders.source, *([ongoing.publish.source] if ongoing is not None else [])])

    def look(self, held: int) -> WorkerStep:
        """What comes next for a worker that holds `held` responses; begins what is to be done beside it."""
        self._reap()
        if self._act is not None:  # it is not asked what follows before that has ended
            return WorkerStep()
        step = next_step(self._orders, self._have_now(), held)
        if step.confirms:
            self._confirm(step.confirms)
        if step.fetch is not None and self._fetch is None:
            self._fetch = self._begin(self._read_ahead(step.fetch, current_attempt(self._orders)))
        if step.load is not None:
            self._act = self._begin(self._load(step.load, current_attempt(self._orders)))
        elif step.sleep or step.wake:
            self._act = self._begin(self._rest(current_attempt(self._orders), asleep=step.sleep))
        return step if self._act is None else replace(step, claims=False)

    async def close(self) -> None:
        """Gives up what is under way, and the files."""
        self._files.close()
        tasks = [task for task in (self._act, self._fetch) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- what runs beside the work

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._wake())
        return task

    def _reap(self) -> None:
        """Takes what has ended; an error that nobody foresaw is raised here."""
        if self._act is not None and self._act.done():
            done, self._act = self._act, None
            done.result()
        if self._fetch is not None and self._fetch.done():
            done, self._fetch = self._fetch, None
            done.result()

    async def _read_ahead(self, source: Source, tried: Attempt) -> None:
        begun = _now()
        try:
            await self._files.read_ahead(source)
        except (LoadError, OSError) as error:
            self._fail(tried, error)
            return
        self._have = replace(self._have, fetched=tried[0], failed=None)
        self._succeed(tried, prefetch=_now() - begun)

    async def _load(self, target: WeightsTarget, tried: Attempt) -> None:
        log.info("loading weights %s", target.version)
        begun = _now()
        try:
            folder = await self._files.folder(target.source)
            transfer = None if target.source is None else target.source.transfer
            self._lose()
            await self._engine.load_weights(NewWeights(self._salt_of(target), folder, transfer))
            loaded = _now()
            difference = None if target.canary is None else await self._check(target.canary)
        except (LoadError, OSError) as error:
            self._fail(tried, error)
            return
        self._have = replace(self._have, version=target.version, publisher=target.publisher, failed=None)
        self._pause = FIRST_RETRY_SECONDS
        scored = {} if target.canary is None else {"canary": _now() - loaded}
        self._succeed(tried, load=loaded - begun, **scored)
        self._report = self._report.model_copy(update={"version": target.version, "difference": difference})
        log.info("serving weights %s", target.version)

    async def _check(self, canary: Canary) -> float:
        """The difference to what the publisher says. Raises LoadError when it is too great."""
        difference = canary_difference(canary, await self._engine.score(canary.token_ids))
        allowed = canary_tolerance(canary, self._engine.profile.dtype)
        if difference > allowed:
            self._report = self._report.model_copy(update={"difference": _finite(difference), "mismatch": True})
            raise LoadError(f"the canary's log-probabilities differ by {difference:.3g}, allowed: {allowed:g}")
        return difference

    async def _rest(self, tried: Attempt, *, asleep: bool) -> None:
        try:
            await (self._engine.sleep() if asleep else self._engine.wake())
        except LoadError as error:
            self._fail(tried, error)
            return
        self._have = replace(self._have, asleep=asleep, failed=None)
        self._report = self._report.model_copy(update={"asleep": asleep, "error": ""})

    # ---- what came of it

    def _lose(self) -> None:
        """From here on no weights are whole."""
        self._have = replace(self._have, version="", publisher=0)
        self._report = self._report.model_copy(update={"version": "", "difference": None, "mismatch": False})

    def _fail(self, tried: Attempt, error: Exception) -> None:
        log.error("weights: %s", error)
        self._have = replace(self._have, failed=tried)
        self._retry_at = _now() + self._pause
        self._pause = min(2 * self._pause, LAST_RETRY_SECONDS)
        told = {"attempt": tried[1], "error": str(error) or type(error).__name__}
        self._report = self._of_transaction(tried[0]).model_copy(update=told)

    def _succeed(self, tried: Attempt, **seconds: float) -> None:
        report = self._of_transaction(tried[0])
        update = {"error": "", "mismatch": False, "seconds": report.seconds | seconds}
        self._report = report.model_copy(update=update)

    def _confirm(self, phase: str) -> None:
        ongoing = self._orders.active_transaction
        assert ongoing is not None
        report = self._of_transaction(ongoing.id)
        if (report.transaction, report.phase, report.error) != (ongoing.id, phase, ""):
            update = {"phase": phase, "attempt": ongoing.attempt, "error": ""}
            self._report = report.model_copy(update=update)

    def _of_transaction(self, number: int) -> WeightsReport:
        """The report, without what it says of an earlier transaction."""
        if number <= self._report.transaction:
            return self._report
        return self._report.model_copy(update={"transaction": number, "phase": "", "attempt": 0, "seconds": {}})

    def _have_now(self) -> WeightsState:
        """What there is; outside a transaction a failure is forgotten after a pause, so that it is tried again."""
        if self._have.failed == (0, 0, "") and _now() >= self._retry_at:
            self._have = replace(self._have, failed=None)
        return self._have

    def _salt_of(self, target: WeightsTarget) -> str:
        """Never the same for two contents, also where a version failed and came again under its name."""
        return f"{self._salt}@{target.version}" + (f"#{target.publisher}" if target.publisher else "")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _finite(difference: float) -> float | None:
    return difference if difference < float("inf") else None
