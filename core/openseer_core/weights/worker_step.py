"""The next change of a worker's weights: a pure function of the fleet spec and the worker's state.

It needs no history, so a worker that starts during a transaction, or misses a part of one, also acts correctly: it
claims only after it has loaded the fleet spec's version, and only requests of that version.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from openseer_core.ids import INITIAL_VERSION
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Canary, Source

Attempt = tuple[int, int, str]
"""A transaction's id (0: none), attempt and phase. A worker does not repeat a failed attempt at once."""


@dataclass(frozen=True, slots=True)
class WeightsTarget:
    """Weights to load. `source`: None for the job's own model. `publisher`: the transaction that published them; 0 for
    none. `adapter`: whether they are a LoRA adapter beside other weights."""

    version: str
    publisher: int
    source: Source | None = None
    canary: Canary | None = None
    adapter: bool = False


class LoadedAdapter(NamedTuple):
    """An adapter that a worker has loaded: version, the transaction that published it, and digest of its files."""

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

    `version`: the loaded version, "" while none is completely loaded; `digest`: of its files, "" without files.
    `fetched`: the transaction whose files the worker has read. `failed`: the latest attempt, if it failed and the next
    try is not due. `asleep`: whether the engine samples nothing; `weights_awake`: whether its weights are awake
    nevertheless. `adapters`: the loaded ones; `adapters_wait`: whether a load of an adapter failed and the next try is
    not due.
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
        """Whether the target is loaded; digests are compared if the target's is known."""
        if target.adapter:
            return any(adapter.is_of(target) for adapter in self.adapters)
        needed = None if target.source is None else target.source.digest
        same = (self.version, self.publisher) == (target.version, target.publisher)
        return same and needed in (None, self.digest)


@dataclass(frozen=True, slots=True)
class WorkerStep:
    """The changes that a worker makes next.

    `claims`: the worker may claim requests. `give_back`: it gives back all its requests with their tokens. `load`: the
    weights to load; whole weights are loaded without requests, an adapter while requests run. `fetch`: the weights
    whose files it reads while requests run. `confirms`: the phase that it has completed, "" for none. `sleep`: the
    engine falls asleep; `discards`: it discards its weights then; `wake_weights`: only the weights wake; `wake`: all
    parts wake. `leaves`: the worker cannot continue and drains. `drop`: versions of adapters that are no longer served;
    the worker gives back their requests and unloads them.
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
    """The transaction's present attempt; (0, 0, "") without an active transaction."""
    transaction = fleet_spec.active_transaction
    return (0, 0, "") if transaction is None else (transaction.id, transaction.attempt, transaction.phase)


def targets(fleet_spec: FleetSpec) -> tuple[WeightsTarget, ...]:
    """The weights that a worker may have to load under this fleet spec."""
    transaction, served = fleet_spec.active_transaction, (_target(fleet_spec), *_adapters(fleet_spec))
    if transaction is None or transaction.phase not in ("prefetch", "quiesce", "load"):
        return served
    return *served, _new(transaction)


def claimed_adapters(fleet_spec: FleetSpec, state: WeightsState) -> tuple[str, ...]:
    """The versions of adapters whose requests a worker claims: served by the fleet and loaded by the worker."""
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
    """The step while the GPUs are lent: the engine falls asleep, wakes its weights, or loads a transaction's weights.

    The served weights are loaded only after all parts are awake again.
    """
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
        case _:  # commit: the new version is served, but requests of the old version may not have moved yet
            return _reach(served, state, running, confirms="", blocked=blocked)


def _take_adapter(
    fleet_spec: FleetSpec, transaction: WeightsTransaction, state: WeightsState, running: int, *, blocked: bool
) -> WorkerStep:
    """The step in the publish of an adapter, which is loaded while requests run: no give-back, no rollback."""
    working, new = _serve(fleet_spec, state, running, blocked=blocked), _new(transaction)
    if transaction.phase == "quiesce":
        return replace(working, confirms="quiesce")
    if transaction.phase != "load" or not working.claims:
        return working
    if state.has(new):
        return replace(working, confirms="load")
    return replace(working, load=None if blocked or working.drop else new)


def _serve(fleet_spec: FleetSpec, state: WeightsState, running: int, *, blocked: bool) -> WorkerStep:
    """The step of a worker that serves: it loads the served version and adapters, and claims if the digest is known."""
    target = _target(fleet_spec)
    if not state.has(target):
        return _reach(target, state, running, confirms="", blocked=blocked)
    wanted = [target for target in targets(fleet_spec) if target.adapter]
    drop = tuple(adapter.version for adapter in state.adapters if not any(adapter.is_of(target) for target in wanted))
    missing = [target for target in _adapters(fleet_spec) if not state.has(target)]
    is_due = missing and not drop and not state.adapters_wait
    return WorkerStep(claims=not fleet_spec.awaits_digest, drop=drop, load=missing[0] if is_due else None)


def _reach(target: WeightsTarget, state: WeightsState, running: int, *, confirms: str, blocked: bool) -> WorkerStep:
    """The step towards `target` without claims: gives back all requests, then loads, then confirms."""
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
