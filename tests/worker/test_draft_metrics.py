"""A worker's Prometheus metrics of drafting."""

from prometheus_client import generate_latest

from openseer_core.worker.draft_metrics import COUNTERS
from openseer_core.worker.heartbeat import Heartbeat, WorkerState
from openseer_core.worker.metrics import WorkerMetrics
from openseer_draft.drafter import Drafter
from openseer_worker.health import Health


def exposition(**metrics: float | str) -> str:
    health = Health()
    health.serve(lambda: True, lambda: Heartbeat(WorkerState.BUSY, WorkerMetrics({"slots": 8, **metrics})))
    return generate_latest(health.registry).decode()


def test_drafts_are_reported_by_origin_and_by_corpus_size() -> None:
    text = exposition(
        drafts="on",
        drafted_siblings=40,
        accepted_siblings=30,
        drafted_own=5,
        accepted_own=0,
        steps_refs_4=20,
        tokens_refs_4=50,
        draft_steps=15,
        draft_seconds=0.25,
        draft_bytes=2048,
        shared_tokens=7,
        share_lag=0.125,
    )

    for line in (
        'openseer_worker_drafting{reason=""} 1.0',
        'openseer_worker_drafted_tokens_total{source="siblings"} 40.0',
        'openseer_worker_accepted_tokens_total{source="siblings"} 30.0',
        'openseer_worker_accepted_tokens_total{source="own"} 0.0',
        'openseer_worker_row_steps_total{references="4"} 20.0',
        'openseer_worker_row_tokens_total{references="4"} 50.0',
        "openseer_worker_draft_row_steps_total 15.0",
        "openseer_worker_draft_seconds_total 0.25",
        "openseer_worker_draft_memory_bytes 2048.0",
        "openseer_worker_shared_tokens_total 7.0",
        "openseer_worker_share_lag_seconds 0.125",
    ):
        assert f"{line}\n" in text


def test_a_worker_that_does_not_draft_reports_why_and_no_counts() -> None:
    text = exposition(drafts="off: spec.speculation.enabled is false")

    assert 'openseer_worker_drafting{reason="spec.speculation.enabled is false"} 0.0\n' in text
    assert "drafted_tokens" not in text
    assert "row_steps" not in text


def test_an_engine_that_cannot_draft_reports_nothing_of_drafts() -> None:
    text = exposition()

    assert "draft" not in text
    assert "openseer_worker_slots 8.0" in text


def test_every_counter_of_a_drafter_has_a_known_name() -> None:
    metrics = Drafter(slots=1, max_tokens=4, memory_bytes=1 << 20).metrics()

    worker_adds = {"steps", "shared_tokens", "shared_bytes"}
    levels = {"draft_bytes", "draft_groups"}
    assert metrics.keys() - levels == set(COUNTERS) - worker_adds
