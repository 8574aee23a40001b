"""The plan: order of measurements, missing ones, and time per engine."""

import itertools
from pathlib import Path

import pytest

from openseer_core.errors import InputError
from openseer_worker.gpu_bench.options import BenchOptions, listed, numbers
from openseer_worker.gpu_bench.plan import (
    AGAIN,
    BATCHES,
    DRAFTS,
    EXACTNESS,
    NGRAM,
    SMOKE,
    STOCK,
    SUFFIX,
    WAYS,
    Part,
    jobs,
    limit_seconds,
    parts_of,
)
from openseer_worker.gpu_bench.rates import GROUPED, MOST, PROMPT_LOOKUP, tokens_a_step
from openseer_worker.gpu_bench.shapes import GPU


def test_stock_and_drafts_are_first_and_vllms_own_ways_last() -> None:
    order = [job.way for job in jobs(WAYS, BATCHES, [], [])]
    assert order == [SMOKE, STOCK, DRAFTS, AGAIN, EXACTNESS, NGRAM, SUFFIX]


def test_the_batch_sizes_are_measured_in_order_of_their_value() -> None:
    assert [part.batch for part in parts_of(STOCK, BATCHES)] == [8, 128, 32, 1, 256]
    assert [part.batch for part in parts_of(STOCK, (7, 8, 2))] == [8, 2, 7]


def test_only_missing_figures_are_left_to_measure() -> None:
    done = set(parts_of(STOCK, (8, 1))) | {Part(DRAFTS, 8, 8), Part(DRAFTS, 8, 3)}
    left = {job.way: job.parts for job in jobs((STOCK, DRAFTS), (1, 8), done, {SMOKE, EXACTNESS})}
    assert list(left) == [DRAFTS, AGAIN]
    assert left[DRAFTS][0] == Part(DRAFTS, 8, 1)


def test_a_whole_run_has_nothing_left_to_measure() -> None:
    done = {part for way in (*WAYS, AGAIN) for part in parts_of(way, BATCHES)}
    assert jobs(WAYS, BATCHES, done, {SMOKE, EXACTNESS}) == []


def test_a_way_that_cannot_run_is_not_planned() -> None:
    assert SUFFIX not in [job.way for job in jobs(WAYS, BATCHES, [], {SUFFIX})]


def test_stock_runs_twice_and_drafts_include_the_exactness_test() -> None:
    assert [job.way for job in jobs((STOCK,), (1,), [], [])] == [SMOKE, STOCK, AGAIN]
    assert [job.way for job in jobs((DRAFTS,), (1,), [], [])] == [SMOKE, DRAFTS, EXACTNESS]


@pytest.mark.parametrize(("left", "whole", "limit"), [(470, 480, 192), (100, 480, 100), (240, 270, 108), (90, 100, 60)])
def test_a_hanging_engine_leaves_time_for_the_others(left: float, whole: float, limit: float) -> None:
    assert limit_seconds(left, whole) == limit


def test_contexts_shrink_with_the_batch() -> None:
    assert [GPU.context(batch) for batch in BATCHES] == [4096, 4096, 4096, 1024, 512]


def test_a_step_gains_at_most_its_drafts_and_one_token() -> None:
    for rates in (GROUPED, PROMPT_LOOKUP):
        assert len(rates) == MOST
        assert all(later <= earlier <= 1 for earlier, later in itertools.pairwise(rates))
        assert tokens_a_step(rates, 0) == 1.0
    assert tokens_a_step(GROUPED, MOST) == pytest.approx(2.29, abs=0.01)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shape": "9b"},
        {"ways": ("magic",)},
        {"ways": ()},
        {"ways": (DRAFTS, NGRAM)},
        {"exact_model": Path("/nowhere")},
        {"batches": ()},
        {"batches": (0,)},
        {"minutes": 0},
    ],
    ids=str,
)
def test_invalid_options_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError) as refused:
        BenchOptions(**wrong).check()  # pyright: ignore[reportArgumentType]
    assert refused.value.exit_code == 2


def test_lists_are_written_with_commas() -> None:
    assert listed("stock, drafts") == ("stock", "drafts")
    assert numbers("1,8") == (1, 8)
    with pytest.raises(InputError, match="--batches"):
        numbers("eight")
