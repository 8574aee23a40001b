"""The fleet's weights as HTTP tells them."""

from collections.abc import Sequence

from openseer_core.chunk import WorkerStatus
from openseer_core.orders import Ongoing, Orders, WeightsReport
from openseer_core.weights import deadline, waiting_for
from openseer_core.wire_fleet import Transaction, Weights, WorkerWeights


def to_wire(orders: Orders, workers: Sequence[WorkerStatus], now: float) -> Weights:
    """The weights, with the latest transaction and each of its workers as its last heartbeat said."""
    told = orders.transaction
    return Weights(
        revision=orders.revision,
        version=orders.version,
        versions=list(orders.versions),
        transaction=None if told is None else _transaction(told, workers, now),
    )


def _transaction(told: Ongoing, workers: Sequence[WorkerStatus], now: float) -> Transaction:
    publish = told.publish
    last = {one.name: one.info.weights for one in workers if one.info.weights is not None}
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


def _worker(name: str, report: WeightsReport, told: Ongoing) -> WorkerWeights:
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
