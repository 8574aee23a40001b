"""A worker's next step about its weights: a pure function of the fleet spec and the worker's state.

So a worker that starts during a transaction, or missed a part of one, acts correctly: it claims only after it has
loaded the fleet spec's version, and only requests of that version.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from openseer_core.ids import INITIAL_VERSION
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Canary, Source

Attempt = tuple[int, int, str]
"""A transaction (0: none), its attempt and its phase: identifies a failure, so that it is not repeated at once."""


@dataclass(frozen=True, slots=True)
class WeightsTarget:
    """Weights to load. `source`: None is the job's own model; `publisher`: the transaction that published them, or 0.
    `adapter`: they are a LoRA adapter beside other weights."""

    version: str
    publisher: int
    source: Source | None = None
    canary: Canary | None = None
    adapter: bool = False


class LoadedAdapter(NamedTuple):
    """An adapter that a worker has loaded: its version, its transaction, and the digest of its files."""

    version: str
    publisher: int
    digest: str

    def is_of(self, target: WeightsTarget) -> bool:
        """Whether this adapter is the target."""
        needed = None if target.source is None else target.source.digest
        return (self.version, self.publisher) == (target.version, target.publisher) and needed in (None, self.digest)


@dataclass(frozen=True, slots=True)
class WeightsState:
    """The state of a worker's weights.

    `version`: "" while none is completely loaded. `digest`: of the files that it was loaded from, "" for none.
    `fetched`: the transaction whose files it has read. `failed`: the latest attempt, if that failed and another one is
    not due. `asleep`: its engine samples nothing; `weights_awake`: its weights are awake all the same. `adapters`: the
    loaded ones; `adapters_wait`: one of the fleet's failed to load, and another attempt is not due.
    """

    version: str = INITIAL_VERSION
    publisher: int = 0
    digest: str = ""
    asleep: bool = False
    weights_awake: bool = False
    fetched: int = 0
    failed: Attempt | None = None
    adapters: tuple[LoadedAdapter, ...] = ()
    adapters_wait: bool = False

    def has(self, target: WeightsTarget) -> bool:
        """Whether the target is loaded, compared by its digest where that is known."""
        if target.adapter:
            return any(adapter.is_of(target) for adapter in self.adapters)
        needed = None if target.source is None else target.source.digest
        same = (self.version, self.publisher) == (target.version, target.publisher)
        return same and needed in (None, self.digest)


@dataclass(frozen=True, slots=True)
class WorkerStep:
    """`claims`: may take new requests. `give_back`: returns all its requests, tokens kept. `load`: then loads these; an
    adapter is loaded while requests run.

    `fetch`: reads the target's files while requests run. `confirms`: the phase that it has completed, "" for none.
    `sleep`: its engine falls asleep, and `discards` its weights; `wake_weights`: wakes these alone; `wake`: wakes all.
    `leaves`: cannot continue; drains. `drop`: adapters that are not served any longer; it gives back their requests.
    """

    claims: bool = False
    give_back: bool = False
    load: WeightsTarget | None = None
    fetch: WeightsTarget | None = None
    sleep: bool = False
    discards: bool = False
    wake_weights: bool = False
    wake: bool = False
    confirms: str = ""
    leaves: bool = False
    drop: tuple[str, ...] = ()


def current_attempt(fleet_spec: FleetSpec) -> Attempt:
    """The attempt that a failure at this moment belongs to."""
    transaction = fleet_spec.active_transaction
    return (0, 0, "") if transaction is None else (transaction.id, transaction.attempt, transaction.phase)


def targets(fleet_spec: FleetSpec) -> tuple[WeightsTarget, ...]:
    """The weights that a worker may have to load under this fleet spec."""
    transaction, served = fleet_spec.active_transaction, (_target(fleet_spec), *_adapters(fleet_spec))
    if transaction is None or transaction.phase not in ("prefetch", "quiesce", "load"):
        return served
    return *served, _new(transaction)


def claimed_adapters(fleet_spec: FleetSpec, state: WeightsState) -> tuple[str, ...]:
    """The adapter versions that a worker claims requests of: those that the fleet serves and the worker has loaded."""
    return tuple(target.version for target in _adapters(fleet_spec) if state.has(target))


def next_step(fleet_spec: FleetSpec, state: WeightsState, running: int) -> WorkerStep:
    """The next step of a worker that holds `running` requests."""
    blocked = state.failed == current_attempt(fleet_spec)
    if fleet_spec.rest is not None:
        return WorkerStep(give_back=True) if running else _rest(fleet_spec, state, blocked=blocked)
    if state.asleep:
        return WorkerStep(wake=not blocked)
    transaction = fleet_spec.active_transaction
    if transaction is None:
        return _serve(fleet_spec, state, running, blocked=blocked)
    return _take_part(fleet_spec, transaction, state, running, blocked=blocked)


def _rest(fleet_spec: FleetSpec, state: WeightsState, *, blocked: bool) -> WorkerStep:
    """Falls asleep, wakes its weights, or loads others; the fleet's present weights are loaded after all is awake."""
    transaction = fleet_spec.active_transaction
    if fleet_spec.rest == "sleep" and not blocked:
        if not state.asleep or (state.weights_awake and not fleet_spec.weights_awake):
            return WorkerStep(sleep=True, discards=not fleet_spec.keeps_weights)
        if fleet_spec.weights_awake and not state.weights_awake:
            return WorkerStep(wake_weights=True)
    if transaction is None or transaction.publish.adapter is not None or not state.weights_awake:
        return WorkerStep()
    if transaction.phase == "prefetch" and state.fetched != transaction.id:
        return WorkerStep() if blocked else WorkerStep(fetch=_new(transaction))
    if transaction.phase in ("prefetch", "quiesce"):  # nothing runs
        return WorkerStep(confirms=transaction.phase)
    return _take_part(fleet_spec, transaction, state, 0, blocked=blocked)


