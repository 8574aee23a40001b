"""The fleet's weights as JSON over HTTP."""

from collections.abc import Sequence

from pydantic import Field

from openseer_core.json_model import JsonModel
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.loaded import why_not_loaded
from openseer_core.weights.publish import PublishMode, TransactionPhase
from openseer_core.weights.transaction import deadline, waiting_for
from openseer_core.worker.heartbeat import WeightsReport, WorkerStatus


class WorkerWeights(JsonModel):
    """One worker in a transaction. `phase`: the last that it has confirmed; `seconds`: its duration of each phase."""

    worker: str
    version: str
    phase: str
    attempt: int = 0
    error: str | None = None
    canary_difference: float | None = None
    seconds: dict[str, float] = Field(
        default_factory=dict, description="Duration of each of the worker's phases, in seconds."
    )


class Transaction(JsonModel):
    """The state of a weights transaction. Times are seconds of the store's clock.

    `deadline`: end of the phase's time limit. `waiting_for`: workers that have not confirmed the phase yet; `replaced`:
    workers without which it continues. `seconds`: duration of each phase. `digest`: of the files, once it is known.
    `adapter`: name of the published LoRA adapter, "" for weights. `previous`: the version that is replaced, "" for the
    first version of an adapter.
    """

    id: int
    version: str = Field(description="The new version.")
    previous: str = Field(description="The version before.")
    mode: PublishMode
    phase: TransactionPhase
    attempt: int
    started_at: float = Field(description="Time of the begin, in seconds of the store's clock.")
    deadline: float | None = Field(
        default=None, description="End of the present phase's time limit, in seconds of the store's clock."
    )
    finished_at: float | None = Field(
        default=None, description="Time of the end, in seconds of the store's clock; None while it runs."
    )
    waiting_for: list[str] = Field(default_factory=list[str], description="Workers that the transaction waits for.")
    replaced: list[str] = Field(default_factory=list[str])
    message: str = Field(default="", description='The reason of a rollback or failure; "" without one.')
    seconds: dict[str, float] = Field(default_factory=dict, description="Duration of each phase, in seconds.")
    workers: list[WorkerWeights] = Field(default_factory=list[WorkerWeights])
    digest: str | None = None
    adapter: str = ""


class ServedAdapter(JsonModel):
    """A LoRA adapter beside the weights. `base`: version of the weights on which it works; `digest`: of its files.

    `versions`: all versions published under its name, the present one last.
    """

    name: str
    version: str
    base: str
    digest: str | None = None
    versions: list[str]


class Weights(JsonModel):
    """The fleet's weights. `revision`: grows with every change. `versions`: the initial version and all published ones,
    the latest last. `errors`: worker → the reason why it cannot load `version` or one of the `adapters`.
    """

    revision: int
    version: str
    versions: list[str]
    transaction: Transaction | None = None
    errors: dict[str, str] = Field(default_factory=dict)
    adapters: list[ServedAdapter] = Field(default_factory=list[ServedAdapter])


def to_wire(fleet_spec: FleetSpec, workers: Sequence[WorkerStatus], now: float) -> Weights:
    """The fleet's weights, with the latest transaction and the last heartbeats of its workers.

    `now`: seconds of the store's clock.
    """
    transaction = fleet_spec.transaction
    reports = {worker.name: worker.heartbeat.weights for worker in workers if worker.is_fresh(now)}
    whys = {name: why_not_loaded(fleet_spec, report) for name, report in reports.items() if report is not None}
    return Weights(
        revision=fleet_spec.revision,
        version=fleet_spec.version,
        versions=list(fleet_spec.versions),
        transaction=None if transaction is None else _transaction(transaction, workers, now),
        errors={name: why for name, why in whys.items() if why},
        adapters=[
            ServedAdapter(
                name=adapter.name,
                version=adapter.version,
                base=adapter.base,
                digest=adapter.source.digest,
                versions=list(adapter.versions),
            )
            for adapter in fleet_spec.adapters
        ],
    )


def _transaction(transaction: WeightsTransaction, workers: Sequence[WorkerStatus], now: float) -> Transaction:
    publish = transaction.publish
    last = {worker.name: worker.heartbeat.weights for worker in workers if worker.heartbeat.weights is not None}
    waiting = waiting_for(transaction, workers, now) if transaction.active else transaction.waiting_for
    return Transaction(
        id=transaction.id,
        version=publish.version,
        previous=transaction.previous,
        mode=publish.mode,
        phase=transaction.phase,
        attempt=transaction.attempt,
        started_at=transaction.started_at,
        deadline=deadline(transaction),
        finished_at=transaction.finished_at,
        waiting_for=list(waiting),
        replaced=list(transaction.replaced),
        message=transaction.message,
        seconds=transaction.seconds,
        workers=[_worker(name, last[name], transaction) for name in transaction.participants if name in last],
        digest=transaction.digest or None,
        adapter="" if publish.adapter is None else publish.adapter.name,
    )


def _worker(name: str, report: WeightsReport, transaction: WeightsTransaction) -> WorkerWeights:
    mine = report.transaction == transaction.id
    return WorkerWeights(
        worker=name,
        version=report.version,
        phase=report.phase if mine else "",
        attempt=report.attempt if mine else 0,
        error=(report.error or None) if mine else None,
        canary_difference=report.difference if mine else None,
        seconds=report.seconds if mine else {},
    )
