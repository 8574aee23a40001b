"""A weights transaction: how the whole fleet moves to new weights, or back, one phase after the other.

prefetch → quiesce → load → commit → done; when it fails, rollback → failed. Pure: whoever keeps the orders calls
`advance` again and again, carries out its actions and swaps the orders in; all of that may be repeated, or done by two.
Only participants are waited for: workers that worked when it began, until they leave, die or fall asleep. Nobody else
has to be, for a worker serves the one version that it has loaded, and loads what the orders say before it claims.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openseer_core.errors import PublishRefusedError
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Publish, TransactionPhase
from openseer_core.worker.heartbeat import WeightsReport, WorkerStatus

FRESH_SECONDS = 10.0
"""A worker whose last heartbeat is older is gone."""
WORKING = frozenset({"idle", "busy"})
"""States of a worker in which it takes part."""
CONFIRMED = ("prefetch", "quiesce", "load")
"""What a worker confirms, in this order; a later one includes those before."""


@dataclass(frozen=True, slots=True)
class AbortBatches:
    """Everything unfinished of this version ends, partial responses reported."""

    version: str


@dataclass(frozen=True, slots=True)
class ChangeVersion:
    """Batches of version `old` belong to `new` from now on; responses with tokens of `stale` versions are aborted."""

    old: str
    new: str
    stale: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DrainWorkers:
    """These workers leave; their successors load what the orders say."""

    workers: tuple[str, ...]


TransactionAction = AbortBatches | ChangeVersion | DrainWorkers


@dataclass(frozen=True, slots=True)
class Advance:
    """What to do, in this order, and then the orders to swap in (the same object: nothing has changed)."""

    fleet_spec: FleetSpec
    actions: tuple[TransactionAction, ...] = ()


def participants(workers: Sequence[WorkerStatus], now: float) -> tuple[str, ...]:
    """Who takes part in a transaction that begins now."""
    return tuple(sorted(one.name for one in workers if _works(one, now) and not _report(one).asleep))


def begin(orders: FleetSpec, publish: Publish, participants: Sequence[str], now: float) -> FleetSpec:
    """The orders with a new transaction; the same object when it is under way or done already.

    Raises PublishRefusedError while another one is active, and for a name that other weights had.
    """
    last = orders.transaction
    if last is not None and _same(last.publish, publish) and last.phase not in ("rollback", "failed"):
        return orders
    if orders.active_transaction is not None:
        active = orders.active_transaction
        raise PublishRefusedError(
            f"weights {active.publish.version} are being published (transaction {active.id}, in {active.phase}); "
            "wait until it is done, or abort it"
        )
    if publish.version in orders.versions:
        raise PublishRefusedError(f"there were weights {publish.version} before; new weights need a name of their own")
    fetches = publish.prefetch and publish.source.transfer is None
    ongoing = WeightsTransaction(
        id=orders.transactions + 1,
        publish=publish,
        previous=orders.version,
        previous_source=orders.source,
        phase="prefetch" if fetches else "quiesce",
        started_at=now,
        entered_at=now,
        participants=tuple(participants),
        waiting_for=tuple(participants),
    )
    return _put(orders.model_copy(update={"transactions": ongoing.id}), ongoing)


def cancel(orders: FleetSpec, now: float) -> FleetSpec:
    """Takes back the active transaction; the same object when there is none, or it has been decided."""
    ongoing = orders.active_transaction
    if ongoing is None or ongoing.phase in ("commit", "rollback"):
        return orders
    return _put(orders, _give_up(ongoing, "aborted by request", now))


def advance(orders: FleetSpec, workers: Sequence[WorkerStatus], unfinished: int, now: float) -> Advance:
    """What follows from what the workers report. `unfinished`: requests of the previous version's open batches."""
    ongoing = orders.active_transaction
    if ongoing is None:
        return Advance(orders)
    if ongoing.phase == "commit":
        return Advance(_put(orders, _enter(ongoing, "done", now)), _leftovers(orders, ongoing, unfinished))
    view = _view(ongoing, workers, unfinished, now)
    ongoing = _without_the_gone(ongoing, workers, view)
    actions: tuple[TransactionAction, ...] = ()
    phase = ""
    while ongoing.phase != phase and ongoing.phase in _PHASES:
        phase = ongoing.phase
        ongoing, more = _PHASES[phase](ongoing, view)
        actions += more
    return Advance(orders if ongoing == orders.transaction else _put(orders, ongoing), actions)


def takes_groups(orders: FleetSpec, version: str) -> bool:
    """Whether work of this version may still be queued: in drain not once the fleet has left the version."""
    ongoing = orders.active_transaction
    if ongoing is None or ongoing.previous != version:
        return True
    left = {"drain": ("load", "commit"), "abort": ("quiesce", "load", "commit"), "keep": ("commit",)}
    return ongoing.phase not in left[ongoing.publish.mode]


def stale_versions(versions: Sequence[str], version: str, max_staleness: int | None) -> tuple[str, ...]:
    """Which published versions are more than `max_staleness` behind `version`; None: no limit."""
    if max_staleness is None or version not in versions:
        return ()
    return tuple(versions[: max(0, list(versions).index(version) - max_staleness)])


