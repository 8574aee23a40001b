"""Local runs on real vLLM engines, with the tiny model of the repository."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.workbench import Workbench, alive, workbench_in
from tests.repository import ROOT, SOAK
from tests.worker.kv_pool.mooncake.pool import why_not

pytestmark = [pytest.mark.engine, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(2400)]

TINY = ROOT / "examples/tiny-model/model"
GROUPS, SIZE = 6, 4
TOKENS = 320
# The shortest quantum gives back and moves most; `make soak` runs them all.
QUANTA = (16, 64, 256) if SOAK else (16,)
# A run takes half a minute alone. Beside a cluster's tests, importing the engine alone has taken two.
RUN_SECONDS = 550


def write_job(bench: Workbench, *, dtype: str = "float32", temperature: float = 0.0, **spec: Any) -> None:
    path = bench.write(
        model={"path": str(TINY), "dtype": dtype, **spec.pop("model", {})},
        sampling={"maxTokens": TOKENS, "temperature": temperature, "ignoreEos": True},
        **spec,
    )
    assert path.exists()
    prompts = (ROOT / "examples/tiny-model/prompts.jsonl").read_text().splitlines()[:GROUPS]
    (bench.folder / "prompts.jsonl").write_text("\n".join(prompts) + "\n")


def responses(bench: Workbench, folder: str) -> dict[tuple[str, int], Any]:
    lines = (bench.folder / folder / "results.jsonl").read_text().splitlines()
    return {(line["group"], line["index"]): line for line in map(json.loads, lines)}


def moved(line: dict[str, Any]) -> bool:
    return len(line["workers"]) > 1


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Any]:
    """The responses of one worker, each generated in a single chunk."""
    with workbench_in(tmp_path_factory.mktemp("whole")) as bench:
        rollout = {"policy": "fifo", "quantumTokens": 65536}
        write_job(bench, rollout=rollout, workers={"replicas": 1})
        assert bench.call("run", "job.yaml", "--output", "whole", timeout=RUN_SECONDS).returncode == 0
        found = responses(bench, "whole")
    assert all(len(line["chunks"]) == 1 for line in found.values())
    return found


def test_at_temperature_0_chunks_and_moves_change_no_token(bench: Workbench, whole: dict[tuple[str, int], Any]) -> None:
    any_moved = 0
    for quantum in QUANTA:
        write_job(
            bench,
            rollout={"quantumTokens": quantum, "checkpointSeconds": 0.05},
            workers={"replicas": 2, "maxInflight": 2},
        )
        done = bench.call("run", "job.yaml", "--output", f"q{quantum}", timeout=RUN_SECONDS)
        assert done.returncode == 0, done.stdout
        chunked = responses(bench, f"q{quantum}")
        any_moved += sum(moved(line) for line in chunked.values())
        for key, line in whole.items():
            assert chunked[key]["token_ids"] == line["token_ids"], f"{key} at quantum {quantum}"
            assert chunked[key]["logprobs"] == pytest.approx(line["logprobs"], abs=1e-3)
    assert any_moved, "no response moved, so moves were not tested"


def test_with_a_kv_pool_moved_contexts_are_fetched_also_after_a_death(
    bench: Workbench, whole: dict[tuple[str, int], Any]
) -> None:
    folder = bench.folder / "pool"
    pools: list[dict[str, Any]] = [{"backend": "shared-directory", "path": str(folder)}]
    if not why_not():  # else Mooncake cannot run here
        pools.append({"backend": "mooncake", "maxGigabytes": 1})
    for pool in pools:
        write_job(
            bench,
            kvPool=pool,
            rollout={"quantumTokens": 16, "checkpointSeconds": 0.05, "leaseSeconds": 3},
            workers={"replicas": 2, "maxInflight": 2},
        )
        bench.run_with_a_death(RUN_SECONDS)
        pooled = responses(bench, "runs/bench")
        assert any(moved(line) for line in pooled.values()), "no response moved, so moves were not tested"
        for key, line in whole.items():
            assert pooled[key]["token_ids"] == line["token_ids"], key
            assert pooled[key]["logprobs"] == pytest.approx(line["logprobs"], abs=1e-3)
        contexts = json.loads((bench.run.path / "report.json").read_text())["contexts"]
        assert contexts["fetched"] > 0
        shutil.rmtree(bench.run.path)
    assert list(folder.iterdir()) == [], "blocks of a run that has ended are left"


@pytest.mark.parametrize("where", ["inProcess", "child"])
def test_a_killed_workers_engine_ends_and_the_others_continue(bench: Workbench, where: str) -> None:
    write_job(
        bench,
        temperature=1.0,
        dtype="bfloat16",
        model={"engineProcess": where},
        groupSize=16,
        rollout={"quantumTokens": 64, "leaseSeconds": 3},
        workers={"replicas": 2, "maxInflight": 4},
    )
    process = bench.start("run", "job.yaml")
    bench.until(lambda: len(bench.used_workers()) == 2, "results of both workers", RUN_SECONDS)
    victim = bench.workers(process)[0]
    family = bench.below(victim)
    assert bool(family) == (where == "child")
    os.kill(victim, signal.SIGKILL)
    bench.until(lambda: not any(alive(pid) for pid in family), "the engine's processes are gone")
    output, _ = process.communicate(timeout=RUN_SECONDS)
    assert process.returncode == 0, output
    bench.assert_whole(GROUPS * 16)
    report = json.loads((Path(bench.run.path) / "report.json").read_text())
    assert report["preemptions"] == 0
    assert report["reaps"] > 0


def test_a_killed_run_leaves_no_engine(bench: Workbench) -> None:
    write_job(bench, model={"engineProcess": "child"}, workers={"replicas": 1})
    process = bench.start("run", "job.yaml")
    bench.until(lambda: bench.results() > 0, "the first result", RUN_SECONDS)
    family = bench.descendants(process)
    process.kill()
    bench.until(lambda: not any(alive(pid) for pid in family), "all its processes are gone")


def test_an_unknown_engine_argument_ends_the_run_with_its_name(bench: Workbench) -> None:
    write_job(bench, model={"engineArgs": {"no_such_argument": 1}})
    done = bench.call("run", "job.yaml", timeout=RUN_SECONDS)
    assert done.returncode == 2, done.stdout
    assert "vLLM has no argument no_such_argument" in " ".join(done.stdout.split())
