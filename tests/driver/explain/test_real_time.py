"""The job's clock does not count time in which the store gave no answer; an explanation counts it."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from openseer_driver.explain.explained import explain
from openseer_driver.explain.real_time import in_real_time
from openseer_driver.report.trace import read_trace
from tests.driver.explain.planted import drawn, write_planted

STALL = 7.0


def test_time_missing_from_the_jobs_clock_counts_with_a_note(tmp_path: Path) -> None:
    trace = read_trace(write_planted(tmp_path, drawn(8)))
    samples = tuple(
        msgspec.structs.replace(sample, taken_at=sample.at + 1e6 + (STALL if number > 5 else 0.0))
        for number, sample in enumerate(trace.samples)
    )
    stalled = replace(trace, samples=samples)
    found, plain = explain(stalled), explain(trace)
    assert found.makespan_seconds == pytest.approx(plain.makespan_seconds + STALL)
    [note] = found.notes
    assert note.startswith("the store did not answer for 7.0 s; the job's clock")
    assert plain.notes == []


@pytest.mark.parametrize("step", [-3600.0, -2.0])
def test_a_backward_step_of_the_drivers_clock_loses_no_time(tmp_path: Path, step: float) -> None:
    trace = read_trace(write_planted(tmp_path, drawn(8)))
    samples = tuple(
        msgspec.structs.replace(sample, taken_at=sample.at + 1e6 + (step if number > 5 else 0.0))
        for number, sample in enumerate(trace.samples)
    )
    found, plain = explain(replace(trace, samples=samples)), explain(trace)
    assert found.makespan_seconds == pytest.approx(plain.makespan_seconds)
    assert found.notes == []


def test_samples_without_real_time_change_nothing(tmp_path: Path) -> None:
    trace = read_trace(write_planted(tmp_path, drawn(2)))
    untold = replace(trace, samples=tuple(msgspec.structs.replace(one, taken_at=0.0) for one in trace.samples))
    assert in_real_time(untold) is untold
