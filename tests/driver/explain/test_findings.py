"""Rules that need more than a planted engine: paces of large fleets, policies, boots, preemptions."""

from typing import Any

import msgspec
import pytest

from openseer_core.explain.findings import Finding
from openseer_core.explain.paces import paces
from openseer_core.worker.time_metrics import WorkerSeconds
from openseer_driver.explain.evidence import large_quantum
from openseer_driver.explain.explained import explain
from openseer_driver.explain.explanation import BestTimes, Explanation
from openseer_driver.report.trace import Fact, make_trace
from openseer_driver.run_lines import ChunkLine, RunRecord, SampleLine, Session, WorkerSample

BEST = BestTimes(50.0, "context-aware", 45.0, 40.0, 80.0)


def seen(second: int, *, load: int, tokens_per_second: float, boot: str = "a") -> WorkerSample:
    seconds = WorkerSeconds(running=float(second), responses=float(second * load))
    return WorkerSample(tokens=round(second * load * tokens_per_second), seconds=seconds, boot=boot)


def steady(load: int, tokens_per_second: float) -> list[WorkerSample]:
    return [seen(second, load=load, tokens_per_second=tokens_per_second) for second in range(20)]


def test_paces_are_compared_at_equal_numbers_of_responses() -> None:
    fleet = {"a": steady(8, 20.0), "b": steady(8, 20.0), "busy": steady(64, 9.0), "slow": steady(8, 8.0)}
    found = paces(fleet)
    assert found["slow"].ratio == pytest.approx(0.4, rel=0.01)
    assert found["busy"] == (pytest.approx(9.0, rel=0.01), None)
    assert min(found["a"].ratio or 0, found["b"].ratio or 0) > 1


def test_a_single_worker_has_no_ratio() -> None:
    assert paces({"a": steady(8, 20.0)})["a"].ratio is None


def explanation(
    best: BestTimes | None = None,
    *,
    policy: str = "context-aware",
    engine: str = "vllm",
    queued: float = 100.0,
    began: float | None = None,
    first_sample: float = 100.0,
    **worker: Any,
) -> Explanation:
    """The explanation of a run of 100 seconds in which one worker with one slot ran ten responses in sequence."""
    chunks = [ChunkLine("w#a", 1, 0, 10, 100.0 + 10 * n, 110.0 + 10 * n, "complete") for n in range(10)]
    facts = [
        Fact(0, f"g{n}", 0, "ok", "stop", 10, (chunk,), queued, chunk.claimed_at, chunk.ended_at)
        for n, chunk in enumerate(chunks)
    ]
    spec = {"spec": {"rollout": {"policy": policy}, "model": {"engine": engine}}}
    record = RunRecord("r", "", spec, "0", "complete", "", [Session(queued if began is None else began, 210.0)])
    base = WorkerSample("busy", 1, 1, boot="a", seconds=WorkerSeconds())
    samples = [
        SampleLine(
            first_sample + second,
            requests=10 if first_sample + second >= queued else 0,
            workers={"w": msgspec.structs.replace(base, **worker)},
        )
        for second in range(round(200 - first_sample))
    ]
    return explain(make_trace(record, tuple(facts), tuple(samples)), best)


def findings(best: BestTimes | None = None, **changes: Any) -> dict[str, Finding]:
    """The findings of the same run, by cause."""
    return {finding.cause: finding for finding in explanation(best, **changes).findings}


def test_a_policy_that_would_have_been_faster_is_named() -> None:
    finding = findings(BEST, policy="round-robin")["policy"]
    assert (finding.figure, finding.subject) == (1.6, "round-robin")
    assert finding.advice == "set rollout.policy: context-aware"
    assert findings(BEST) == {}
    assert findings(msgspec.structs.replace(BEST, itself=54.0), policy="round-robin") == {}


def test_a_run_of_zero_duration_is_explained() -> None:
    facts = [
        Fact(0, name, 0, "ok", "stop", tokens, (ChunkLine("w#a", 1, 0, tokens, 2.0, 2.0, "complete"),), 2.0, 2.0, 2.0)
        for name, tokens in (("short", 1), ("giant", 10))
    ]
    record = RunRecord("r", "", {"spec": {"rollout": {"policy": "round-robin"}}}, "0", "complete")
    nothing = BestTimes(0.0, "context-aware", 0.0, 0.0, 0.0)
    assert explain(make_trace(record, tuple(facts), ()), nothing).findings == []


def test_a_long_start_of_engines_is_named() -> None:
    assert findings(queued=20.0)["boot"].figure == pytest.approx(80 / 180, abs=0.01)


def test_the_time_before_the_first_request_counts_as_startup() -> None:
    found = explanation(began=57.0, queued=98.0)
    assert (found.unqueued_seconds, found.startup_seconds, found.makespan_seconds) == (41.0, 43.0, 100.0)


def test_a_worker_that_waits_for_the_first_request_waits_for_prompts() -> None:
    found = explanation(began=57.0, queued=98.0, first_sample=60.0)
    parts = {part.name: part.worker_seconds for part in found.parts}
    assert (parts["boot"], parts["prompts"], parts["idle"]) == (pytest.approx(3), pytest.approx(38), pytest.approx(2))


@pytest.mark.parametrize(
    ("engine", "gpu", "setting"),
    [
        ("scripted", None, "(model.scripted.kvBlocks)"),
        ("vllm", [{"index": 0}], "(engineArgs.gpu_memory_utilization,"),
        ("vllm", None, "on a CPU engineArgs.kv_cache_memory_bytes, or VLLM_CPU_KVCACHE_SPACE"),
    ],
)
def test_kv_cache_advice_names_the_setting_of_the_engine(engine: str, gpu: Any, setting: str) -> None:
    assert setting in findings(engine=engine, preemptions=4, gpu=gpu)["kv"].advice


@pytest.mark.parametrize(
    ("settings", "kv_tokens", "named"),
    [({}, 1_280, True), ({"quantumTokens": 128}, 1_280, False), ({}, 4_096, False), ({}, 0, False)],
)
def test_the_quantum_is_named_if_it_reserves_half_of_the_kv_cache(
    settings: dict[str, int], kv_tokens: int, named: bool
) -> None:
    record = RunRecord("r", "", {"spec": {"rollout": settings, "sampling": {"maxTokens": 2_000}}}, "0", "complete")
    sample = SampleLine(0.0, workers={"w": WorkerSample(kv_tokens=kv_tokens)})

    advice = large_quantum(make_trace(record, (), (sample,)))

    assert advice.startswith("lower rollout.quantumTokens (1,024;") if named else advice == ""


def test_preemptions_are_reported_under_the_kv_cache() -> None:
    finding = findings(preemptions=4)["kv"]
    assert (finding.figure, finding.says) == (4.0, "kv: engines preempted 4 times, 10 responses in all")
