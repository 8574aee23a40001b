"""The fleet's weights as HTTP tells them."""

from collections.abc import Sequence

from pydantic import Field

from openseer_core.json_model import JsonModel
from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import PublishMode, TransactionPhase
from openseer_core.weights.transaction import deadline, waiting_for
from openseer_core.worker.heartbeat import WeightsReport, WorkerStatus


class WorkerWeights(JsonModel):
    """One worker in a transaction. `phase`: the last one it has confirmed; `seconds`: what each phase took it."""

    worker: str
    version: str
    phase: str
    attempt: int = 0
    error: str | None = None
    canary_difference: float | None = None
    seconds: dict[str, float] = Field(default_factory=dict)


class Transaction(JsonModel):
    """A weights transaction as it stands. `waiting_for`: workers that have not confirmed the phase yet."""

    id: int
    version: str
    previous: str
    mode: PublishMode
    phase: TransactionPhase
    attempt: int
    started_at: float
    deadline: float | None = None
    finished_at: float | None = None
    waiting_for: list[str] = Field(default_factory=list[str])
    replaced: list[str] = Field(default_factory=list[str])
    message: str = ""
    seconds: dict[str, float] = Field(default_factory=dict)
    workers: list[WorkerWeights] = Field(default_factory=list[WorkerWeights])


class Weights(JsonModel):
    """The fleet's weights. `revision` grows with every change; `versions`: published so far, the latest last."""

    revision: int
    version: str
    versions: list[str]
    transaction: Transaction | None = None


def to_wire(orders: FleetSpec, workers: Sequence[WorkerStatus], now: float) -> Weights:
    """The weights, with the latest transaction and each of its workers as its last heartbeat said."""
    told = orders.transaction
    return Weights(
        revision=orders.revision,
        version=orders.version,
        versions=list(orders.versions),
        transaction=None if told is None else _transaction(told, workers, now),
    )


def _transaction(told: WeightsTransaction, workers: Sequence[WorkerStatus], now: float) -> Transaction:
    publish = told.publish
    last = {one.name: one.heartbeat.weights for one in workers if one.heartbeat.weights is not None}
    waiting = waiting_for(told, workers, now) if told.active else told.waiting_for
    return Transaction(
        id=told.id,
        version=publish.version,
        previous=told.previous,
        mode=publish.mode,
        phase=told.phase,
        attempt=told.attempt,
        started_at=told.started_at,
        deadline=deadline(told),
        finished_at=told.finished_at,
        waiting_for=list(waiting),
        replaced=list(told.replaced),
        message=told.message,
        seconds=told.seconds,
        workers=[_worker(name, last[name], told) for name in told.participants if name in last],
    )


def _worker(name: str, report: WeightsReport, told: WeightsTransaction) -> WorkerWeights:
    mine = report.transaction == told.id
    return WorkerWeights(
        worker=name,
        version=report.version,
        phase=report.phase if mine else "",
        attempt=report.attempt if mine else 0,
        error=(report.error or None) if mine else None,
        canary_difference=report.difference if mine else None,
        seconds=report.seconds if mine else {},
    )
