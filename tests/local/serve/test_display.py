"""The display of a server: a line per change without a terminal, tables with one."""

import io
from dataclasses import replace
from typing import Any

from rich.console import Console

from openseer_core.wire.batches import Batch, BatchMetrics
from openseer_core.wire.fleet import FleetState, JobStatus, WorkerInfo
from openseer_core.wire.weights import Transaction, WorkerWeights
from openseer_local.serve.display import QUIET_EVERY_SECONDS, JobSnapshot, ServingDisplay


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def standing(at: float, *, ready: int = 2, done: int = 0, drafts: str = "on", **job: Any) -> JobSnapshot:
    fleet = job.pop("fleet", FleetState(state="awake", since=0.0))
    status = JobStatus(
        name="served",
        namespace="default",
        weights_version="v1",
        workers=2,
        workers_ready=ready,
        open_batches=[4],
        queue_depth=80,
        running=16,
        tokens=done,
        fleet=fleet,
        **job,
    )
    metrics: dict[str, float | int | str] = {"slots": 8, "kv_used": 0.5, "tokens": 100 * done, "drafts": drafts}
    if done and drafts == "on":
        metrics |= {"draft_steps": done, "steps_refs_1": done, "tokens_refs_1": 2.25 * done}
    worker = WorkerInfo(name="worker-0", state="busy", version="v1", seen_seconds_ago=0.1, inflight=8, figures=metrics)
    counts = BatchMetrics(groups=24, requests=96, requests_ok=done, tokens=100 * done, tokens_per_second=1234.0)
    batch = Batch(
        id=4,
        state="sealed",
        weights_version="v1",
        purpose="train",
        priority="normal",
        progress=done / 96,
        eta_seconds=75.0,
        metrics=counts,
    )
    return JobSnapshot(at, status, [worker], [batch])


def test_without_a_terminal_a_line_is_printed_after_a_change() -> None:
    text, clock = io.StringIO(), Clock()
    with ServingDisplay(Console(file=text, width=200), live=False, clock=clock, tick_seconds=None) as display:
        display.phase("waiting for the first worker")
        clock.now += 3
        display.show(standing(0.0))
        for _ in range(3):
            clock.now += QUIET_EVERY_SECONDS
            display.show(standing(clock.now))
        clock.now += QUIET_EVERY_SECONDS
        display.show(standing(clock.now, done=48))

    line = "openseer: served: weights v1  2/2 workers ready  80 waiting  16 running  batch 4"
    assert text.getvalue().splitlines() == [
        "openseer: waiting for the first worker",
        "openseer: waiting for the first worker (3.0 s)",
        f"{line}: 0/96",
        f"{line}: 48/96",
    ]


def test_a_terminal_shows_workers_batches_and_the_transaction() -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, height=30, force_terminal=True, color_system=None)
    coming = Transaction(
        id=2,
        version="v2",
        previous="v1",
        mode="drain",
        phase="load",
        attempt=0,
        started_at=5.0,
        waiting_for=["worker-0"],
        workers=[WorkerWeights(worker="worker-0", version="v1", phase="quiesce", error="no such folder")],
    )
    lent = FleetState(state="releasing", mode="sleep", since=1.0, waiting_for=["worker-0"])
    with ServingDisplay(console, live=True, clock=Clock(), tick_seconds=None) as display:
        display.show(standing(10.0))
        display.show(standing(12.0, done=48, transaction=coming, fleet=lent))
        shown = text.getvalue()

    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "worker-0 busy v1 8/8 50% 0 on" in rows
    assert "worker-0 busy v1 8/8 50% 2,400 2.25" in rows
    assert any(row.startswith("4 sealed v1 ") and row.endswith("48/96 0/24 1,234 1:15") for row in rows)
    assert "weights v1 → v2 (drain): load, 7.0 s, waiting for worker-0" in rows
    assert any("no such folder" in row for row in rows)
    assert "GPUs releasing, waiting for worker-0" in shown


def test_each_reason_of_failed_weight_loads_is_printed_once() -> None:
    failing = standing(10.0, ready=0)
    worker = failing.workers[0].model_copy(update={"error": "v1 has other weights"})
    failing = replace(failing, workers=[worker, worker.model_copy(update={"name": "worker-1"})])
    why = "worker-0, worker-1: the fleet's weights are not loaded: v1 has other weights"
    for live in (True, False):
        text = io.StringIO()
        console = Console(file=text, width=200, height=30, force_terminal=live, color_system=None)
        with ServingDisplay(console, live=live, clock=Clock(), tick_seconds=None) as display:
            display.show(standing(0.0))
            display.show(failing)
            shown = text.getvalue()
        assert why in shown


def test_a_terminal_shows_why_there_are_no_drafts() -> None:
    text = io.StringIO()
    console = Console(file=text, width=120, height=30, force_terminal=True, color_system=None)
    with ServingDisplay(console, live=True, clock=Clock(), tick_seconds=None) as display:
        display.show(standing(10.0, drafts="off: spec.speculation.enabled is false"))
        shown = text.getvalue()

    rows = [" ".join(line.split()) for line in shown.splitlines()]
    assert "worker-0 busy v1 8/8 50% 0 off" in rows
    assert "no drafts: spec.speculation.enabled is false" in rows


def test_a_stopped_server_prints_no_last_state() -> None:
    text = io.StringIO()
    with ServingDisplay(Console(file=text), live=False, clock=Clock(), tick_seconds=None) as display:
        display.show(standing(1.0))
        text.truncate(0)
        text.seek(0)
    assert text.getvalue() == ""
