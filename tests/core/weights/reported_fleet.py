"""A fleet for tests of transactions: the fleet spec, a clock, and workers whose reports the test sets."""

from typing import Any

from openseer_core.weights.fleet_spec import FleetSpec, WeightsTransaction
from openseer_core.weights.publish import Deadlines, Publish, Source
from openseer_core.weights.transaction import TransactionAction, advance, begin
from openseer_core.worker.heartbeat import Heartbeat, WeightsReport, WorkerState, WorkerStatus
from openseer_core.worker.metrics import WorkerMetrics

DEADLINES = Deadlines(prefetch=10, quiesce=20, load=30)


def publish(**more: Any) -> Publish:
    values: dict[str, Any] = {"version": "v1", "source": Source(path="/v1"), "deadlines": DEADLINES, "retries": 0}
    return Publish(**(values | more))


class Fleet:
    """The fleet spec, a clock, and workers whose reports the test sets."""

    def __init__(self, *names: str, **more: Any) -> None:
        self.now = 100.0
        self.unfinished = 0
        self.states = dict.fromkeys(names, "idle")
        self.reports = {name: WeightsReport(version="initial") for name in names}
        self.seen = dict.fromkeys(names, self.now)
        self.inflight = dict.fromkeys(names, 0)
        self.fleet_spec = begin(FleetSpec(), publish(**more), names, self.now)

    @property
    def told(self) -> WeightsTransaction:
        assert self.fleet_spec.transaction is not None
        return self.fleet_spec.transaction

    @property
    def statuses(self) -> list[WorkerStatus]:
        return [
            WorkerStatus(
                name,
                "boot",
                self.seen[name],
                self.inflight[name],
                Heartbeat(WorkerState(state), WorkerMetrics({}), self.reports[name]),
            )
            for name, state in self.states.items()
        ]

    def say(self, name: str, phase: str = "", **more: Any) -> None:
        """Sets a worker's last heartbeat."""
        version = more.pop("version", "v1" if phase == "load" else "initial")
        attempt = more.pop("attempt", self.told.attempt)
        self.seen[name] = self.now
        self.reports[name] = WeightsReport(
            version=version, transaction=self.told.id, phase=phase, attempt=attempt, **more
        )

    def look(self, seconds: float = 0.0, *, silent: tuple[str, ...] = ()) -> tuple[TransactionAction, ...]:
        """Moves the clock, renews the heartbeats of all workers but the silent ones, and advances once."""
        self.now += seconds
        self.seen |= {name: self.now for name in self.states if name not in silent}
        before = self.fleet_spec
        step = advance(before, self.statuses, self.unfinished, self.now)
        assert step.fleet_spec.revision == before.revision + (step.fleet_spec is not before)
        self.fleet_spec = step.fleet_spec
        return step.actions

    def reach_load(self, *names: str) -> None:
        """Confirms quiesce for `names` (all by default), so that the phase load begins."""
        for name in names or tuple(self.states):
            self.say(name, "quiesce")
        self.look()
        assert self.told.phase == "load"
