"""One function decides whether a job drafts, and returns the reason if it does not."""

from typing import Any

import pytest

from openseer_core.manifest.job import Spec
from openseer_core.worker.draft_ratios import DraftRatio, measured, refusal
from openseer_core.worker.speculation_enabled import job_refusal, speculation_refusal


def reason(device: str, /, **parts: Any) -> str:
    spec = {"model": {"path": "m"}, "prompts": {"path": "p"}} | parts
    return speculation_refusal(Spec.model_validate(spec), device)


def row(batch: int, ratio: float, device: str = "H100") -> DraftRatio:
    return DraftRatio(
        device=device,
        runner="V1",
        model="8b",
        batch=batch,
        ratio=ratio,
        date="2026-11-27",
        command="bench-gpu",
    )


def test_a_job_with_the_default_drafts_where_a_measurement_favours_it() -> None:
    assert reason("cpu") == ""
    assert reason("NVIDIA A1") == (
        "spec.speculation.enabled is unset, and no measurement shows a gain from drafts on NVIDIA A1"
    )


def test_drafts_are_on_by_default_only_where_they_cost_nothing() -> None:
    table = [row(1, 2.1), row(64, 1.2), row(256, 0.96), row(1, 3.0, "other")]
    assert "0.96 times the tokens per second on H100 at 256 requests at once" in refusal("H100", None, table)
    assert "0.96" in refusal("H100", 256, table)
    assert refusal("H100", 128, table) == ""
    assert refusal("other", None, table) == ""
    assert "at most 1.02" in refusal("H100", None, [row(1, 1.02), row(8, 0.99)])
    assert "no measurement" in refusal("H100", 1, [row(8, 2.0)])


def test_the_largest_batch_is_the_one_that_the_manifest_allows() -> None:
    assert "no measurement" not in reason("cpu", workers={"maxInflight": 1})
    spec = {"model": {"path": "m", "engineArgs": {"max_num_seqs": 4}}, "prompts": {"path": "p"}}
    assert speculation_refusal(Spec.model_validate(spec), "cpu") == ""


def test_the_table_has_one_row_per_measured_configuration() -> None:
    rows = measured()
    assert len({(row.device, row.runner, row.model, row.batch) for row in rows}) == len(rows)
    assert {row.device for row in rows} == {"cpu"}, "a GPU was measured: add a test of its rows here"


def test_a_job_that_never_drafts_is_known_without_a_device() -> None:
    spec = {"model": {"path": "m"}, "prompts": {"path": "p"}}
    assert job_refusal(Spec.model_validate(spec)) == ""
    assert "minP" in job_refusal(Spec.model_validate(spec | {"sampling": {"minP": 0.2}}))


@pytest.mark.parametrize("device", ["cpu", "NVIDIA A1"])
def test_a_job_can_turn_drafts_on_and_off(device: str) -> None:
    assert reason(device, speculation={"enabled": True}) == ""
    assert reason(device, speculation={"enabled": False}) == "spec.speculation.enabled is false"


@pytest.mark.parametrize("enabled", [None, True])
def test_a_cut_that_the_engine_ignores_keeps_the_job_from_drafting(enabled: bool | None) -> None:
    found = reason("cpu", speculation={"enabled": enabled}, sampling={"minP": 0.1})
    assert found == "spec.sampling.minP: the engine ignores it when it verifies drafts"
    assert reason("cpu", speculation={"enabled": enabled}, sampling={"minP": 0, "topP": 0.9, "topK": 5}) == ""


@pytest.mark.parametrize("enabled", [None, True])
def test_logits_processors_of_the_engine_keep_a_job_from_drafting(enabled: bool | None) -> None:
    model = {"path": "m", "engineArgs": {"logits_processors": ["bans:Bans"]}}
    assert "logits_processors" in reason("cpu", model=model, speculation={"enabled": enabled})


def test_the_scripted_engine_has_nothing_to_verify() -> None:
    assert "scripted" in reason("cpu", model={"path": "m", "engine": "scripted"}, speculation={"enabled": True})
