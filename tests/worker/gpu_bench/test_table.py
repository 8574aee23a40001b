"""The table at the end, of figures that lie beside this file; made up, in the size of an H100's."""

from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from openseer_worker.gpu_bench.exactness import deviations, two_samples
from openseer_worker.gpu_bench.figures import BenchFigures, read
from openseer_worker.gpu_bench.plan import AGAIN, DRAFTS, EXACTNESS, NGRAM, STOCK, SUFFIX, WAYS, Part
from openseer_worker.gpu_bench.table import busy, left_out, rows, text

BATCHES = (8, 128)


@pytest.fixture
def found() -> BenchFigures:
    return read(Path(__file__).parent)


def test_a_ratio_is_tokens_a_step_by_step_times(found: BenchFigures) -> None:
    row = rows(found, BATCHES)[0]
    ours = found.steps[Part(DRAFTS, 8, 8)]
    assert row.ways[DRAFTS].value == pytest.approx(ours.tokens_per_step * row.stock_ms / median(ours.step_ms))
    assert row.ways[DRAFTS].low <= row.ways[DRAFTS].value <= row.ways[DRAFTS].high


def test_the_best_length_of_drafts_counts_for_each_batch(found: BenchFigures) -> None:
    assert [row.ways[DRAFTS].drafts for row in rows(found, BATCHES)] == [8, 3]


def test_two_equal_engines_give_the_interval_that_others_are_read_by(found: BenchFigures) -> None:
    for row in rows(found, BATCHES):
        assert row.same is not None
        assert 0.97 < row.same.low <= row.same.value <= row.same.high < 1.03


def test_stock_is_both_of_its_engines(found: BenchFigures) -> None:
    times = [*found.steps[Part(STOCK, 8, 0)].step_ms, *found.steps[Part(AGAIN, 8, 0)].step_ms]
    assert rows(found, (8,))[0].stock_ms == median(times)


def test_what_was_not_measured_is_a_dash(found: BenchFigures) -> None:
    assert NGRAM in rows(found, BATCHES)[0].ways
    assert NGRAM not in rows(found, BATCHES)[1].ways
    assert "–" in text(found, rows(found, BATCHES))


def test_a_batch_without_stock_has_no_row(found: BenchFigures) -> None:
    del found.steps[Part(STOCK, 8, 0)], found.steps[Part(AGAIN, 8, 0)]
    assert [row.batch for row in rows(found, BATCHES)] == [128]


def test_a_cut_run_says_what_there_was_no_time_for(found: BenchFigures) -> None:
    assert left_out(found, WAYS, BATCHES) == [NGRAM]
    assert SUFFIX in found.notes


def test_the_text_says_device_ways_and_exactness(found: BenchFigures) -> None:
    shown = text(found, rows(found, BATCHES))
    for part in (
        "NVIDIA H100 80GB HBM3",
        "stock: V2 asynchronous",
        "8 of 8 greedy",
        "as expected by chance",
        "suffix: skip",
    ):
        assert part in shown


def test_a_busy_machine_is_told_by_its_two_equal_engines(found: BenchFigures) -> None:
    assert busy(rows(found, BATCHES)) == []
    slow = found.steps[Part(AGAIN, 8, 0)]
    found.steps[slow.part] = replace(slow, step_ms=[2 * time for time in slow.step_ms])
    made = rows(found, BATCHES)
    assert busy(made) == [8]
    assert "the machine is busy" in text(found, made)


def test_a_cut_run_names_its_second_engine_without_drafts_and_exactness(found: BenchFigures) -> None:
    del found.steps[Part(AGAIN, 8, 0)]
    found.exactness = None
    assert left_out(found, (STOCK, DRAFTS), BATCHES) == [AGAIN, EXACTNESS]


def test_the_text_says_what_tokens_per_second_are_made_of(found: BenchFigures) -> None:
    shown = text(found, rows(found, BATCHES))
    assert "by step times and assumed rates of acceptance" in shown
    assert shown.splitlines()[0].endswith("compiled as vLLM chooses")


def test_greedy_texts_that_differ_on_a_cpu_are_told(found: BenchFigures) -> None:
    assert found.exactness is not None
    found.exactness["greedy_same"] = 7
    assert "DIFFER" not in text(found, rows(found, BATCHES))
    found.header["device"] = "cpu"
    assert "greedy texts DIFFER" in text(found, rows(found, BATCHES))


def test_another_distribution_is_told_as_one(found: BenchFigures) -> None:
    assert found.exactness is not None
    far = replace(found, exactness={**found.exactness, "deviations": 30.0})
    assert "NOT the same distribution" in text(far, rows(far, BATCHES))


def test_chi_square_of_two_equal_samples_is_zero_and_of_others_large() -> None:
    one = {"a": 500, "b": 300, "c": 3}
    assert two_samples(one, one) == (0.0, 1)
    chi_square, degrees = two_samples(one, {"a": 400, "b": 403})
    assert chi_square > 20
    assert degrees == 1


@pytest.mark.parametrize(
    ("chi_square", "degrees", "expected"), [(15.34, 16, 0.0), (32.0, 16, 2.33), (149.4, 100, 3.09)]
)
def test_deviations_are_those_of_equal_chances(chi_square: float, degrees: int, expected: float) -> None:
    assert deviations(chi_square, degrees) == pytest.approx(expected, abs=0.05)
