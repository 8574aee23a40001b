"""Reading heartbeats, also those of another version."""

from openseer_core.worker.heartbeat import FRESH_SECONDS, Heartbeat, WorkerState, WorkerStatus
from openseer_core.worker.metrics import WorkerMetrics


def test_a_state_of_a_newer_version_keeps_its_text() -> None:
    state = WorkerState("pausing")
    assert (state, str(state), f"{state}") == ("pausing", "pausing", "pausing")
    assert state not in set(WorkerState)
    assert WorkerState("busy") is WorkerState.BUSY


def test_a_metric_that_is_no_number_counts_as_none() -> None:
    metrics = WorkerMetrics({"held_tokens": "n/a", "slots": 8, "kv_used": 0.5, "gpu0_xid": 13, "later": "x"})
    assert (metrics.held_tokens, metrics.slots, metrics.kv_used, metrics.tokens) == (0, 8, 0.5, 0)
    assert metrics.gpus == {"gpu0_xid": 13}


def test_only_a_fresh_idle_or_busy_worker_works() -> None:
    def status(state: WorkerState) -> WorkerStatus:
        return WorkerStatus("worker-0", "boot", 100.0, 0, Heartbeat(state))

    assert [state for state in WorkerState if status(state).works(100.0)] == [WorkerState.IDLE, WorkerState.BUSY]
    assert status(WorkerState.BUSY).works(100.0 + FRESH_SECONDS)
    assert not status(WorkerState.BUSY).works(100.1 + FRESH_SECONDS)
