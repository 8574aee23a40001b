"""The weights transaction: the state machine that moves the whole fleet to new weights, or back.

Problem: all tokens of a version must come from its weights, although workers start, fail and sleep at any moment.
Idea: phases, prefetch → quiesce → load → commit → done, or rollback → failed. Each participant confirms a phase in its
heartbeat. The batch controller calls `advance`, carries out the actions, and writes the new fleet spec. `advance` is
pure and may be repeated, also by two replicas. Participants are the workers that work at the start, until they leave,
fail or fall asleep. Other workers need not confirm, because they load the fleet spec's version before they claim.
Example: workers a and b serve v1; v2 is published, mode drain, retries 1. Prefetch: both read the files, their digests
agree. Quiesce: both work until all requests of v1 have ended. Load: b confirms, a reports an error, so attempt 1
begins, and a confirms. Commit: one write makes v2 the served version. If a failed again, `on_failure` abort would roll
both back to v1, and replace would drain a and commit with b.
Except quiesce in mode drain, no phase ends without a confirmation. If no participant is left, all working workers take
part; without any worker the phase waits, and fails at its deadline. Only a fleet without workers at the start, or whose
weights sleep, commits at once; if the digest is unknown, no worker claims until one has loaded the version.
Source: docs/decisions/0009.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from openseer_core.errors import PublishRefusedError
from openseer_core.manifest.generation import Lora
from openseer_core.weights.adapters import no_place
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.loaded import found_source
from openseer_core.weights.publish import Publish, TransactionPhase
from openseer_core.weights.versions import leaving, stale_by
from openseer_core.worker.heartbeat import WeightsReport, WorkerStatus

CONFIRMED = ("prefetch", "quiesce", "load")
"""The phases that workers confirm, in order; the confirmation of a phase includes all earlier ones."""


@dataclass(frozen=True, slots=True)
class AbortBatches:
    """Ends all unfinished requests of this version and reports their partial responses."""

    version: str


@dataclass(frozen=True, slots=True)
class ChangeVersion:
    """Continues batches of version `old` with `new`; aborts responses with tokens of `stale` versions."""

    old: str
    new: str
    stale: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DrainWorkers:
    """Drains these workers; their successors load the version of the fleet spec."""

    workers: tuple[str, ...]


TransactionAction = AbortBatches | ChangeVersion | DrainWorkers


@dataclass(frozen=True, slots=True)
class Advance:
    """Actions to carry out in order, then the fleet spec to write (the same object if nothing has changed)."""

    fleet_spec: FleetSpec
    actions: tuple[TransactionAction, ...] = ()


def participants(workers: Sequence[WorkerStatus], now: float, *, adapter: bool = False) -> tuple[str, ...]:
    """The participants of a transaction that begins now. `adapter`: whether it publishes an adapter."""
    return tuple(sorted(worker.name for worker in workers if worker.works(now) and _takes_part(worker, adapter)))


def begin(
    fleet_spec: FleetSpec, publish: Publish, participants: Sequence[str], now: float, lora: Lora | None = None
) -> FleetSpec:
    """The fleet spec with a new transaction; the same object if the latest one publishes the same and has not failed.

    `lora`: the job's limits for adapters. Raises PublishRefusedError while another transaction is active, for a version
    name that was published before, and for an adapter that the fleet cannot serve.
    """
    last = fleet_spec.transaction
    if last is not None and last.publish.is_of(publish) and last.phase not in ("rollback", "failed"):
        if not last.active and publish.version not in fleet_spec.served:
            raise PublishRefusedError(f"adapter {publish.version} was removed; publish it under a version of its own")
        return fleet_spec
    if fleet_spec.active_transaction is not None:
        active = fleet_spec.active_transaction
        raise PublishRefusedError(
            f"weights {active.publish.version} are being published (transaction {active.id}, in {active.phase}); "
            "wait until it is done, or abort it"
        )
    if publish.version in (*fleet_spec.versions, *fleet_spec.adapter_versions):
        raise PublishRefusedError(f"weights {publish.version} were published before; give new weights another name")
    if why := no_place(fleet_spec, publish, participants, lora):
        raise PublishRefusedError(why)
    transaction = WeightsTransaction(
        id=fleet_spec.next_transaction,
        publish=publish,
        previous=fleet_spec.replaced_by(publish),
        previous_source=fleet_spec.source,
        phase="prefetch" if publish.prefetch else "quiesce",
        started_at=now,
        entered_at=now,
        participants=tuple(participants),
        digest=publish.source.digest or "",
        waiting_for=tuple(participants),
    )
    return _put(fleet_spec.model_copy(update={"transactions": transaction.id}), transaction)


def cancel(fleet_spec: FleetSpec, now: float) -> FleetSpec:
    """The fleet spec with the transaction cancelled; the same object if none is active, or in commit or rollback."""
    transaction = fleet_spec.active_transaction
    if transaction is None or transaction.phase in ("commit", "rollback"):
        return fleet_spec
    return _put(fleet_spec, _give_up(transaction, "aborted by request", now))


def advance(fleet_spec: FleetSpec, workers: Sequence[WorkerStatus], unfinished: int, now: float) -> Advance:
    """The next step, from the workers' reports. `unfinished`: number of unfinished requests of the versions that the
    active transaction replaces (versions.leaving)."""
    found = found_source(fleet_spec, workers, now)
    transaction = fleet_spec.active_transaction
    if found is not None:
        return Advance(fleet_spec.changed(source=found))
    if transaction is None:
        return Advance(fleet_spec)
    if transaction.phase == "commit":
        return Advance(
            _put(fleet_spec, _enter(transaction, "done", now)), _leftovers(fleet_spec, transaction, unfinished)
        )
    transaction = _with_who_is_there(transaction, workers, now)
    rests = fleet_spec.rest is not None and not fleet_spec.weights_awake
    view = _view(transaction, workers, unfinished, now, rests=rests, left=leaving(fleet_spec, transaction))
    actions: tuple[TransactionAction, ...] = ()
    phase = ""
    while transaction.phase != phase and transaction.phase in _PHASES:
        phase = transaction.phase
        transaction, more = _PHASES[phase](transaction, view)
        actions += more
    return Advance(fleet_spec if transaction == fleet_spec.transaction else _put(fleet_spec, transaction), actions)


def deadline(transaction: WeightsTransaction) -> float | None:
    """The end of the time limit of the phase's present attempt (store's clock, seconds); None without a limit."""
    deadlines = transaction.publish.deadlines
    longest = {
        "prefetch": deadlines.prefetch,
        "quiesce": deadlines.quiesce,
        "load": deadlines.load,
        "rollback": deadlines.load,
    }.get(transaction.phase)
    return None if longest is None else transaction.entered_at + longest


def waiting_for(transaction: WeightsTransaction, workers: Sequence[WorkerStatus], now: float) -> tuple[str, ...]:
    """The workers that have not confirmed the phase; for quiesce in mode drain, the workers with requests."""
    view = _view(transaction, workers, 0, now, rests=False)
    if transaction.phase == "quiesce" and transaction.publish.mode == "drain":
        return view.holders
    return view.unconfirmed(transaction) if transaction.phase in _PHASES else ()


# ---- the state that a step uses


@dataclass(frozen=True, slots=True)
class _View:
    """The inputs of a step. `reports`: by name, of participants that work and are awake; `holders`: those with
    requests; `rests`: whether the GPUs are lent and the weights asleep; `left`: the replaced versions."""

    reports: dict[str, WeightsReport]
    holders: tuple[str, ...]
    unfinished: int
    now: float
    rests: bool
    left: tuple[str, ...] = ()

    def is_confirmed(self, transaction: WeightsTransaction) -> bool:
        """Whether all reporting participants have confirmed the phase; without any, whether none is needed.

        An adapter needs its digest: the publisher states it, or a participant reports it. That of weights may follow.
        """
        if not self.reports:
            is_known = bool(transaction.digest) or transaction.publish.adapter is None
            return is_known and (self.rests or not transaction.participants)
        return not self.unconfirmed(transaction)

    def unconfirmed(self, transaction: WeightsTransaction) -> tuple[str, ...]:
        return tuple(name for name, report in self.reports.items() if not has_confirmed(report, transaction))

    def digests(self) -> dict[str, list[str]]:
        """Digest → names of workers that report it; empty if a worker (of an earlier release) reports none."""
        found: dict[str, list[str]] = {}
        for name, report in self.reports.items():
            found.setdefault(report.digest, []).append(name)
        return {} if "" in found else found

    def failing(self, transaction: WeightsTransaction) -> tuple[str, ...]:
        """Workers whose present attempt has failed."""
        return tuple(name for name, report in self.reports.items() if has_failed(report, transaction))

    def is_late(self, transaction: WeightsTransaction) -> bool:
        at = deadline(transaction)
        return at is not None and self.now >= at


def has_confirmed(report: WeightsReport, transaction: WeightsTransaction) -> bool:
    """Whether a worker has completed the transaction's present phase, by its report."""
    if report.transaction != transaction.id or report.error:
        return False
    if transaction.phase == "rollback":
        return report.phase == "rollback" and report.version == transaction.previous
    loaded = report.adapters if transaction.publish.adapter is not None else (report.version,)
    if transaction.phase == "load" and transaction.publish.version not in loaded:
        return False
    if report.phase not in CONFIRMED or transaction.phase not in CONFIRMED:
        return False
    return CONFIRMED.index(report.phase) >= CONFIRMED.index(transaction.phase)