def deadline(ongoing: WeightsTransaction) -> float | None:
    """When the phase has to be over (store's clock); None where it waits for nobody."""
    deadlines = ongoing.publish.deadlines
    longest = {
        "prefetch": deadlines.prefetch,
        "quiesce": deadlines.quiesce,
        "load": deadlines.load,
        "rollback": deadlines.load,
    }.get(ongoing.phase)
    return None if longest is None else ongoing.entered_at + longest


def waiting_for(ongoing: WeightsTransaction, workers: Sequence[WorkerStatus], now: float) -> tuple[str, ...]:
    """Who has not confirmed the phase yet; in drain: who still has work of the previous version."""
    view = _view(ongoing, workers, 0, now)
    if ongoing.phase == "quiesce" and ongoing.publish.mode == "drain":
        return view.holders
    return view.unconfirmed(ongoing) if ongoing.phase in _PHASES else ()


# ---- what is seen


@dataclass(frozen=True, slots=True)
class _View:
    """`reports`: of the participants that are there and awake."""

    reports: dict[str, WeightsReport]
    holders: tuple[str, ...]
    unfinished: int
    now: float

    def unconfirmed(self, ongoing: WeightsTransaction) -> tuple[str, ...]:
        return tuple(name for name, report in self.reports.items() if not has_confirmed(report, ongoing))

    def failing(self, ongoing: WeightsTransaction) -> tuple[str, ...]:
        """Those whose present attempt has failed."""
        return tuple(name for name, report in self.reports.items() if has_failed(report, ongoing))

    def is_late(self, ongoing: WeightsTransaction) -> bool:
        at = deadline(ongoing)
        return at is not None and self.now >= at


def has_confirmed(report: WeightsReport, ongoing: WeightsTransaction) -> bool:
    """Whether a worker has done what the phase asks of it."""
    if report.transaction != ongoing.id or report.error:
        return False
    if ongoing.phase == "rollback":
        return report.phase == "rollback" and report.version == ongoing.previous
    if ongoing.phase == "load" and report.version != ongoing.publish.version:
        return False
    if report.phase not in CONFIRMED or ongoing.phase not in CONFIRMED:
        return False
    return CONFIRMED.index(report.phase) >= CONFIRMED.index(ongoing.phase)


def has_failed(report: WeightsReport, ongoing: WeightsTransaction) -> bool:
    """Whether a worker's present attempt has failed."""
    return bool(report.error) and (report.transaction, report.attempt) == (ongoing.id, ongoing.attempt)


def _works(worker: WorkerStatus, now: float) -> bool:
    return worker.heartbeat.state in WORKING and now - worker.seen_at <= FRESH_SECONDS


def _report(worker: WorkerStatus) -> WeightsReport:
    return worker.heartbeat.weights or WeightsReport()


def _view(ongoing: WeightsTransaction, workers: Sequence[WorkerStatus], unfinished: int, now: float) -> _View:
    wanted = set(ongoing.participants) - set(ongoing.replaced)
    there = sorted((one for one in workers if one.name in wanted and _works(one, now)), key=lambda one: one.name)
    awake = [one for one in there if not _report(one).asleep]
    holders = tuple(one.name for one in awake if one.inflight)
    return _View({one.name: _report(one) for one in awake}, holders, unfinished, now)


def _without_the_gone(ongoing: WeightsTransaction, workers: Sequence[WorkerStatus], view: _View) -> WeightsTransaction:
    """Participants that left, died or began anew are waited for no longer."""
    there = {one.name for one in workers if _works(one, view.now)}
    gone = tuple(name for name in ongoing.participants if name not in there and name not in ongoing.replaced)
    if not gone:
        return ongoing
    return _replacing(ongoing, gone, f"{', '.join(gone)} left during {ongoing.phase}")


# ---- the phases


def _await_all(ongoing: WeightsTransaction, view: _View) -> tuple[WeightsTransaction, tuple[TransactionAction, ...]]:
    """Prefetch and load: each worker confirms, within the deadline."""
    waiting = view.unconfirmed(ongoing)
    if not waiting:
        return _enter(ongoing, "quiesce" if ongoing.phase == "prefetch" else "commit", view.now), ()
    failing = view.failing(ongoing)
    if view.is_late(ongoing):
        return _setback(ongoing, view, waiting)
    return _setback(ongoing, view, failing) if failing else (ongoing, ())


def _setback(
    ongoing: WeightsTransaction, view: _View, failed: tuple[str, ...]
) -> tuple[WeightsTransaction, tuple[TransactionAction, ...]]:
    """These workers have failed, or are late: another try, or the end of it, or on without them."""
    why = "; ".join(f"{name}: {view.reports[name].error or _late(ongoing)}" for name in failed)
    if ongoing.attempt < ongoing.publish.retries:
        again = _spend(ongoing, view.now).model_copy(update={"attempt": ongoing.attempt + 1, "message": why})
        return again, ()
    # Where the last ones fail with an error it is the publisher's file, and no successor would fare better.
    hopeless = len(failed) == len(view.reports) and bool(view.failing(ongoing))
    if ongoing.publish.on_failure == "abort" or hopeless:
        return _give_up(ongoing, why, view.now, failed), ()
    return _replacing(ongoing, failed, why), (DrainWorkers(failed),)


