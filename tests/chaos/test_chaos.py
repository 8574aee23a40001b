"""Random faults in real processes: every request still has exactly one result, and the audit is clean.

Verdicts do not depend on the machine's speed: faults follow a clock, and promises hold at any moment. A run that broke
a promise is reported with its seed. `make soak SEED=… MINUTES=…` runs as many seeds as the time allows.
"""

import time

import pytest

from tests.chaos.play import play
from tests.chaos.schedule import MEAN_SECONDS, POOL_PROCESSES, Mode, replay_line, schedule
from tests.chaos.workload import EngineName
from tests.repository import MINUTES, SEED, SOAK
from tests.worker.kv_pool.mooncake.pool import why_not

pytestmark = [pytest.mark.redis, pytest.mark.slow]

SHORT_SECONDS, SHORT_MEAN = 8.0, 1.2
"""Seconds of a short run, and the mean seconds between its faults."""
LONG_SECONDS = 60.0
SHORT: tuple[tuple[Mode, int], ...] = (("batch", 17), ("serve", 13))
"""Seeds whose short runs contain a cut log, deaths and pauses."""
POOL_SEED, POOL_MEAN = 13449, 0.8
"""A seed whose short run with a KV pool kills a worker, the store and the pool's master; it has every pool fault."""
LONG: tuple[tuple[Mode, EngineName], ...] = (("batch", "scripted"), ("serve", "scripted"), ("batch", "vllm-pool"))


def test_a_schedule_follows_from_its_seed_and_has_every_kind_of_fault() -> None:
    faults = [fault for seed in range(100) for fault in schedule(seed, LONG_SECONDS)]
    assert faults == [fault for seed in range(100) for fault in schedule(seed, LONG_SECONDS)]
    assert {fault.kind for fault in faults} == {"kill", "pause", "cut", "replies", "memory", "disk", "clock"}
    assert {fault.target for fault in faults} == {"worker-0", "worker-1", "worker-2", "head", "store"}
    assert len(faults) == pytest.approx(100 * LONG_SECONDS / MEAN_SECONDS, rel=0.1)
    assert sum(fault.kind == "cut" for fault in faults) > len(faults) / 10
    of_pool = {fault.target: fault for seed in range(100) for fault in schedule(seed, LONG_SECONDS, pool=True)}
    assert of_pool.keys() == {"worker-0", "worker-1", "head", "store", "pool", *POOL_PROCESSES}


@pytest.mark.timeout(900)
@pytest.mark.parametrize(("mode", "seed"), SHORT)
async def test_a_short_run_under_faults_keeps_every_promise(mode: Mode, seed: int) -> None:
    verdict = await play(mode, seed, SHORT_SECONDS, mean=SHORT_MEAN)
    assert verdict.ok, "\n".join([replay_line(seed, SHORT_SECONDS, SHORT_MEAN, mode), *verdict.lines()])


@pytest.mark.engine
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(why_not()), reason=why_not())
async def test_a_short_run_with_a_kv_pool_keeps_every_promise_and_token() -> None:
    verdict = await play("batch", POOL_SEED, SHORT_SECONDS, mean=POOL_MEAN, engine="vllm-pool")
    assert verdict.ok, "\n".join(
        [replay_line(POOL_SEED, SHORT_SECONDS, POOL_MEAN, "batch", "vllm-pool"), *verdict.lines()]
    )
    assert verdict.fetched > 0


@pytest.mark.skipif(not SOAK, reason="make soak SEED=… MINUTES=…")
@pytest.mark.timeout(MINUTES * 60 + 900)
async def test_long_runs_under_faults_keep_every_promise() -> None:
    end, seed, broken = time.monotonic() + MINUTES * 60, SEED, list[str]()
    while time.monotonic() < end:
        for mode, engine in LONG:
            if engine != "scripted" and why_not():
                continue
            verdict = await play(mode, seed, LONG_SECONDS, engine=engine)
            if not verdict.ok:
                broken += [replay_line(seed, LONG_SECONDS, MEAN_SECONDS, mode, engine), *verdict.lines()]
        seed += 1
    assert not broken, "\n".join(broken)
