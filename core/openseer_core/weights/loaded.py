"""Tests whether workers have loaded the served version, and finds its digest if the publish did not have one."""

from collections.abc import Sequence

from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Source
from openseer_core.worker.heartbeat import WeightsReport, WorkerStatus


def has_loaded(fleet_spec: FleetSpec, report: WeightsReport) -> bool:
    """Whether a worker has loaded the version that the fleet serves, and all of the fleet's adapters.

    Digests are compared if both are known; a worker of an earlier release reports only the version's name.
    """
    needed = None if fleet_spec.source is None else fleet_spec.source.digest
    has_weights = report.version == fleet_spec.version and (not report.loaded or needed in (None, report.loaded))
    return has_weights and all(
        report.adapters.get(adapter.version) == adapter.source.digest for adapter in fleet_spec.adapters
    )


def why_not_loaded(fleet_spec: FleetSpec, report: WeightsReport) -> str:
    """The error of a worker that has not loaded the served version; "" if it has, or reports no error."""
    return "" if has_loaded(fleet_spec, report) else report.error or report.adapter_error


def is_ready(fleet_spec: FleetSpec, worker: WorkerStatus, now: float) -> bool:
    """Whether a worker works and has loaded the served version. In phases load and rollback, in which the whole fleet
    loads, every working worker counts as ready. `now`: seconds of the store's clock."""
    transaction, report = fleet_spec.active_transaction, worker.heartbeat.weights
    all_load = transaction is not None and transaction.phase in ("load", "rollback")
    return worker.works(now) and (all_load or report is None or has_loaded(fleet_spec, report))


def found_source(fleet_spec: FleetSpec, workers: Sequence[WorkerStatus], now: float) -> Source | None:
    """The source of the served version, completed by the digest that a worker reports. None if the digest is known, or
    no working worker has loaded the version. Of several workers the first by name decides."""
    if fleet_spec.source is None or not fleet_spec.awaits_digest:
        return None
    working = sorted((worker for worker in workers if worker.works(now)), key=lambda worker: worker.name)
    reports = [worker.heartbeat.weights for worker in working if worker.heartbeat.weights is not None]
    served = (fleet_spec.version, fleet_spec.publisher)
    found = [report.loaded for report in reports if (report.version, report.publisher) == served and report.loaded]
    return fleet_spec.source.model_copy(update={"digest": found[0]}) if found else None
