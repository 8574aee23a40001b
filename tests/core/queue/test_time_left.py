"""The time left of a batch, from its groups' estimates of unfinished responses."""

import pytest

from openseer_core.queue.messages import BatchProgress
from openseer_core.queue.time_left import mean_length, seconds_left, tokens_left


def test_nothing_is_left_of_a_batch_that_is_finished() -> None:
    assert tokens_left(BatchProgress(requests=4, ok=4, tokens=80, ok_tokens=80, closed_tokens=80)) == 0
    assert seconds_left(0.0, 0.0, unfinished=0) == 0


def test_without_any_length_the_time_left_is_unknown() -> None:
    assert tokens_left(BatchProgress(requests=8, tokens=500)) is None
    assert seconds_left(None, 100.0, unfinished=8) is None
    assert seconds_left(10.0, 0.0, unfinished=8) is None


def test_the_end_of_responses_longer_than_expected_is_unknown() -> None:
    assert seconds_left(0.0, 100.0, unfinished=3) is None


def test_few_responses_are_not_taken_to_be_as_fast_as_many() -> None:
    assert seconds_left(1000.0, 1000.0, unfinished=2, pace=20.0) == 25
    assert seconds_left(100_000.0, 1000.0, unfinished=2000, pace=20.0) == 100


def test_groups_with_an_estimate_count_by_it_minus_their_tokens() -> None:
    counts = BatchProgress(
        requests=8, ok=2, tokens=2500, ok_tokens=2000, closed_tokens=2000, open_known=6, open_expected=3000
    )
    assert tokens_left(counts) == 2500
    assert seconds_left(2500.0, 100.0, unfinished=6) == 25


def test_unknown_groups_count_by_the_mean_of_the_finished() -> None:
    counts = BatchProgress(requests=8, ok=2, tokens=600, ok_tokens=600, closed_tokens=600)
    assert tokens_left(counts) == 6 * 300


def test_before_the_first_finish_the_lengths_of_earlier_batches_count() -> None:
    assert tokens_left(BatchProgress(requests=8, tokens=100, open_known=4, open_expected=800)) == 8 * 200 - 100


def test_long_groups_that_end_first_do_not_make_the_rest_look_long() -> None:
    finished = BatchProgress(requests=320, ok=60, tokens=30_000, ok_tokens=30_000, closed_tokens=30_000)
    short = BatchProgress(**{name: getattr(finished, name) for name in ("requests", "ok", "tokens", "ok_tokens")},
                          closed_tokens=30_000, open_known=260, open_expected=260 * 100)  # fmt: skip
    assert tokens_left(short) == 26_000
    assert tokens_left(finished) == 260 * 500


def test_negative_sums_of_an_earlier_releases_store_leave_nothing() -> None:
    counts = BatchProgress(
        requests=8, ok=2, tokens=600, ok_tokens=100, closed_tokens=100, open_known=-3, open_expected=-900
    )
    assert tokens_left(counts) == 0


@pytest.mark.parametrize(("ok", "tokens", "mean"), [(0, 0, 0.0), (4, 100, 25.0)])
def test_the_mean_length_is_that_of_whole_responses(ok: int, tokens: int, mean: float) -> None:
    assert mean_length(BatchProgress(requests=100, ok=ok, aborted=9, tokens=5000, ok_tokens=tokens)) == mean
