"""The arithmetic of an explanation: the parts of any journal add up to the whole, and each moment has one part."""

import random
from collections.abc import Sequence

import msgspec
import pytest

from openseer_core.explain.counters import counted
from openseer_core.explain.parts import Absence, PartName, classify, divide
from openseer_core.worker.context_metrics import ContextCounts
from openseer_core.worker.time_metrics import WorkerSeconds
from openseer_driver.explain.explained import explain
from openseer_driver.report.trace import Fact, Trace, make_trace
from openseer_driver.run_lines import ChunkLine, RunRecord, SampleLine, Session, WorkerSample

EVENTS = ("give_back", "give_back", "reap", "complete")


def drawn_trace(seed: int) -> Trace:
    """A random journal and samples with impossible content: overlapping leases, recurring boots, wrong counters."""
    draw = random.Random(seed)
    names = [f"worker-{n}" for n in range(draw.randint(1, 4))]
    facts = [drawn_fact(draw, names, number) for number in range(draw.randint(1, 60))]
    facts.sort(key=lambda fact: fact.finished_at)
    samples = [drawn_sample(draw, names, 100.0 + second) for second in range(draw.randint(0, 50))]
    sessions = [Session(90.0, 115.0), Session(draw.uniform(116.0, 125.0))][: draw.randint(1, 2)]
    record = RunRecord("drawn", "", {"spec": {"rollout": {"policy": "seer"}}}, "0", "stopped", "", sessions)
    return make_trace(record, tuple(facts), tuple(samples))


def drawn_fact(draw: random.Random, names: Sequence[str], number: int) -> Fact:
    time = enqueued = 100 + draw.uniform(0, 10)
    chunks: list[ChunkLine] = []
    for fence in range(draw.randint(0, 4)):
        claimed, ended = time + draw.uniform(0, 5), time + draw.uniform(5, 12)
        worker = f"{draw.choice(names)}#{draw.choice('ab')}"
        chunks.append(ChunkLine(worker, fence, fence, fence + 1, claimed, ended, draw.choice(EVENTS)))
        time = ended
    started = chunks[0].claimed_at if chunks else None
    reason = "stop" if chunks else "aborted"
    return Fact(0, f"g{number}", 0, "ok", reason, len(chunks), tuple(chunks), enqueued, started, time + 0.1)


def drawn_sample(draw: random.Random, names: Sequence[str], at: float) -> SampleLine:
    workers = {
        name: WorkerSample(
            draw.choice(("idle", "busy", "starting")),
            slots=2,
            tokens=draw.randint(0, 500),
            contexts=ContextCounts(draw.randint(0, 90), draw.randint(0, 90), compute_seconds=draw.uniform(0, 9)),
            seconds=draw.choice((None, WorkerSeconds(*(draw.uniform(0, 30) for _ in range(5))))),
            boot=draw.choice("ab"),
            silent=draw.uniform(0, 8),
        )
        for name in names
        if draw.random() < 0.9
    }
    return SampleLine(at, draw.randint(0, 3), draw.randint(0, 3), 1, draw.randint(0, 9), 5, workers)


@pytest.mark.parametrize("seed", range(60))
def test_parts_add_up_to_the_whole_of_every_journal(seed: int) -> None:
    found = explain(drawn_trace(seed))
    whole = (found.startup_seconds + found.makespan_seconds) * len(found.workers)
    assert found.worker_seconds == pytest.approx(whole)
    for worker in found.workers.values():
        assert sum(worker.parts.values()) == pytest.approx(found.startup_seconds + found.makespan_seconds)
        assert min(worker.parts.values()) >= -1e-9
    unknown: list[PartName] = [part.name for part in found.parts if part.worker_seconds is None]
    assert all(worker.parts[name] == 0 for worker in found.workers.values() for name in unknown)
    assert sum(part.share or 0 for part in found.parts) == pytest.approx(1)
    msgspec.json.decode(found.to_json())


def parts_of(
    *leases: tuple[float, float], waiting: Sequence[tuple[float, float]] = (), away: Sequence[Absence] = ()
) -> dict[PartName, float]:
    """The nonzero parts of one worker with two slots over ten seconds; all requests were queued by the fifth."""
    found = classify(leases, waiting, away, slots=2, stocked=1.0, submitted=5.0, end=10.0)
    return {name: seconds for name, seconds in found.items() if seconds}


def test_each_moment_has_its_part() -> None:
    assert parts_of((2, 8), (4, 6)) == {
        "prompts": 1.0, "idle": 1.0, "decode_below": 4.0, "decode_full": 2.0, "tail": 2.0,
    }  # fmt: skip
    assert parts_of((1, 9), waiting=[(0, 3)]) == {
        "prompts": 1.0, "decode_below_waiting": 2.0, "decode_below": 6.0, "tail": 1.0,
    }  # fmt: skip
    assert parts_of((3, 10), away=[Absence(0, 3, "boot"), Absence(6, 10, "lost")]) == {
        "boot": 3.0, "decode_below": 3.0, "lost": 4.0,
    }  # fmt: skip


def test_counters_take_their_seconds_from_their_own_parts() -> None:
    seconds = classify([(4, 10)], [(0, 10)], [], slots=1, stocked=0.0, submitted=0.0, end=10.0)
    assert (seconds["idle"], seconds["decode_full"]) == (4.0, 6.0)
    counters = {"store_idle": 3.0, "weights": 0.5, "compute_seconds": 2.0, "computed": 10.0, "recomputed": 5.0}
    parts = {name: value for name, value in divide(seconds, counters).items() if value}
    assert parts == {
        "idle": 0.5, "store": 3.0, "weights": 0.5, "decode_full": 4.0, "prefill": 1.0, "recompute": 1.0,
    }  # fmt: skip


def test_counters_beyond_the_available_time_are_capped() -> None:
    seconds = classify([(0, 10)], [], [], slots=1, stocked=0.0, submitted=0.0, end=10.0)
    parts = divide(seconds, {"store_idle": 99.0, "store_below": 5.0, "weights": 7.0, "compute_seconds": 50.0})
    assert sum(parts.values()) == pytest.approx(10.0)
    assert (parts["store"], parts["weights"]) == (10.0, 0.0)


def test_counters_of_several_boots_are_added_up() -> None:
    def seen(boot: str, running: float) -> WorkerSample:
        return WorkerSample(boot=boot, seconds=WorkerSeconds(running=running))

    assert counted([seen("a", 3.0), seen("a", 5.0), seen("b", 6.0)])["running"] == 11.0
    assert counted([seen("", 3.0), seen("", 5.0), seen("", 1.0)])["running"] == 6.0