def _quiesce(ongoing: WeightsTransaction, view: _View) -> tuple[WeightsTransaction, tuple[TransactionAction, ...]]:
    """Until nothing of the previous version runs any more: finished (drain), handed back (keep) or ended (abort)."""
    mode = ongoing.publish.mode
    waiting = view.holders if mode == "drain" else view.unconfirmed(ongoing)
    left = 0 if mode == "keep" else view.unfinished
    ended = (AbortBatches(ongoing.previous),) if mode == "abort" and left else ()
    if not left and (mode == "drain" or not waiting):
        return _enter(ongoing, "load", view.now), ()
    if not view.is_late(ongoing):
        return ongoing, ended
    why = f"{_late(ongoing)}: {left} unfinished requests of {ongoing.previous}" if left else _late(ongoing)
    return _give_up(ongoing, f"{', '.join(waiting) or 'nobody'}: {why}", view.now, waiting), ()


def _roll_back(ongoing: WeightsTransaction, view: _View) -> tuple[WeightsTransaction, tuple[TransactionAction, ...]]:
    """Until every worker has the previous version again; who does not get there in time is replaced."""
    waiting = view.unconfirmed(ongoing)
    if waiting and not view.is_late(ongoing):
        return ongoing, ()
    failed = _enter(ongoing, "failed", view.now)
    if not waiting:
        return failed, ()
    return _replacing(failed, waiting, f"{', '.join(waiting)}: {_late(ongoing)}"), (DrainWorkers(waiting),)


_PHASES: dict[str, Callable[[WeightsTransaction, _View], tuple[WeightsTransaction, tuple[TransactionAction, ...]]]] = {
    "prefetch": _await_all,
    "quiesce": _quiesce,
    "load": _await_all,
    "rollback": _roll_back,
}


def _leftovers(orders: FleetSpec, ongoing: WeightsTransaction, unfinished: int) -> tuple[TransactionAction, ...]:
    """After the commit: batches of the previous version, also those opened meanwhile, go on with the new one."""
    publish, old = ongoing.publish, ongoing.previous
    kept = publish.mode == "keep"
    stale = stale_versions(orders.versions, publish.version, publish.max_staleness) if kept else ()
    ended = (AbortBatches(old),) if publish.mode == "abort" and unfinished else ()
    return (*ended, ChangeVersion(old, publish.version, stale))


def _same(one: Publish, other: Publish) -> bool:
    return (one.version, one.source, one.canary) == (other.version, other.source, other.canary)


def _late(ongoing: WeightsTransaction) -> str:
    return f"not done with {ongoing.phase} within {(deadline(ongoing) or 0.0) - ongoing.entered_at:g} s"


def _replacing(ongoing: WeightsTransaction, names: tuple[str, ...], why: str) -> WeightsTransaction:
    message = f"{ongoing.message}; {why}" if ongoing.message else why
    return ongoing.model_copy(update={"replaced": (*ongoing.replaced, *names), "message": message})


def _give_up(ongoing: WeightsTransaction, why: str, now: float, waiting: tuple[str, ...] = ()) -> WeightsTransaction:
    """Back to the previous version, which only a worker that was told to load can have lost."""
    told = ongoing.model_copy(update={"message": why, "waiting_for": waiting})
    return _enter(told, "rollback" if ongoing.phase == "load" else "failed", now)


def _spend(ongoing: WeightsTransaction, now: float) -> WeightsTransaction:
    """Books the time since the phase, or its latest attempt, began."""
    spent = ongoing.seconds.get(ongoing.phase, 0.0) + now - ongoing.entered_at
    return ongoing.model_copy(update={"seconds": ongoing.seconds | {ongoing.phase: spent}, "entered_at": now})


def _enter(ongoing: WeightsTransaction, phase: TransactionPhase, now: float) -> WeightsTransaction:
    ended = {"finished_at": now} if phase in ("done", "failed") else {}
    told = {} if phase in ("rollback", "failed") else {"waiting_for": ()}
    return _spend(ongoing, now).model_copy(update={"phase": phase, **ended, **told})


def _put(orders: FleetSpec, ongoing: WeightsTransaction) -> FleetSpec:
    """The orders with the transaction as it is now; with its commit the new version is what the fleet serves."""
    update: dict[str, object] = {"revision": orders.revision + 1, "transaction": ongoing}
    publish = ongoing.publish
    if ongoing.phase == "commit" and orders.publisher != ongoing.id:
        update |= {
            "version": publish.version,
            "source": publish.source,
            "publisher": ongoing.id,
            "canary": publish.canary,
            "versions": (*orders.versions, publish.version),
        }
    return orders.model_copy(update=update)
