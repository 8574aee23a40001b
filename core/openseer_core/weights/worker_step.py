"""What a worker does next about its weights: a function of the fleet spec and of what it has, whenever it looks.

So a worker that boots in mid-transaction, or missed half of one, does the right thing: it claims nothing before it has
loaded what the fleet spec says, and only ever for the version that it has loaded.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

from openseer_core.ids import INITIAL_VERSION
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Canary, Source

Attempt = tuple[int, int, str]
"""A transaction (0: none), its attempt and its phase: what a failure is of, so that it is not repeated at once."""


@dataclass(frozen=True, slots=True)
class WeightsTarget:
    """Weights to serve. `source`: None is the job's own model; `publisher`: the transaction they came with, or 0.
    `adapter`: they are a LoRA adapter, beside other weights."""

    version: str
    publisher: int
    source: Source | None = None
    canary: Canary | None = None
    adapter: bool = False


class LoadedAdapter(NamedTuple):
    """An adapter that a worker has: its version, the transaction that it came with, and the digest of its files."""

    version: str
    publisher: int
    digest: str

    def is_of(self, target: WeightsTarget) -> bool:
        """Whether it is this one."""
        needed = None if target.source is None else target.source.digest
        return (self.version, self.publisher) == (target.version, target.publisher) and needed in (None, self.digest)


@dataclass(frozen=True, slots=True)
class WeightsState:
    """What a worker has.

    `version`: "" while none is whole. `digest`: of the files that it was loaded from, "" for none. `fetched`: the
    transaction whose files it has read. `failed`: the latest attempt, if that went wrong and another is not due.
    `asleep`: its engine samples nothing; `weights_awake`: but has its weights awake.
    `adapters`: those that are loaded; `adapters_wait`: one of the fleet's has failed, and another try is not due.
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
        """Whether these are the weights that are loaded, by their digest where one is known by now."""
        if target.adapter:
            return any(adapter.is_of(target) for adapter in self.adapters)
        needed = None if target.source is None else target.source.digest
        same = (self.version, self.publisher) == (target.version, target.publisher)
        return same and needed in (None, self.digest)


@dataclass(frozen=True, slots=True)
class WorkerStep:
    """`claims`: may take new work. `give_back`: gives back all it holds, tokens kept. `load`: then loads these; an
    adapter is loaded beside the work.

    `fetch`: reads their files beside its work. `confirms`: the phase that it has done its part of, "" for none.
    `sleep`: its engine falls asleep, and `discards` its weights; `wake_weights`: wakes these alone; `wake`: wakes.
    `leaves`: cannot go on; drains. `drop`: adapters that are served no longer; it gives back what runs with them.
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
    """What a failure at this moment would be of."""
    transaction = fleet_spec.active_transaction
    return (0, 0, "") if transaction is None else (transaction.id, transaction.attempt, transaction.phase)


def targets(fleet_spec: FleetSpec) -> tuple[WeightsTarget, ...]:
    """What a worker may have to load, by the fleet spec as it is."""
    transaction, served = fleet_spec.active_transaction, (_target(fleet_spec), *_adapters(fleet_spec))
    if transaction is None or transaction.phase not in ("prefetch", "quiesce", "load"):
        return served
    return *served, _new(transaction)


def claimed_adapters(fleet_spec: FleetSpec, state: WeightsState) -> tuple[str, ...]:
    """The versions of adapters that a worker claims for: the fleet serves them, and it has them."""
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
    """Falls asleep, wakes its weights, or loads others into them; those of before are loaded when all is awake."""
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
        case _:  # commit: the new version is served, but old work may still be on its way over
            return _reach(served, state, running, confirms="", blocked=blocked)


def _take_adapter(
    fleet_spec: FleetSpec, transaction: WeightsTransaction, state: WeightsState, running: int, *, blocked: bool
) -> WorkerStep:
    """An adapter is loaded beside the work: there is nothing to hand over, or to go back to."""
    working, new = _serve(fleet_spec, state, running, blocked=blocked), _new(transaction)
    if transaction.phase == "quiesce":
        return replace(working, confirms="quiesce")
    if transaction.phase != "load" or not working.claims:
        return working
    if state.has(new):
        return replace(working, confirms="load")
    return replace(working, load=None if blocked or working.drop else new)


def _serve(fleet_spec: FleetSpec, state: WeightsState, running: int, *, blocked: bool) -> WorkerStep:
    """What nobody has said the digest of is served by nobody: who has loaded it first says it."""
    target = _target(fleet_spec)
    if not state.has(target):
        return _reach(target, state, running, confirms="", blocked=blocked)
    wanted = [target for target in targets(fleet_spec) if target.adapter]
    drop = tuple(adapter.version for adapter in state.adapters if not any(adapter.is_of(target) for target in wanted))
    missing = [target for target in _adapters(fleet_spec) if not state.has(target)]
    is_due = missing and not drop and not state.adapters_wait
    return WorkerStep(claims=not fleet_spec.awaits_digest, drop=drop, load=missing[0] if is_due else None)


def _reach(target: WeightsTarget, state: WeightsState, running: int, *, confirms: str, blocked: bool) -> WorkerStep:
    """Without claiming: gives back what it holds, then loads, then says so."""
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
