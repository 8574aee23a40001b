"""Step times, fitted to a run's own samples."""

import random
from collections.abc import Callable, Iterator

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_driver.run_lines import SampleLine, WorkerSample
from openseer_sim.profile import LEAST_WINDOWS, WINDOW, engine_of_samples

FIXED, EACH = 0.02, 0.001
"""Seconds of a step, and of each response in it."""


def job() -> RolloutJob:
    spec = {"model": {"path": "m"}, "prompts": {"path": "p"}, "workers": {"maxInflight": 32}}
    document = {"apiVersion": "openseer.dev/v1alpha1", "kind": "RolloutJob", "metadata": {"name": "run"}, "spec": spec}
    return parse_job(document, "job.yaml")


def samples(count: int, running: Callable[[int], int], fixed: float = FIXED, each: float = EACH) -> list[SampleLine]:
    """One sample a second of two workers, whose reports are up to 0.5 s late."""

    def made() -> Iterator[SampleLine]:
        chance, tokens = random.Random(1), {"w-0": 0.0, "w-1": 0.0}
        for second in range(count):
            workers: dict[str, WorkerSample] = {}
            for name in tokens:
                rows = running(second)
                rate = rows / (fixed + each * rows)
                tokens[name] += rate
                late = chance.uniform(0, 0.5) * rate
                workers[name] = WorkerSample(slots=32, running=rows, tokens=int(tokens[name] - late))
            yield SampleLine(1000.0 + second, workers=workers)

    return list(made())


def falling(second: int) -> int:
    """The running requests: 16 at first, fewer in the tail."""
    return max(1, min(16, (200 - second) // 6))


def test_step_times_are_fitted_to_a_full_engine_and_its_tail() -> None:
    engine = engine_of_samples(job(), samples(200, falling), kv_tokens=10_000)
    for running in (1, 8, 16):
        assert engine.step.base(running) == pytest.approx(FIXED + EACH * running, rel=0.1)
    assert (engine.kv_tokens, engine.slots) == (10_000, 32)


@pytest.mark.parametrize(("fixed", "each"), [(0.03, 0.0), (0.0, 0.002)])
def test_neither_part_of_a_step_is_below_zero(fixed: float, each: float) -> None:
    engine = engine_of_samples(job(), samples(200, falling, fixed, each), kv_tokens=10_000)
    (_, one), (_, most) = engine.step.points
    assert 0 < one <= most
    assert engine.step.base(16) == pytest.approx(fixed + each * 16, rel=0.1)


def test_samples_of_one_load_give_the_step_time_of_that_load() -> None:
    engine = engine_of_samples(job(), samples(200, lambda _second: 16), kv_tokens=10_000)
    assert engine.step.base(16) == pytest.approx(FIXED + EACH * 16, rel=0.05)


def test_idle_workers_and_restarts_do_not_count() -> None:
    found = samples(200, falling)
    anew = [SampleLine(line.at + 500, workers=line.workers) for line in samples(100, lambda _second: 0)]
    engine = engine_of_samples(job(), [*found, *anew], kv_tokens=10_000)
    assert engine.step.base(8) == pytest.approx(FIXED + EACH * 8, rel=0.1)


def test_too_few_samples_ask_for_a_profile() -> None:
    few = samples(LEAST_WINDOWS * WINDOW // 2, falling)
    with pytest.raises(InputError, match=r"run: the run has too few samples .* pass --profile profile\.json"):
        engine_of_samples(job(), few, kv_tokens=10_000)


def test_an_unknown_size_of_the_kv_cache_must_be_given() -> None:
    with pytest.raises(InputError, match="pass --kv-tokens"):
        engine_of_samples(job(), samples(200, falling))
