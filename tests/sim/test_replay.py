"""A recorded run, simulated with its own lengths under every policy."""

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

import openseer_sim.replay
from openseer_core.errors import InputError
from openseer_core.manifest.parse import parse_job
from openseer_driver.run_folder import RunFolder
from openseer_local.simulated.replayed import sentence
from openseer_sim.bound import BOUND
from openseer_sim.profile import engine_of, read_profile
from openseer_sim.recorded import RecordedRun, read_run
from openseer_sim.replay import POLICIES, Replay, replay
from tests.sim.recorded_runs import SHAPE, manifest, write_recorded

BENCH = Path(__file__).resolve().parents[2] / "benchmarks/results/2026-11-27-bench-gpu-cpu.json"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return write_recorded(tmp_path_factory.mktemp("runs") / "recorded")


@pytest.fixture(scope="module")
def run(folder: RunFolder) -> RecordedRun:
    return read_run(folder)


@pytest.fixture(scope="module")
def replayed(run: RecordedRun) -> Replay:
    return replay(run, engine_of(run.job, None))


def test_groups_are_read_in_the_order_of_submission(run: RecordedRun, folder: RunFolder) -> None:
    lengths = {(line.group, line.index): line.length for line in folder.facts()}
    first = run.groups[0]
    assert len(run.groups) == SHAPE.groups
    assert first.lengths == tuple(lengths["prompt-000", index] for index in range(SHAPE.size))
    assert first.prompt == 24


def test_the_runs_own_policy_is_predicted(replayed: Replay) -> None:
    assert replayed.own.policy == "context-aware"
    assert replayed.own.seconds == pytest.approx(replayed.measured.seconds, rel=0.15)


def test_every_policy_is_simulated_and_none_beats_the_bound(replayed: Replay) -> None:
    *rows, bound = replayed.rows
    assert [row.policy for row in rows] == list(POLICIES)
    assert bound.policy == BOUND
    assert all(row.seconds >= bound.seconds for row in rows)


@pytest.mark.parametrize(("late", "steady"), [(0, True), (20, False)])
def test_a_replay_has_the_workers_of_the_run(tmp_path: Path, late: int, steady: bool) -> None:
    shape = replace(SHAPE, workers=3)
    folder = write_recorded(tmp_path / "grown", shape, manifest(replace(shape, workers=2)))
    record = folder.read_run()
    sessions = [msgspec.structs.replace(session, workers=2) for session in record.sessions]
    folder.write_run(msgspec.structs.replace(record, sessions=sessions))
    samples = [
        msgspec.structs.replace(sample, workers=dict(list(sample.workers.items())[: 3 if place >= late else 2]))
        for place, sample in enumerate(folder.samples())
    ]
    folder.samples_file.write_bytes(b"".join(msgspec.json.encode(sample) + b"\n" for sample in samples))
    run = read_run(folder)
    assert (run.workers, run.steady) == (3, steady)
    assert any("the number of workers changed" in note for note in run.notes) is not steady
    shown = replay(run, engine_of(run.job, None), ("fifo",))
    assert shown.rows[-1].seconds <= shown.measured.seconds  # the bound
    assert ("off by" in sentence(shown)) is steady


@pytest.mark.parametrize(("own", "said"), [(True, "drafts included"), (False, "the simulated engine does not")])
def test_a_replay_of_a_drafting_run_states_whether_its_steps_draft(tmp_path: Path, own: bool, said: str) -> None:
    run = read_run(write_recorded(tmp_path / "drafted", replace(SHAPE, drafts=True)))
    engine = replace(engine_of(run.job, None), of_run=own)
    assert [note for note in replay(run, engine, ("fifo",)).unknown if "drafted" in note and said in note]


