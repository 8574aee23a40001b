"""The final table, from the invented figures beside this file, of the magnitude of an H100's."""

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


def test_each_batch_counts_its_best_draft_length(found: BenchFigures) -> None:
    assert [row.ways[DRAFTS].drafts for row in rows(found, BATCHES)] == [8, 3]


def test_two_equal_engines_give_the_reference_interval(found: BenchFigures) -> None:
    for row in rows(found, BATCHES):
        assert row.same is not None
        assert 0.97 < row.same.low <= row.same.value <= row.same.high < 1.03


def test_stock_combines_its_two_engines(found: BenchFigures) -> None:
    times = [*found.steps[Part(STOCK, 8, 0)].step_ms, *found.steps[Part(AGAIN, 8, 0)].step_ms]
    assert rows(found, (8,))[0].stock_ms == median(times)


def test_a_missing_measurement_is_a_dash(found: BenchFigures) -> None:
    assert NGRAM in rows(found, BATCHES)[0].ways
    assert NGRAM not in rows(found, BATCHES)[1].ways
    assert "–" in text(found, rows(found, BATCHES))


def test_a_batch_without_stock_has_no_row(found: BenchFigures) -> None:
    del found.steps[Part(STOCK, 8, 0)], found.steps[Part(AGAIN, 8, 0)]
    assert [row.batch for row in rows(found, BATCHES)] == [128]


def test_a_run_out_of_time_lists_the_missing_measurements(found: BenchFigures) -> None:
    assert left_out(found, WAYS, BATCHES) == [NGRAM]
    assert SUFFIX in found.notes


def test_the_text_has_device_ways_and_exactness(found: BenchFigures) -> None:
    shown = text(found, rows(found, BATCHES))
    for part in (
        "NVIDIA H100 80GB HBM3",
        "stock: V2 asynchronous",
        "8 of 8 greedy",
        "as expected by chance",
        "suffix: skip",
    ):
        assert part in shown


def test_a_busy_machine_is_detected_by_its_two_equal_engines(found: BenchFigures) -> None:
    assert busy(rows(found, BATCHES)) == []
    slow = found.steps[Part(AGAIN, 8, 0)]
    found.steps[slow.part] = replace(slow, step_ms=[2 * time for time in slow.step_ms])
    made = rows(found, BATCHES)
    assert busy(made) == [8]
    assert "the machine is busy" in text(found, made)


def test_a_run_out_of_time_names_second_engine_and_exactness(found: BenchFigures) -> None:
    del found.steps[Part(AGAIN, 8, 0)]
    found.exactness = None
    assert left_out(found, (STOCK, DRAFTS), BATCHES) == [AGAIN, EXACTNESS]


def test_the_text_states_how_tokens_per_second_are_computed(found: BenchFigures) -> None:
    shown = text(found, rows(found, BATCHES))
    assert "by step times and assumed rates of acceptance" in shown
    assert shown.splitlines()[0].endswith("compiled as vLLM chooses")


def test_different_greedy_texts_on_a_cpu_are_reported(found: BenchFigures) -> None:
    assert found.exactness is not None
    found.exactness["greedy_same"] = 7
    assert "DIFFER" not in text(found, rows(found, BATCHES))
    found.header["device"] = "cpu"
    assert "greedy texts DIFFER" in text(found, rows(found, BATCHES))


def test_another_distribution_is_reported(found: BenchFigures) -> None:
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
def test_deviations_have_the_same_probability_as_the_chi_square(
    chi_square: float, degrees: int, expected: float
) -> None:
    assert deviations(chi_square, degrees) == pytest.approx(expected, abs=0.05)