def has_failed(report: WeightsReport, transaction: WeightsTransaction) -> bool:
    """Whether a worker's present attempt has failed, by its report."""
    return bool(report.error) and (report.transaction, report.attempt) == (transaction.id, transaction.attempt)


def _report(worker: WorkerStatus) -> WeightsReport:
    return worker.heartbeat.weights or WeightsReport()


def _takes_part(worker: WorkerStatus, adapter: bool) -> bool:
    """Whether a worker can load: its weights are awake; for an adapter, which is scored then, also its KV cache."""
    report = _report(worker)
    return not report.asleep or (report.weights_awake and not adapter)


def _view(
    transaction: WeightsTransaction,
    workers: Sequence[WorkerStatus],
    unfinished: int,
    now: float,
    *,
    rests: bool,
    left: tuple[str, ...] = (),
) -> _View:
    wanted = set(transaction.participants) - set(transaction.replaced)
    there = sorted(
        (worker for worker in workers if worker.name in wanted and worker.works(now)), key=lambda worker: worker.name
    )
    awake = [worker for worker in there if _takes_part(worker, transaction.publish.adapter is not None)]
    holders = tuple(worker.name for worker in awake if worker.inflight)
    return _View({worker.name: _report(worker) for worker in awake}, holders, unfinished, now, rests, left)