def test_a_replay_states_the_facts_that_it_lacks(folder: RunFolder, run: RecordedRun, tmp_path: Path) -> None:
    bare = write_recorded(tmp_path / "bare")
    document = json.loads(bare.job_file.read_text())
    record = bare.read_run()
    bare.job_file.unlink()
    bare.write_run(msgspec.structs.replace(record, manifest={"spec": document["spec"]}))
    assert any("quantum" in note for note in read_run(bare).notes)
    assert not any("quantum" in note for note in run.notes)
    outcome = replay(read_run(bare), engine_of(read_run(bare).job, None), ("round-robin",))
    assert any("lengths are those of this run" in note for note in outcome.unknown)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    empty = write_recorded(tmp_path / "empty", replace(SHAPE, groups=1, size=1))
    empty.results_file.write_text("")
    with pytest.raises(InputError, match="no lengths to simulate"):
        read_run(empty)


def test_a_bench_report_has_step_times_and_no_kv_size(run: RecordedRun) -> None:
    engine = read_profile(BENCH)
    assert engine.step.base(8) == pytest.approx(0.00399225)
    assert engine.slots == 256
    with pytest.raises(InputError, match="--kv-tokens"):
        engine_of(run.job, BENCH)
    known = engine_of(run.job, BENCH, kv_tokens=50_000)
    assert known.kv_tokens == 50_000
    assert any("48 tokens" in note for note in known.notes)
    assert any("with the model tiny on one cpu" in note for note in known.notes)


def test_step_times_of_one_gpu_are_refused_for_a_worker_of_several() -> None:
    wide = parse_job(manifest(workers={"parallelism": {"tensor": 4}}), "the test")
    with pytest.raises(InputError, match="step times of one GPU, but a worker of recorded takes 4"):
        engine_of(wide, BENCH, kv_tokens=50_000)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "points"),
        ("[", "no step profile"),
        ('{"points": []}', "at least two"),
        ('{"points": [[1, 0.1], [1, 0.2]]}', "two points"),
        ('{"points": [[1, 0.1]], "kv": 3}', "kv"),
        ('{"points": [[1, 0.1]]}', "at least two"),
        ('{"points": [[1, 0.1], [9, 0.2]], "slots": -1}', "below 0"),
        ('{"points": [[1, 0.1], [9, 0.2]], "per_context": 1e300}', "above 3,600 s"),
        ('{"points": [[1, 0.1], [9, 1e300]]}', "up to 3,600 seconds"),
        ('{"points": [[1, 0.02], [8, 0.01]]}', "no less time for the most tokens"),
    ],
)
def test_a_profile_that_cannot_be_used_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_profile(path)


def test_a_long_run_is_simulated_in_blocks_with_the_same_result(
    run: RecordedRun, replayed: Replay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openseer_sim.replay, "MOST_ITEMS", 3_000)
    coarse = replay(run, engine_of(run.job, None), ("context-aware",))
    assert coarse.own.seconds == pytest.approx(replayed.own.seconds, rel=0.05)


def test_a_cache_with_room_for_one_response_still_ends_all(run: RecordedRun) -> None:
    longest = max(group.prompt + max(group.lengths) for group in run.groups)
    tight = replay(run, engine_of(run.job, None, kv_tokens=longest), ("round-robin",))
    by_policy = {row.policy: row for row in tight.rows}
    assert by_policy["round-robin"].preemptions > 0
    assert by_policy["context-aware"].preemptions == 0


def test_a_response_without_room_is_refused(run: RecordedRun) -> None:
    with pytest.raises(InputError, match="pass --kv-tokens"):
        replay(run, engine_of(run.job, None, kv_tokens=100))


def test_a_file_of_points_is_a_profile(run: RecordedRun, tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text('{"points": [[1, 0.01], [64, 0.02]], "per_context": 1e-8, "kv_tokens": 90000, "slots": 128}')
    engine = engine_of(run.job, path)
    assert (engine.kv_tokens, engine.slots) == (90_000, 128)
    assert any("more than 64 tokens were not measured" in note for note in engine.notes)


def test_a_job_with_a_real_engine_needs_a_profile(run: RecordedRun) -> None:
    model = run.job.spec.model.model_copy(update={"engine": "vllm"})
    job = run.job.model_copy(update={"spec": run.job.spec.model_copy(update={"model": model})})
    with pytest.raises(InputError, match="bench-gpu"):
        engine_of(job, None)
