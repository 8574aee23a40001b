"""Whether a job drafts is decided in one place, with the reason where it does not."""

from typing import Any

import pytest

from openseer_core.manifest.job import Spec
from openseer_core.worker.speculation_enabled import Device, speculation_refusal


def reason(device: Device, /, **parts: Any) -> str:
    spec = {"model": {"path": "m"}, "prompts": {"path": "p"}} | parts
    return speculation_refusal(Spec.model_validate(spec), device)


def test_a_job_that_says_nothing_drafts_on_a_cpu_and_not_on_a_gpu() -> None:
    assert reason("cpu") == ""
    assert "not measured to pay on GPUs" in reason("gpu")


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_a_job_may_be_told_to_draft_and_not_to(device: Device) -> None:
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
