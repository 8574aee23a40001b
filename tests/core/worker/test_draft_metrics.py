"""Counters of drafting: the values of a heartbeat, sums over workers, differences over time."""

from openseer_core.worker.draft_metrics import DraftMetrics, summed

HEARTBEAT: dict[str, float | int | str] = {
    "state": "busy",
    "drafts": "on",
    "steps": 10,
    "drafted_tokens": 60,
    "accepted_tokens": 30,
    "draft_steps": 20,
    "draft_seconds": 0.05,
    "drafted_siblings": 60,
    "accepted_siblings": 30,
    "steps_refs_0": 10,
    "tokens_refs_0": 10,
    "steps_refs_4": 20,
    "tokens_refs_4": 50,
    "draft_bytes": 1 << 20,
}


def test_ratios_are_computed_from_a_heartbeats_counters() -> None:
    counts = DraftMetrics.of(HEARTBEAT)

    assert (counts.drafted, counts.accepted, counts.acceptance) == (60, 30, 0.5)
    assert (counts.request_steps, counts.acceptance_length, counts.draft_length) == (30, 2.0, 2.0)
    assert (counts.draft_share, counts.seconds_per_step) == (0.5, 0.005)
    assert "draft_bytes" not in counts.values


def test_a_worker_that_does_not_draft_counts_nothing() -> None:
    none = DraftMetrics.of({"steps": 10, "drafts": "off: spec.speculation.enabled is false", "drafted_tokens": 0})

    assert none == DraftMetrics()
    assert (none.acceptance_length, none.acceptance, none.seconds_per_step) == (0.0, 0.0, 0.0)


def test_counts_are_summed_over_workers_and_earlier_ones_subtracted() -> None:
    first = DraftMetrics.of(HEARTBEAT)
    both = summed([first, first, DraftMetrics()])

    assert (both.drafted, both.acceptance_length) == (120, 2.0)
    assert both.since(first).values == first.values
    assert both.since(DraftMetrics()) == both


def test_a_counter_that_fell_means_a_restarted_worker() -> None:
    before = DraftMetrics({"steps": 5.0, "drafted_tokens": 50.0})
    after = DraftMetrics({"steps": 9.0, "drafted_tokens": 20.0})

    assert after.since(before) == after
