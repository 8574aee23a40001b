"""A batch's speed and remaining time in the API's answers."""

from openseer_api.http.rendering import render_batch
from openseer_core.queue.batch import BatchRecord
from openseer_core.queue.messages import BatchProgress
from openseer_core.wire.batches import BatchSpec
from openseer_core.worker.draft_metrics import DraftMetrics


def test_tokens_of_carried_groups_do_not_count_to_the_batchs_speed() -> None:
    counts = BatchProgress(
        requests=100, tokens=910_000, carried_tokens=900_000, sealed=True, open_known=100, open_expected=1_200_000
    )
    record = BatchRecord(2, "v1", "{}", counts, opened_at=90.0, started_at=100.0)
    shown = render_batch(record, BatchSpec(), "default/rl", 110.0, DraftMetrics())
    assert (shown.metrics.tokens, shown.metrics.tokens_per_second, shown.eta_seconds) == (910_000, 1000.0, 290.0)