def _with_who_is_there(
    transaction: WeightsTransaction, workers: Sequence[WorkerStatus], now: float
) -> WeightsTransaction:
    """Marks participants that no longer work as replaced; if none is left, all working workers become participants."""
    there = {worker.name for worker in workers if worker.works(now)}
    gone = tuple(name for name in transaction.participants if name not in there and name not in transaction.replaced)
    if gone:
        transaction = _replacing(transaction, gone, f"{', '.join(gone)} left during {transaction.phase}")
    successors = participants(workers, now, adapter=transaction.publish.adapter is not None)
    if not successors or not set(transaction.participants) <= set(transaction.replaced):
        return transaction
    joined = transaction.model_copy(
        update={
            "participants": tuple(sorted({*transaction.participants, *successors})),
            "replaced": tuple(name for name in transaction.replaced if name not in successors),
        }
    )
    return _noting(joined, f"{', '.join(successors)} joined during {transaction.phase}")


# ---- the phases


def _await_all(
    transaction: WeightsTransaction, view: _View
) -> tuple[WeightsTransaction, tuple[TransactionAction, ...]]:
    """Phases prefetch and load: waits until all participants have confirmed, within the deadline."""
    if view.is_confirmed(transaction):
        digests = view.digests()
        if len(digests) > 1:
            who = "; ".join(f"{', '.join(names)}: {digest}" for digest, names in digests.items())
            return _give_up(transaction, f"the workers have found different weights: {who}", view.now), ()
        known = transaction.model_copy(update={"digest": transaction.digest or next(iter(digests), "")})
        return _enter(known, "quiesce" if transaction.phase == "prefetch" else "commit", view.now), ()
    failing = view.failing(transaction)
    if view.is_late(transaction):
        return _setback(transaction, view, view.unconfirmed(transaction))
    return _setback(transaction, view, failing) if failing else (transaction, ())


def _setback(
    transaction: WeightsTransaction, view: _View, failed: tuple[str, ...]
) -> tuple[WeightsTransaction, tuple[TransactionAction, ...]]:
    """Reacts to failed or late workers (empty: no worker reports): another attempt, the end, or replacement."""
    whys = [f"{name}: {view.reports[name].error or _late(transaction)}" for name in failed]
    why = "; ".join(whys) or f"no worker reports: {_late(transaction)}"
    if transaction.attempt < transaction.publish.retries:
        again = _spend(transaction, view.now).model_copy(update={"attempt": transaction.attempt + 1, "message": why})
        return again, ()
    # If all workers fail, the new weights are the cause, and successors would fail too.
    hopeless = len(failed) == len(view.reports)
    if transaction.publish.on_failure == "abort" or hopeless:
        return _give_up(transaction, why, view.now, failed), ()
    return _replacing(transaction, failed, why), (DrainWorkers(failed),)


