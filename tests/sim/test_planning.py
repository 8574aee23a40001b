"""Plans: the size of a fleet for a job, from lengths drawn from a history."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import InputError
from openseer_core.manifest.job import RolloutJob
from openseer_core.manifest.parse import parse_job
from openseer_sim.history import SHAPES, LengthHistory, group_count, history_of
from openseer_sim.planning import JobPlan, PlanOptions, make_plan
from openseer_sim.profile import engine_of
from openseer_sim.work import GroupLengths
from tests.sim.recorded_runs import SHAPE, manifest, write_recorded

OPTIONS = PlanOptions((1, 2, 4), draws=2, start_seconds=10.0)
GROUPS = 10


def job_of(**spec: Any) -> RolloutJob:
    return parse_job(manifest(**spec), "the test")


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> LengthHistory:
    folder = write_recorded(tmp_path_factory.mktemp("runs") / "recorded")
    return history_of(job_of(), [folder.path])


def plan_of(history: LengthHistory, options: PlanOptions = OPTIONS, job: RolloutJob | None = None) -> JobPlan:
    job = job or job_of()
    return make_plan(job, history, engine_of(job, None), options, GROUPS)


@pytest.fixture(scope="module")
def plan(history: LengthHistory) -> JobPlan:
    return plan_of(history, replace(OPTIONS, price=2.0))


def test_more_gpus_are_faster_and_cost_their_start(plan: JobPlan) -> None:
    times = [fleet.seconds.median for fleet in plan.fleets]
    assert times == sorted(times, reverse=True)
    assert [fleet.gpus for fleet in plan.fleets] == [1, 2, 4]
    small, *_, large = plan.fleets
    assert large.gpu_hours.median > small.gpu_hours.median
    assert small.gpu_hours.median == pytest.approx(small.seconds.median / 3600)
    assert small.cost is not None
    assert small.cost.median == pytest.approx(2 * small.gpu_hours.median)


def test_the_intervals_hold_the_medians(plan: JobPlan) -> None:
    spans = [fleet.seconds for fleet in plan.fleets] + [gain.speedup for gain in plan.gains]
    assert all(span.low <= span.median <= span.high for span in spans)


def test_a_plan_of_scripted_engines_with_a_pool_has_contexts_fetched(history: LengthHistory) -> None:
    scripted = {"prefillTokensPerSecond": 10, "slots": 2}
    with_pool = {**scripted, "pool": {"bytesPerToken": 1, "bytesPerSecond": 1e9}}
    again, fetched = (
        plan_of(history, job=job_of(model={"path": "none", "engine": "scripted", "scripted": part}))
        for part in (scripted, with_pool)
    )
    assert any(line.endswith("contexts of responses that move are fetched") for line in fetched.assumptions)
    assert any(line.endswith("contexts of responses that move are computed again") for line in again.assumptions)
    assert fetched.fleets[0].seconds.median < again.fleets[0].seconds.median


def test_a_deadline_chooses_the_cheapest_fleet_that_keeps_it(history: LengthHistory, plan: JobPlan) -> None:
    deadline = plan.fleets[1].seconds.high + 0.001
    chosen = plan_of(history, replace(OPTIONS, deadline=deadline)).chosen
    assert chosen is not None
    assert chosen.gpus == 2


def test_an_interval_states_the_probability_of_a_miss(history: LengthHistory, plan: JobPlan) -> None:
    assert any("lies outside with a probability of 67%" in line for line in plan.assumptions)
    once = plan_of(history, replace(OPTIONS, gpus=(1,), draws=1, deadline=1e6))
    assert "in the one draw of lengths" in once.advice
    assert any("lies outside with a probability of 100%" in line for line in once.assumptions)


def test_a_plan_uses_the_policy_of_the_job(history: LengthHistory) -> None:
    job = job_of(rollout={"policy": "round-robin"})
    plan = plan_of(history, replace(OPTIONS, gpus=(2,)), job)
    assert plan.fleets[0].seconds.median == OPTIONS.start_seconds + plan.gains[0].seconds.median
    assert any(line.startswith("policy round-robin of the manifest") for line in plan.assumptions)


def test_every_rollout_is_counted_before_it_is_simulated(history: LengthHistory) -> None:
    told: list[tuple[int, int]] = []
    options = replace(OPTIONS, gpus=(2, 4), draws=2)
    make_plan(job_of(), history, engine_of(job_of(), None), options, 2, lambda done, of: told.append((done, of)))
    assert told == [(done, 12) for done in range(12)]


def test_fleets_of_more_workers_than_responses_are_left_out(history: LengthHistory) -> None:
    options = replace(OPTIONS, gpus=(2, 64), draws=1)
    plan = plan_of(history, options)
    assert [fleet.gpus for fleet in plan.fleets] == [2]
    assert any(line.startswith("64 GPUs are left out") for line in plan.assumptions)
    with pytest.raises(InputError, match="no more workers than the job's 40 responses"):
        plan_of(history, replace(options, gpus=(999_999,)))


def test_a_deadline_that_no_fleet_keeps_is_reported(history: LengthHistory) -> None:
    late = plan_of(history, replace(OPTIONS, deadline=1.0))
    assert late.chosen is None
    assert "No fleet of 1, 2, 4 GPUs ends within 1 s in each of 2 draws" in late.advice


@pytest.mark.parametrize(("deadline", "alone"), [(10.0, False), (1.0, True)])
def test_a_missed_deadline_names_the_share_of_the_start(history: LengthHistory, deadline: float, alone: bool) -> None:
    late = plan_of(history, replace(OPTIONS, deadline=deadline, start_seconds=9.0))
    assert late.chosen is None
    assert "of which 9 s are the start of the workers (--start)" in late.advice
    assert ("no fleet can end before" in late.advice) is alone
    assert "--start" not in plan_of(history, replace(OPTIONS, deadline=1.0, start_seconds=0.0)).advice


def test_workers_released_at_their_end_cost_less(history: LengthHistory, plan: JobPlan) -> None:
    released = plan_of(history, replace(OPTIONS, tail_release=True))
    assert released.fleets[-1].gpu_hours.median < plan.fleets[-1].gpu_hours.median


def test_sizes_that_no_worker_fits_are_left_out_or_refused(history: LengthHistory) -> None:
    wide = job_of(workers={"parallelism": {"tensor": 4}})
    plan = plan_of(history, job=wide)
    assert [(fleet.gpus, fleet.workers) for fleet in plan.fleets] == [(4, 1)]
    assert any("1, 2 GPUs are left out" in line for line in plan.assumptions)
    with pytest.raises(InputError, match="multiples of 4"):
        plan_of(history, replace(OPTIONS, gpus=(1, 2)), wide)


def test_division_and_order_are_compared_with_whole_groups(plan: JobPlan) -> None:
    first, *_, oracle, bound = plan.gains
    assert first.speedup.median == 1
    assert oracle.speedup.median >= 1
    assert bound.seconds.high <= oracle.seconds.high
    assert not any("drafts," in gain.name for gain in plan.gains)
    assert any("drafts are left out" in line for line in plan.assumptions)


def test_drafts_count_if_a_run_of_the_history_drafted(tmp_path: Path) -> None:
    drafted = history_of(job_of(), [write_recorded(tmp_path / "drafted", replace(SHAPE, drafts=True)).path])
    assert drafted.drafted is not None
    plan = plan_of(drafted, replace(OPTIONS, gpus=(2,), draws=1))
    plain, with_drafts = (
        gain.seconds.median for gain in plan.gains if "context-aware" in gain.name or "drafts," in gain.name
    )
    assert with_drafts < plain
    assert any("the fleets are counted without drafts" in line for line in plan.assumptions)


def test_draws_keep_groups_whole_and_end_at_the_limit(history: LengthHistory) -> None:
    whole = {group.lengths for group in history.groups}
    drawn = history.draw(50, SHAPE.size, 8192, seed=3)
    assert {group.lengths for group in drawn} <= whole
    assert drawn == history.draw(50, SHAPE.size, 8192, seed=3)
    assert all(len(group.lengths) == 7 for group in history.draw(5, 7, 8192, seed=3))
    assert LengthHistory([GroupLengths(1, (90,))], "").draw(1, 1, 50, 0)[0].lengths == (50,)


def test_no_response_exceeds_the_room_in_the_context(history: LengthHistory) -> None:
    assert LengthHistory([GroupLengths(10, (90,))], "").draw(1, 1, 50, 0, context=40)[0].lengths == (30,)
    model = manifest()["spec"]["model"]
    short = job_of(model=model | {"scripted": model["scripted"] | {"maxModelLen": 64}})
    options = replace(OPTIONS, gpus=(2,), draws=1)
    assert plan_of(history, options, short).fleets[0].seconds.high < plan_of(history, options).fleets[0].seconds.low
    with pytest.raises(InputError, match="below the job's longest response"):
        history_of(short, shape="mild:400")


def test_a_job_without_lengths_is_refused_with_advice() -> None:
    with pytest.raises(InputError, match="pass --history RUN"):
        history_of(job_of())


@pytest.mark.parametrize("text", ["heavy", "heavy:", "heavy:9999", "heavy:nan", "bell:300"])
def test_a_distribution_needs_a_known_name_and_a_mean_below_the_limit(text: str) -> None:
    with pytest.raises(InputError, match="NAME:MEAN"):
        history_of(job_of(), shape=text)


@pytest.mark.parametrize("name", SHAPES)
def test_a_named_distribution_has_its_mean(name: str) -> None:
    found = history_of(job_of(), shape=f"{name}:400")
    lengths = [length for group in found.groups for length in group.lengths]
    assert sum(lengths) / len(lengths) == pytest.approx(400, rel=0.1)


def test_a_distribution_does_not_state_the_number_of_groups() -> None:
    job = job_of()
    with pytest.raises(InputError, match="its number of groups is unknown"):
        make_plan(job, history_of(job, shape="mild:400"), engine_of(job, None), OPTIONS)


def test_results_inside_the_folder_of_a_run_are_that_run(tmp_path: Path) -> None:
    folder = write_recorded(tmp_path / "whole", replace(SHAPE, groups=2, drafts=True))
    found = history_of(job_of(), [folder.results_file])
    assert found.groups == history_of(job_of(), [folder.path]).groups
    assert found.drafted is not None
    alone = folder.results_file.rename(tmp_path / "results.jsonl")
    with pytest.raises(InputError, match="of a run pass its folder"):
        history_of(job_of(), [alone])


def test_a_run_of_another_kind_is_noted(tmp_path: Path) -> None:
    folder = write_recorded(tmp_path / "other", replace(SHAPE, groups=2))
    job = job_of(groupSize=8, model={"path": "models/other", "engine": "scripted"})
    notes = " ".join(history_of(job, [folder.path]).notes)
    assert "models/any" in notes
    assert "2 of 2 groups of the history do not have 8 responses" in notes


def test_results_of_a_batch_are_a_history(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    lines = [
        line(0, [[0, 5]]),
        line(1, [[0, 3]]),
        line(1, [[0, 3], [4, 9]]),
        '{"kind": "group", "batch": 7, "group": "a"}',
    ]
    path.write_text("".join(f"{text}\n" for text in lines) + '{"kind": "res')
    found = history_of(job_of(), [path])
    assert found.groups == [GroupLengths(3, (5, 8))]
    assert found.notes == (
        "1 of 1 groups of the history do not have 4 responses as those of the job: lengths are drawn within them with "
        "replacement",
        "1 groups are few: intervals are narrower than they would be with 30",
    )
    path.write_text("3\n")
    with pytest.raises(InputError, match="line 1: not a line of"):
        history_of(job_of(), [path])
    path.write_text("")
    with pytest.raises(InputError, match="no lengths to plan with"):
        history_of(job_of(), [path])


def test_responses_of_a_batch_that_were_cut_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "batch.jsonl"
    path.write_text(line(0, [[0, 5]]) + "\n" + line(1, [[0, 3]], "aborted") + "\n")
    found = history_of(job_of(), [path])
    assert any("batch.jsonl: 1 responses did not end by themselves" in note for note in found.notes)
    assert "Expect a longer time" in plan_of(found, replace(OPTIONS, gpus=(1,), draws=1)).advice


def line(index: int, sampled: list[list[int]], status: str = "ok") -> str:
    item = {
        "kind": "result",
        "batch": 7,
        "group": "a",
        "index": index,
        "status": status,
        "prompt_token_ids": [1, 2, 3],
        "sampled": sampled,
    }
    return json.dumps(item)


def test_prompt_lines_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "a"}\n\n{"prompt": "b"}\n')
    assert group_count(job_of(prompts={"path": str(path)})) == 2
    assert group_count(job_of()) is None
