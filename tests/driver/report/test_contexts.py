"""The report shows how a run's contexts were restored, and why a KV pool was not used."""

import pytest

from openseer_core.worker.context_metrics import ContextCounts
from openseer_driver.report.contexts import contexts_text, pool_line

MANY = ContextCounts(computed=12_000, recomputed=900, cached=700)


def test_a_useful_pool_is_reported_with_its_tokens() -> None:
    used = ContextCounts(12_000, 900, 700, 3_456, fetched_bytes=2**20, fetch_seconds=0.5, saved_bytes=2**21)
    assert pool_line(used, 3) == "KV pool: tokens of context computed 12,000, cached by engines 700, fetched 3,456"
    assert "3,456 were fetched from the KV pool (1 MiB in 0.5 s)" in contexts_text(used)


@pytest.mark.parametrize(
    ("more", "moves", "reason"),
    [
        ({"unsaved_blocks": 5}, 3, "the pool refused all blocks; see the workers' logs"),
        ({}, 3, "no response filled a block of KV cache"),
        ({"saved_bytes": 9}, 0, "no response moved to another worker"),
        ({"saved_bytes": 9, "failed_fetches": 4}, 3, "4 fetches failed; see the workers' logs"),
        ({"saved_bytes": 9}, 3, "the moved contexts were short, or in the engine's cache, or faster to compute"),
    ],
)
def test_a_useless_pool_is_reported_with_the_reason(more: dict[str, int], moves: int, reason: str) -> None:
    line = pool_line(ContextCounts.of(MANY.values() | more), moves)
    assert f"fetched 0; nothing was fetched: {reason}" in line


def test_engines_that_count_no_contexts_have_no_line() -> None:
    assert contexts_text(ContextCounts()) == ""
