"""The capture of routed experts is refused with settings that conflict with it."""

from typing import Any

import pytest

from openseer_core.errors import ManifestError
from openseer_core.manifest.parse import parse_job
from tests.core.manifest.test_job import manifest

ENGINE = "spec.model.engineArgs.logits_processors: conflicts with spec.routing.capture"


def test_capture_is_off_unless_it_is_stated() -> None:
    assert parse_job(manifest(), "job").spec.routing.capture is None
    assert parse_job(manifest({"routing": {}}), "job").spec.routing.capture is None
    assert parse_job(manifest({"routing": {"capture": {}}}), "job").spec.routing.capture is not None


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"routing": {"capture": {"path": "/r", "pvc": {"claimName": "c", "path": "p"}}}},
            "spec.routing.capture: found ",
        ),
        ({"model": {"path": "m", "engine": "scripted"}}, "spec.routing.capture: the scripted engine has no experts"),
        ({"sampling": {"minP": 0.1}}, "spec.sampling.minP: found 0.1, allowed with spec.routing.capture: 0"),
        ({"model": {"path": "m", "engineArgs": {"logits_processors": ["a"]}}}, ENGINE),
        (
            {"model": {"path": "m", "engineArgs": {"decode_context_parallel_size": 2}}},
            "spec.model.engineArgs.decode_context_parallel_size: found 2, allowed with spec.routing.capture: 1",
        ),
        (
            {"workers": {"parallelism": {"pipeline": 2}}},
            "spec.workers.parallelism.pipeline: found 2, allowed with spec.routing.capture: 1",
        ),
    ],
)
def test_a_setting_that_conflicts_with_capture_is_reported(spec: dict[str, Any], expected: str) -> None:
    captured: dict[str, Any] = {"routing": {"capture": {}}, **spec}
    with pytest.raises(ManifestError) as refused:
        parse_job(manifest(captured), "job")
    assert any(line.startswith(expected) for line in refused.value.problems), refused.value.problems
