"""Who has loaded what the fleet serves, and what the files are of which nobody has said that before."""

from collections.abc import Sequence

from openseer_core.weights.fleet_spec import FleetSpec
from openseer_core.weights.publish import Source
from openseer_core.worker.heartbeat import WeightsReport, WorkerStatus


def has_loaded(fleet_spec: FleetSpec, report: WeightsReport) -> bool:
    """Whether a worker has loaded the version that the fleet serves, with its adapters.

    One of an earlier release says no more of it than the version's name.
    """
    needed = None if fleet_spec.source is None else fleet_spec.source.digest
    has_weights = report.version == fleet_spec.version and (not report.loaded or needed in (None, report.loaded))
    return has_weights and all(
        report.adapters.get(adapter.version) == adapter.source.digest for adapter in fleet_spec.adapters
    )


def why_not_loaded(fleet_spec: FleetSpec, report: WeightsReport) -> str:
    """What has gone wrong for a worker that has not loaded the version that the fleet serves; "" for nothing."""
    return "" if has_loaded(fleet_spec, report) else report.error or report.adapter_error


def is_ready(fleet_spec: FleetSpec, worker: WorkerStatus, now: float) -> bool:
    """Whether a worker works and has loaded what the fleet serves; while the whole fleet loads, a phase says how far it
    is. `now`: seconds of the store's clock."""
    transaction, report = fleet_spec.active_transaction, worker.heartbeat.weights
    all_load = transaction is not None and transaction.phase in ("load", "rollback")
    return worker.works(now) and (all_load or report is None or has_loaded(fleet_spec, report))


def found_source(fleet_spec: FleetSpec, workers: Sequence[WorkerStatus], now: float) -> Source | None:
    """The source of the version that the fleet serves, with the digest that it awaits: of the files that the first of
    the workers, by name, has loaded. None where no digest is awaited, or nobody has loaded any."""
    if fleet_spec.source is None or not fleet_spec.awaits_digest:
        return None
    working = sorted((worker for worker in workers if worker.works(now)), key=lambda worker: worker.name)
    reports = [worker.heartbeat.weights for worker in working if worker.heartbeat.weights is not None]
    served = (fleet_spec.version, fleet_spec.publisher)
    found = [report.loaded for report in reports if (report.version, report.publisher) == served and report.loaded]
    return fleet_spec.source.model_copy(update={"digest": found[0]}) if found else None
