"""Builds the weights of a worker from its job's settings."""

from collections.abc import Callable

from openseer_worker.engine import Engine
from openseer_worker.settings import WorkerSettings
from openseer_worker.weights.adapter_files import AdapterCheck
from openseer_worker.weights.folders import WeightFolders
from openseer_worker.weights.passing import Passing
from openseer_worker.weights.receiving import ReceivingSettings
from openseer_worker.weights.served import ServedWeights


def served_weights(
    settings: WorkerSettings, engine: Engine, wake: Callable[[], None], passing: Passing | None = None
) -> ServedWeights:
    """Returns the weights of a new worker of this job; the worker serves the job's own model at first."""
    spec, fleet = settings.job.spec, settings.fleet
    folders = WeightFolders(spec.weights.allowed_hosts, AdapterCheck(spec.model), fleet, passing)
    receiving = ReceivingSettings(settings.worker, spec.weights.transfer, fleet)
    return ServedWeights(engine, settings.job_name, wake, folders, receiving)