def _take_part(
    fleet_spec: FleetSpec, transaction: WeightsTransaction, state: WeightsState, running: int, *, blocked: bool
) -> WorkerStep:
    served = _target(fleet_spec)
    if transaction.publish.adapter is not None and transaction.phase != "prefetch":
        return _take_adapter(fleet_spec, transaction, state, running, blocked=blocked)
    match transaction.phase:
        case "prefetch":
            working = _serve(fleet_spec, state, running, blocked=blocked)
            if state.fetched == transaction.id:
                return replace(working, confirms="prefetch")
            return working if blocked else replace(working, fetch=_new(transaction))
        case "quiesce" if transaction.publish.mode == "drain":
            return replace(_serve(fleet_spec, state, running, blocked=blocked), confirms="quiesce")
        case "quiesce":
            return WorkerStep(give_back=True) if running else WorkerStep(confirms="quiesce")
        case "load":
            return _reach(_new(transaction), state, running, confirms="load", blocked=blocked)
        case "rollback":
            step = _reach(served, state, running, confirms="rollback", blocked=blocked)
            return replace(step, leaves=blocked)
        case _:  # commit: the new version is served, but requests of the old one may not have moved yet
            return _reach(served, state, running, confirms="", blocked=blocked)


def _take_adapter(
    fleet_spec: FleetSpec, transaction: WeightsTransaction, state: WeightsState, running: int, *, blocked: bool
) -> WorkerStep:
    """An adapter is loaded while requests run: no request has to be given back, and no rollback is needed."""
    working, new = _serve(fleet_spec, state, running, blocked=blocked), _new(transaction)
    if transaction.phase == "quiesce":
        return replace(working, confirms="quiesce")
    if transaction.phase != "load" or not working.claims:
        return working
    if state.has(new):
        return replace(working, confirms="load")
    return replace(working, load=None if blocked or working.drop else new)


def _serve(fleet_spec: FleetSpec, state: WeightsState, running: int, *, blocked: bool) -> WorkerStep:
    """Serves the fleet's version. While its digest is unknown no worker claims; the first to load it reports it."""
    target = _target(fleet_spec)
    if not state.has(target):
        return _reach(target, state, running, confirms="", blocked=blocked)
    wanted = [target for target in targets(fleet_spec) if target.adapter]
    drop = tuple(adapter.version for adapter in state.adapters if not any(adapter.is_of(target) for target in wanted))
    missing = [target for target in _adapters(fleet_spec) if not state.has(target)]
    is_due = missing and not drop and not state.adapters_wait
    return WorkerStep(claims=not fleet_spec.awaits_digest, drop=drop, load=missing[0] if is_due else None)


def _reach(target: WeightsTarget, state: WeightsState, running: int, *, confirms: str, blocked: bool) -> WorkerStep:
    """Without claiming: gives back all requests, then loads, then confirms."""
    if running:
        return WorkerStep(give_back=True)
    if state.has(target):
        return WorkerStep(confirms=confirms)
    return WorkerStep() if blocked else WorkerStep(load=target)


def _target(fleet_spec: FleetSpec) -> WeightsTarget:
    return WeightsTarget(fleet_spec.version, fleet_spec.publisher, fleet_spec.source, fleet_spec.canary)


def _new(transaction: WeightsTransaction) -> WeightsTarget:
    publish = transaction.publish
    is_adapter = publish.adapter is not None
    return WeightsTarget(publish.version, transaction.id, transaction.source, publish.canary, is_adapter)


def _adapters(fleet_spec: FleetSpec) -> tuple[WeightsTarget, ...]:
    return tuple(
        WeightsTarget(adapter.version, adapter.publisher, adapter.source, adapter.canary, adapter=True)
        for adapter in fleet_spec.adapters
    )
