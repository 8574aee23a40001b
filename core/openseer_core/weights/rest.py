"""Sleep of engines while their GPUs are lent to the trainer: changes of the fleet spec, and a test of workers' reports.

An engine's memory has two parts, weights and KV cache, which a trainer may take and return one after the other. For
example, engines load new weights after the trainer has returned the memory of the weights, and before it returns the
memory of the KV cache. Engines sample only while both parts are awake.
"""

from collections.abc import Collection

from openseer_core.weights.fleet_spec import MEMORY_PARTS, FleetSpec, MemoryPart
from openseer_core.worker.heartbeat import WeightsReport


def awake_parts(fleet_spec: FleetSpec) -> tuple[MemoryPart, ...]:
    """The parts that the fleet spec requires to be awake, in the order of MEMORY_PARTS."""
    return MEMORY_PARTS if fleet_spec.rest is None else fleet_spec.awake


def asleep(fleet_spec: FleetSpec, parts: Collection[str], now: float, *, keep_weights: bool = True) -> FleetSpec:
    """The fleet spec with these parts asleep; the same object if they sleep already.

    `keep_weights`: whether engines keep the weights in the machine's memory, or discard them and load them again later.
    It has no effect on weights that sleep already. `now`: seconds of the store's clock.
    """
    before = awake_parts(fleet_spec)
    left = tuple(part for part in before if part not in parts)
    if left == before:
        return fleet_spec
    kept = keep_weights if "weights" in before and "weights" in parts else fleet_spec.keeps_weights
    return fleet_spec.changed(rest="sleep", awake=left, keeps_weights=kept, rest_since=now)


def woken(fleet_spec: FleetSpec, parts: Collection[str], now: float) -> FleetSpec:
    """The fleet spec with these parts awake; the same object if all are. `now`: seconds of the store's clock."""
    before = awake_parts(fleet_spec)
    after = tuple(part for part in MEMORY_PARTS if part in before or part in parts)
    if after == before:
        return fleet_spec
    if after == MEMORY_PARTS:
        return fleet_spec.changed(rest=None, awake=(), keeps_weights=True, rest_since=now)
    return fleet_spec.changed(rest="sleep", awake=after, rest_since=now)


def is_at_rest(fleet_spec: FleetSpec, report: WeightsReport | None) -> bool:
    """Whether a worker's engine sleeps as the fleet spec requires, by the worker's report.

    A report with another `rest_since` does not count: its worker follows an earlier fleet spec, and its engine may be
    waking, which a worker reports only afterwards.
    """
    if report is None or not report.asleep or report.rest_since not in (None, fleet_spec.rest_since):
        return False
    return report.weights_awake == fleet_spec.weights_awake