def _quiesce(transaction: WeightsTransaction, view: _View) -> tuple[WeightsTransaction, tuple[TransactionAction, ...]]:
    """Waits for the end of the replaced versions' requests (drain, abort) and for confirmations (keep, abort)."""
    mode = transaction.publish.mode
    waiting = view.holders if mode == "drain" else view.unconfirmed(transaction)
    confirmed = mode == "drain" or view.is_confirmed(transaction)
    left = 0 if mode == "keep" else view.unfinished
    ended = tuple(AbortBatches(version) for version in view.left) if mode == "abort" and left else ()
    if not left and confirmed:
        return _enter(transaction, "load", view.now), ()
    if not view.is_late(transaction):
        return transaction, ended
    why = f"{_late(transaction)}: {left} unfinished requests of {transaction.previous}" if left else _late(transaction)
    return _give_up(transaction, f"{', '.join(waiting) or 'no worker'}: {why}", view.now, waiting), ()


def _roll_back(
    transaction: WeightsTransaction, view: _View
) -> tuple[WeightsTransaction, tuple[TransactionAction, ...]]:
    """Waits until all participants have the previous version again; at the deadline the others are replaced."""
    waiting = view.unconfirmed(transaction)
    if waiting and not view.is_late(transaction):
        return transaction, ()
    failed = _enter(transaction, "failed", view.now)
    if not waiting:
        return failed, ()
    return _replacing(failed, waiting, f"{', '.join(waiting)}: {_late(transaction)}"), (DrainWorkers(waiting),)


_PHASES: dict[str, Callable[[WeightsTransaction, _View], tuple[WeightsTransaction, tuple[TransactionAction, ...]]]] = {
    "prefetch": _await_all,
    "quiesce": _quiesce,
    "load": _await_all,
    "rollback": _roll_back,
}


def _leftovers(
    fleet_spec: FleetSpec, transaction: WeightsTransaction, unfinished: int
) -> tuple[TransactionAction, ...]:
    """The actions after the commit: batches of the previous version, also those opened since, get the new version."""
    publish, old = transaction.publish, transaction.previous
    if not old:
        return ()
    ended = (AbortBatches(old),) if publish.mode == "abort" and unfinished else ()
    return (*ended, ChangeVersion(old, publish.version, stale_by(fleet_spec, publish.version)))


def _late(transaction: WeightsTransaction) -> str:
    return f"not done with {transaction.phase} within {(deadline(transaction) or 0.0) - transaction.entered_at:g} s"


def _replacing(transaction: WeightsTransaction, names: tuple[str, ...], why: str) -> WeightsTransaction:
    return _noting(transaction.model_copy(update={"replaced": (*transaction.replaced, *names)}), why)


def _noting(transaction: WeightsTransaction, what: str) -> WeightsTransaction:
    message = f"{transaction.message}; {what}" if transaction.message else what
    return transaction.model_copy(update={"message": message})


def _give_up(
    transaction: WeightsTransaction, why: str, now: float, waiting: tuple[str, ...] = ()
) -> WeightsTransaction:
    """Fails the transaction: in phase load of whole weights through a rollback, otherwise at once."""
    failed = transaction.model_copy(update={"message": why, "waiting_for": waiting})
    is_lost = transaction.phase == "load" and transaction.publish.adapter is None
    return _enter(failed, "rollback" if is_lost else "failed", now)


def _spend(transaction: WeightsTransaction, now: float) -> WeightsTransaction:
    """Adds the seconds since the start of the phase or of its latest attempt."""
    spent = transaction.seconds.get(transaction.phase, 0.0) + now - transaction.entered_at
    return transaction.model_copy(
        update={"seconds": transaction.seconds | {transaction.phase: spent}, "entered_at": now}
    )


def _enter(transaction: WeightsTransaction, phase: TransactionPhase, now: float) -> WeightsTransaction:
    ended = {"finished_at": now} if phase in ("done", "failed") else {}
    waiting = {} if phase in ("rollback", "failed") else {"waiting_for": ()}
    return _spend(transaction, now).model_copy(update={"phase": phase, **ended, **waiting})


def _put(fleet_spec: FleetSpec, transaction: WeightsTransaction) -> FleetSpec:
    """The fleet spec with this transaction; in phase commit it also makes the new version the served one."""
    update: dict[str, object] = {"transaction": transaction}
    if transaction.phase == "commit":
        update |= fleet_spec.with_committed(transaction)
    return fleet_spec.changed(**update)
