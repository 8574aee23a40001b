"""Which workers have loaded the served version; and its digest, where it was unknown until a worker loaded it."""

from collections.abc import Sequence

from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Source
from openseer_core.worker.heartbeat import WeightsReport, WorkerStatus


def has_loaded(fleet_spec: FleetSpec, report: WeightsReport) -> bool:
    """Whether a worker has loaded the version that the fleet serves, with its adapters.

    A worker of an earlier release reports only the version's name.
    """
    needed = None if fleet_spec.source is None else fleet_spec.source.digest
    has_weights = report.version == fleet_spec.version and (not report.loaded or needed in (None, report.loaded))
    return has_weights and all(
        report.adapters.get(adapter.version) == adapter.source.digest for adapter in fleet_spec.adapters
    )


def why_not_loaded(fleet_spec: FleetSpec, report: WeightsReport) -> str:
    """The error of a worker that has not loaded the served version; "" if it has, or reports none."""
    return "" if has_loaded(fleet_spec, report) else report.error or report.adapter_error


def is_ready(fleet_spec: FleetSpec, worker: WorkerStatus, now: float) -> bool:
    """Whether a worker works and has loaded the served version. While the whole fleet loads, a working worker counts as
    ready, and the phase shows the progress. `now`: seconds of the store's clock."""
    transaction, report = fleet_spec.active_transaction, worker.heartbeat.weights
    all_load = transaction is not None and transaction.phase in ("load", "rollback")
    return worker.works(now) and (all_load or report is None or has_loaded(fleet_spec, report))


def found_source(fleet_spec: FleetSpec, workers: Sequence[WorkerStatus], now: float) -> Source | None:
    """The source of the served version with its missing digest, taken from the first worker, by name, that has
    loaded it. None if no digest is missing, or no worker has loaded the version."""
    if fleet_spec.source is None or not fleet_spec.awaits_digest:
        return None
    working = sorted((worker for worker in workers if worker.works(now)), key=lambda worker: worker.name)
    reports = [worker.heartbeat.weights for worker in working if worker.heartbeat.weights is not None]
    served = (fleet_spec.version, fleet_spec.publisher)
    found = [report.loaded for report in reports if (report.version, report.publisher) == served and report.loaded]
    return fleet_spec.source.model_copy(update={"digest": found[0]}) if found else None
