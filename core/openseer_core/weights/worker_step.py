"""What a worker does next about its weights: a function of the orders and of what it has, whenever it looks.

So a worker that boots in mid-transaction, or missed half of one, does the right thing: it claims nothing before it has
loaded what the orders say, and only ever for the version that it has loaded.
"""

from dataclasses import dataclass, replace

from openseer_core.ids import INITIAL_VERSION
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Canary, Source

Attempt = tuple[int, int, str]
"""A transaction (0: none), its attempt and its phase: what a failure is of, so that it is not repeated at once."""


@dataclass(frozen=True, slots=True)
class WeightsTarget:
    """Weights to serve. `source`: None is the job's own model; `publisher`: the transaction they came with, or 0."""

    version: str
    publisher: int
    source: Source | None = None
    canary: Canary | None = None


@dataclass(frozen=True, slots=True)
class WeightsState:
    """What a worker has. `version`: "" while none is whole. `fetched`: the transaction whose files it has read.

    `failed`: the latest try, if that went wrong and another is not due.
    """

    version: str = INITIAL_VERSION
    publisher: int = 0
    asleep: bool = False
    fetched: int = 0
    failed: Attempt | None = None

    def has(self, target: WeightsTarget) -> bool:
        """Whether these are the weights that are loaded."""
        return (self.version, self.publisher) == (target.version, target.publisher)


@dataclass(frozen=True, slots=True)
class WorkerStep:
    """`claims`: may take new work. `give_back`: hands back all it holds, tokens kept. `load`: then loads these.

    `fetch`: reads these files beside its work. `confirms`: the phase that it has done its part of, "" for none.
    `leaves`: cannot go on; drains.
    """

    claims: bool = False
    give_back: bool = False
    load: WeightsTarget | None = None
    fetch: Source | None = None
    sleep: bool = False
    wake: bool = False
    confirms: str = ""
    leaves: bool = False


def current_attempt(orders: FleetSpec) -> Attempt:
    """What a failure at this moment would be of."""
    ongoing = orders.active_transaction
    return (0, 0, "") if ongoing is None else (ongoing.id, ongoing.attempt, ongoing.phase)


def next_step(orders: FleetSpec, have: WeightsState, held: int) -> WorkerStep:
    """The next step of a worker that holds `held` responses."""
    blocked = have.failed == current_attempt(orders)
    if orders.rest is not None:
        falls_asleep = orders.rest == "sleep" and not have.asleep and not blocked
        return WorkerStep(give_back=True) if held else WorkerStep(sleep=falls_asleep)
    if have.asleep:
        return WorkerStep(wake=not blocked)
    ongoing = orders.active_transaction
    if ongoing is None:
        return _serve(orders, have, held, blocked=blocked)
    return _take_part(orders, ongoing, have, held, blocked=blocked)


def _take_part(
    orders: FleetSpec, ongoing: WeightsTransaction, have: WeightsState, held: int, *, blocked: bool
) -> WorkerStep:
    served = _target(orders)
    match ongoing.phase:
        case "prefetch":
            working = _serve(orders, have, held, blocked=blocked)
            if have.fetched == ongoing.id:
                return replace(working, confirms="prefetch")
            return working if blocked else replace(working, fetch=ongoing.publish.source)
        case "quiesce" if ongoing.publish.mode == "drain":
            return replace(_serve(orders, have, held, blocked=blocked), confirms="quiesce")
        case "quiesce":
            return WorkerStep(give_back=True) if held else WorkerStep(confirms="quiesce")
        case "load":
            publish = ongoing.publish
            new = WeightsTarget(publish.version, ongoing.id, publish.source, publish.canary)
            return _reach(new, have, held, confirms="load", blocked=blocked)
        case "rollback":
            step = _reach(served, have, held, confirms="rollback", blocked=blocked)
            return replace(step, leaves=blocked)
        case _:  # commit: the new version is served, but old work may still be on its way over
            return _reach(served, have, held, confirms="", blocked=blocked)


def _serve(orders: FleetSpec, have: WeightsState, held: int, *, blocked: bool) -> WorkerStep:
    target = _target(orders)
    return WorkerStep(claims=True) if have.has(target) else _reach(target, have, held, confirms="", blocked=blocked)


def _reach(target: WeightsTarget, have: WeightsState, held: int, *, confirms: str, blocked: bool) -> WorkerStep:
    """Without claiming: hands back what it holds, then loads, then says so."""
    if held:
        return WorkerStep(give_back=True)
    if have.has(target):
        return WorkerStep(confirms=confirms)
    return WorkerStep() if blocked else WorkerStep(load=target)


def _target(orders: FleetSpec) -> WeightsTarget:
    return WeightsTarget(orders.version, orders.publisher, orders.source, orders.canary)
