"""The weights that a worker serves: carries out the steps that core's worker_step derives, beside running requests."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any

from openseer_core.admission import bad_canary
from openseer_core.errors import LoadError
from openseer_core.ids import INITIAL_VERSION
from openseer_core.weights.canary import canary_difference, canary_tolerance
from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Canary
from openseer_core.weights.worker_step import (
    Attempt,
    LoadedAdapter,
    WeightsState,
    WeightsTarget,
    WorkerStep,
    claimed_adapters,
    current_attempt,
    next_step,
    targets,
)
from openseer_core.worker.heartbeat import WeightsReport
from openseer_worker.engine import Engine, NewAdapter, NewWeights
from openseer_worker.weights.folders import CheckedFolder, WeightFolders
from openseer_worker.weights.receiving import ReceivingSettings, WeightReceiver
from openseer_worker.weights.scores import check_finite

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 1.0, 60.0
"""Pause before a failed load outside a transaction is retried, in seconds: at first, and at most; it doubles."""
NOTHING = -1
"""Replaces the publisher of the weights being fetched or read if there are none."""


class ServedWeights:
    """One worker's weights. The loop calls `advance` in each pass; slow steps run as tasks, which call `wake` at their
    end. `salt`: prefix of the salts of cached KV; `folders`: of versions' files; `receiving`: see WeightReceiver."""

    def __init__(
        self,
        engine: Engine,
        salt: str,
        wake: Callable[[], None],
        folders: WeightFolders | None = None,
        receiving: ReceivingSettings | None = None,
    ) -> None:
        self._engine = engine
        self._salt = salt
        self._wake = wake
        self._folders = folders or WeightFolders()
        self._receiver = WeightReceiver(receiving, wake)
        self._state = WeightsState()
        self._report = WeightsReport(version=INITIAL_VERSION)
        self._fleet_spec = FleetSpec()
        self._task: asyncio.Task[None] | None = None
        self._fetch_task: asyncio.Task[None] | None = None
        self._adapter_task: asyncio.Task[None] | None = None
        self._fetches = self._reads = self._adapter_reads = NOTHING
        self._retry_at = 0.0
        self._pause = FIRST_RETRY_SECONDS
        self._adapters_due = 0.0
        self._unscored: WeightsTarget | None = None

    @property
    def version(self) -> str:
        """The loaded version; "" while none is completely loaded."""
        return self._state.version

    @property
    def versions(self) -> tuple[str, ...]:
        """All versions for which the worker may claim requests."""
        return (self.version, *self.adapters)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Versions of adapters that are loaded here and served by the fleet."""
        return claimed_adapters(self._fleet_spec, self._state)

    @property
    def revision(self) -> int:
        """Revision of the fleet spec that the worker follows."""
        return self._fleet_spec.revision

    @property
    def report(self) -> WeightsReport:
        """The report for the next heartbeat."""
        return self._report.model_copy(
            update={"reception": self._receiver.report, "passing": self._folders.passing.report}
        )

    @property
    def asleep(self) -> bool:
        """Whether the engine has freed the GPU's memory."""
        return self._state.asleep

    def is_urgent(self, running: int) -> bool:
        """Whether the fleet spec may change soon: the fleet waits for this worker, or this worker for the fleet."""
        transaction = self._fleet_spec.active_transaction
        if self._receiver.is_busy:
            return True
        if transaction is None:
            awaited = self._fleet_spec.awaits_digest and self._state.version == self._fleet_spec.version
            return awaited or self._task is not None or self._fleet_spec.rest is not None
        drains = transaction.phase == "quiesce" and transaction.publish.mode == "drain"
        return not (drains and running)

    def follow(self, fleet_spec: FleetSpec) -> None:
        """Follows a new fleet spec; cancels tasks that read or fetch weights that it does not name."""
        self._fleet_spec = fleet_spec
        self._folders.keep(targets(fleet_spec))
        self._receiver.follow(fleet_spec)
        wanted = {NOTHING, *(target.publisher for target in targets(fleet_spec))}
        if self._fetch_task is not None and self._fetches not in wanted:
            self._fetch_task.cancel()
            self._fetch_task = None
        if self._task is not None and self._reads not in wanted:
            self._task.cancel()
            self._task = None
        if self._adapter_task is not None and self._adapter_reads not in wanted:
            self._adapter_task.cancel()
            self._adapter_task = None

    def advance(self, running: int, versions: Collection[str] = ()) -> WorkerStep:
        """Returns the next step of a worker with `running` responses, of these `versions`; starts the step's tasks."""
        self._forget_ended_tasks()
        if self._task is not None:  # no further step before the task has ended
            return WorkerStep()
        self._report_rest()
        step = next_step(self._fleet_spec, self._current_state(), running)
        if step.confirms:
            self._confirm(step.confirms)
        if step.fetch is not None and self._fetch_task is None:
            self._fetches = step.fetch.publisher
            self._fetch_task = self._begin(self._read_ahead(step.fetch, current_attempt(self._fleet_spec)))
        if self._adapter_task is not None:  # changes of weights, and sleep, wait for its end
            return step
        self._adapter_task = self._begin_adapter(step, versions)
        if step.load is not None and not step.load.adapter:
            self._task = self._begin(self._load(step.load, current_attempt(self._fleet_spec)))
        elif step.sleep or step.wake or step.wake_weights:
            self._task = self._begin(self._change_rest(step, current_attempt(self._fleet_spec)))
        return step if self._task is None else replace(step, claims=False)

    def _begin_adapter(self, step: WorkerStep, versions: Collection[str]) -> asyncio.Task[None] | None:
        """Starts the step's change of adapters, if any. An adapter in `versions` has running responses and is dropped
        only later."""
        drop = tuple(version for version in step.drop if version not in versions)
        if drop:
            return self._begin(self._drop(drop))
        if step.load is None or not step.load.adapter:
            return None
        self._adapter_reads = step.load.publisher
        return self._begin(self._load_adapter(step.load, current_attempt(self._fleet_spec)))

    async def close(self) -> None:
        """Cancels the tasks and removes the fetched files."""
        tasks = [task for task in (self._task, self._fetch_task, self._adapter_task) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, self._receiver.close(), return_exceptions=True)
        self._folders.close()

    # ---- tasks beside the running requests

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._wake())
        return task

    def _forget_ended_tasks(self) -> None:
        """Removes ended tasks; raises a task's unexpected error."""
        for name in ("_task", "_fetch_task", "_adapter_task"):
            task: asyncio.Task[None] | None = getattr(self, name)
            if task is not None and task.done():
                setattr(self, name, None)
                task.result()

    async def _read_ahead(self, target: WeightsTarget, attempt: Attempt) -> None:
        begun = _now()
        try:
            folder = await self._folders.get(target)
        except (LoadError, OSError) as error:
            self._fail(attempt, error)
            return
        self._state = replace(self._state, fetched=attempt[0], failed=None)
        self._succeed(attempt, folder, prefetch=_now() - begun)

    async def _load(self, target: WeightsTarget, attempt: Attempt) -> None:
        log.info("loading weights %s", target.version)
        begun = _now()
        if (self._state.version, self._state.publisher) == (target.version, target.publisher):
            self._clear_version()  # the version's content differs from the files that this worker has loaded
        try:
            folder = await self._find(target)
            path = None if folder is None else folder.path
            self._clear_version()
            await self._engine.load_weights(NewWeights(self._salt_of(target), path))
            if folder is not None:
                folder.check_unchanged()
            loaded = _now()
            self._unscored = target if self._state.asleep else None
            difference = None if target.canary is None or self._unscored else await self._check(target.canary)
        except (LoadError, OSError) as error:
            self._fail(attempt, error)
            return
        served: dict[str, Any] = {"version": target.version, "publisher": target.publisher}
        digest = "" if folder is None else folder.digest
        self._state = replace(self._state, **served, digest=digest, failed=None)
        self._pause = FIRST_RETRY_SECONDS
        scored = {} if difference is None else {"canary": _now() - loaded}
        self._succeed(attempt, folder, load=loaded - begun, **scored)
        self._report = self._report.model_copy(update={**served, "loaded": digest, "difference": difference})
        log.info("serving weights %s", target.version)

    async def _load_adapter(self, target: WeightsTarget, attempt: Attempt) -> None:
        """Loads an adapter while requests run. If a transaction publishes this adapter, a failure fails the attempt;
        otherwise the load is retried."""
        log.info("loading adapter %s", target.version)
        begun = _now()
        try:
            try:
                folder = await self._folders.get(target)
            finally:
                self._adapter_reads = NOTHING
            assert folder is not None
            await self._engine.load_adapter(NewAdapter(target.version, self._salt_of(target), folder.path))
            folder.check_unchanged()
            difference = None if target.canary is None else await self._check(target.canary, target.version)
        except (LoadError, OSError) as error:
            with suppress(LoadError):
                await self._engine.drop_adapter(target.version)
            self._fail_adapter(target, attempt, error)
            return
        loaded = LoadedAdapter(target.version, target.publisher, folder.digest)
        self._state = replace(self._state, adapters=(*self._state.adapters, loaded))
        self._pause = FIRST_RETRY_SECONDS
        if attempt[0] == target.publisher:
            self._state = replace(self._state, failed=None)
            self._succeed(attempt, folder, load=_now() - begun)
            self._report = self._report.model_copy(update={"difference": difference})
        self._report_adapters("")
        log.info("serving adapter %s", target.version)

    async def _drop(self, versions: tuple[str, ...]) -> None:
        try:
            for version in versions:
                await self._engine.drop_adapter(version)
        except LoadError as error:
            log.error("adapters: %s", error)  # it stays loaded, and the drop is retried
            return
        left = tuple(adapter for adapter in self._state.adapters if adapter.version not in versions)
        self._state = replace(self._state, adapters=left)
        self._report_adapters(self._report.adapter_error)
        log.info("dropped adapter %s", ", ".join(versions))

    def _fail_adapter(self, target: WeightsTarget, attempt: Attempt, error: Exception) -> None:
        if attempt[0] == target.publisher:
            self._fail(attempt, error)
            return
        log.error("adapter %s: %s", target.version, error)
        self._state = replace(self._state, adapters_wait=True)
        self._adapters_due = _now() + self._pause
        self._pause = min(2 * self._pause, LAST_RETRY_SECONDS)
        self._report_adapters(f"adapter {target.version}: {error}")

    def _report_adapters(self, error: str) -> None:
        loaded = {adapter.version: adapter.digest for adapter in self._state.adapters}
        self._report = self._report.model_copy(update={"adapters": loaded, "adapter_error": error})

    async def _find(self, target: WeightsTarget) -> CheckedFolder | None:
        """Returns the folder of a load. `follow` may cancel the load until the files are read."""
        self._reads = target.publisher
        try:
            return await self._folders.get(target)
        finally:
            self._reads = NOTHING

    async def _check(self, canary: Canary, adapter: str = "") -> float:
        """Returns the difference to the publisher's log-probabilities. Raises LoadError if it is too large, or the
        canary cannot be scored."""
        if problem := bad_canary(canary.token_ids, self._engine.profile.limits):
            raise LoadError(problem)
        dtype = self._engine.profile.dtype
        scored = await self._engine.score(canary.token_ids, adapter)
        check_finite(scored, "the canary was scored", dtype)
        difference = canary_difference(canary, scored)
        allowed = canary_tolerance(canary, dtype)
        if difference > allowed:
            self._report = self._report.model_copy(update={"difference": _finite(difference), "mismatch": True})
            raise LoadError(f"the canary's log-probabilities differ by {difference:.3g}, allowed: {allowed:g}")
        return difference

    async def _change_rest(self, step: WorkerStep, attempt: Attempt) -> None:
        """Puts the engine to sleep or wakes it, as the step requires. After waking, scores weights that were loaded
        during the sleep."""
        freed, since = self._report.freed, self._fleet_spec.rest_since
        try:
            if step.sleep:
                if step.discards:
                    self._clear_version()
                freed = await self._engine.sleep(keep_weights=not step.discards)
            else:
                await self._engine.wake(weights_only=step.wake_weights)
        except LoadError as error:
            self._fail(attempt, error)
            return
        rest: dict[str, Any] = {"asleep": not step.wake, "weights_awake": step.wake_weights}
        self._state = replace(self._state, **rest, failed=None)
        self._report = self._report.model_copy(update={"error": ""})
        if step.wake and self._unscored is not None:
            await self._score_what_came(self._unscored, attempt)
        freed_report = {"freed": None if step.wake else freed, "rest_since": since}
        self._report = self._report.model_copy(update=rest | freed_report)

    def _report_rest(self) -> None:
        """Reports that the engine sleeps as the present fleet spec requires, if it does."""
        spec, state = self._fleet_spec, self._state
        follows = spec.rest is not None and state.asleep and state.weights_awake == spec.weights_awake
        if follows and self._report.rest_since != spec.rest_since:
            self._report = self._report.model_copy(update={"rest_since": spec.rest_since})

    async def _score_what_came(self, target: WeightsTarget, attempt: Attempt) -> None:
        self._unscored = None
        try:
            await self._engine.check_weights()
            difference = None if target.canary is None else await self._check(target.canary)
        except LoadError as error:
            self._clear_version()  # so that the weights are loaded again, with all checks
            self._fail(attempt, error)
            return
        self._report = self._report.model_copy(update={"difference": difference})

    # ---- outcomes

    def _clear_version(self) -> None:
        """Notes that no version and no adapter is loaded."""
        self._state = replace(self._state, version="", publisher=0, digest="", adapters=())
        self._unscored = None
        self._report_adapters("")
        nothing: dict[str, Any] = {"version": "", "publisher": 0, "loaded": "", "difference": None, "mismatch": False}
        self._report = self._report.model_copy(update=nothing)

    def _fail(self, attempt: Attempt, error: Exception) -> None:
        log.error("weights: %s", error)
        self._state = replace(self._state, failed=attempt)
        self._retry_at = _now() + self._pause
        self._pause = min(2 * self._pause, LAST_RETRY_SECONDS)
        update = {"attempt": attempt[1], "error": str(error) or type(error).__name__}
        self._report = self._of_transaction(attempt[0]).model_copy(update=update)

    def _succeed(self, attempt: Attempt, folder: CheckedFolder | None, **seconds: float) -> None:
        report = self._of_transaction(attempt[0])
        digest = "" if folder is None else folder.digest
        update = {"error": "", "mismatch": False, "seconds": report.seconds | seconds, "digest": digest}
        self._report = report.model_copy(update=update)

    def _confirm(self, phase: str) -> None:
        transaction = self._fleet_spec.active_transaction
        assert transaction is not None
        report = self._of_transaction(transaction.id)
        if (report.transaction, report.phase, report.error) != (transaction.id, phase, ""):
            update = {"phase": phase, "attempt": transaction.attempt, "error": ""}
            self._report = report.model_copy(update=update)

    def _of_transaction(self, number: int) -> WeightsReport:
        """Returns the report, with the fields of an earlier transaction reset."""
        if number <= self._report.transaction:
            return self._report
        fresh = WeightsReport(transaction=number)
        return self._report.model_copy(
            update=fresh.model_dump(include={"transaction", "phase", "attempt", "seconds", "digest"})
        )

    def _current_state(self) -> WeightsState:
        """Returns the state; outside a transaction a failure is removed after a pause, so that the load is retried."""
        if self._state.failed == (0, 0, "") and _now() >= self._retry_at:
            self._state = replace(self._state, failed=None)
        if self._state.adapters_wait and _now() >= self._adapters_due:
            self._state = replace(self._state, adapters_wait=False)
        return self._state

    def _salt_of(self, target: WeightsTarget) -> str:
        """Returns the salt of a target's cached KV. It differs for two contents, also if a failed version was published
        again under the same name."""
        return f"{self._salt}@{target.version}" + (f"#{target.publisher}" if target.publisher else "")


def _now() -> float:
    return asyncio.get_running_loop().time()


def _finite(difference: float) -> float | None:
    return difference if difference < float("inf") else None
