"""`openseer validate` shows each step, and the missing requirements of a job."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import yaml
from typer.testing import CliRunner

from openseer_core.admission import ModelLimits
from openseer_core.errors import InputError, ModelError
from openseer_local.main import app
from openseer_local.terminal.display import Display
from tests.text.tokenizers_of_tests import byte_level, save

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a model and prompts; vLLM is not started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("openseer_local.validation.computed_limits", Mock(return_value=ModelLimits()))
    (save(byte_level(), tmp_path / "model") / "model.safetensors").write_bytes(b"")
    (tmp_path / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    return tmp_path


def validate(folder: Path, **spec: Any) -> Any:
    document = {
        "apiVersion": "openseer.dev/v1alpha1",
        "kind": "RolloutJob",
        "metadata": {"name": "job"},
        "spec": {"model": {"path": "model"}, "prompts": {"path": "prompts.jsonl"}} | spec,
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(document))
    return CliRunner().invoke(app, ["validate", str(folder / "job.yaml")])


@pytest.fixture
def phases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The displayed phases, in order."""
    seen: list[str] = []

    def phase(_: Display, text: str) -> None:
        seen.append(text)

    monkeypatch.setattr(Display, "phase", phase)
    return seen


def test_each_step_is_shown_under_its_own_name(folder: Path, phases: list[str]) -> None:
    assert validate(folder).exit_code == 0
    assert phases == [
        "reading prompts",
        "loading the tokenizer",
        "asking vLLM for the model's limits",
        "rendering prompts",
    ]


def test_an_unusable_kv_pool_is_refused_or_noted(folder: Path) -> None:
    (folder / "file").touch()
    done = validate(folder, kvPool={"backend": "shared-directory", "path": str(folder / "file" / "kv")})
    assert isinstance(done.exception, InputError)
    assert "spec.kvPool.path" in str(done.exception)
    done = validate(folder, kvPool={"backend": "shared-directory", "pvc": {"claimName": "kv", "path": "kv"}})
    assert done.exit_code == 0
    assert "note: there is no KV pool: spec.kvPool.pvc exists only in Kubernetes" in done.output


def test_a_model_that_is_no_folder_is_checked_before_vllm_starts(
    folder: Path, phases: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = validate(folder, model={"path": "model/gone"})
    assert isinstance(done.exception, ModelError)
    assert "model/ is a folder here, and has no gone" in str(done.exception)
    assert phases[-1] == "asking the hub for model/gone, which is not a folder on this machine"


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "found model, a folder without weights, allowed: one with *.safetensors"),
        (
            {"model-1.safetensors": "", INDEX: json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "m-2"}})},
            f"model/{INDEX}: lists m-2, which the folder does not have",
        ),
        ({"model-1.safetensors": "", INDEX: "{"}, f"model/{INDEX}: not "),
    ],
)
def test_a_model_folder_without_all_weights_is_refused(folder: Path, files: dict[str, str], told: str) -> None:
    (folder / "model/model.safetensors").unlink()
    for name, text in files.items():
        (folder / "model" / name).write_text(text)
    done = validate(folder)
    assert isinstance(done.exception, ModelError)
    assert told in str(done.exception)
    assert validate(folder, model={"path": "model", "engineArgs": {"load_format": "dummy"}}).exit_code == 0


def test_fields_ignored_by_the_scripted_engine_are_noted(folder: Path) -> None:
    model = {"path": "none", "engine": "scripted", "dtype": "float16", "engineArgs": {"max_model_len": 8}}
    done = validate(folder, model=model)
    assert done.exit_code == 0
    told = " ".join(done.stderr.split())
    assert "note: the scripted engine ignores spec.model.dtype, spec.model.engineArgs" in told
    assert "does not read" not in validate(folder, model={"path": "none", "engine": "scripted"}).stderr


def test_a_model_without_experts_is_refused_before_it_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(_: Any, *, routes: bool) -> ModelLimits:
        if routes:
            raise ModelError("spec.routing.capture: the model model has no experts; remove spec.routing")
        return ModelLimits()

    monkeypatch.setattr("openseer_local.validation.computed_limits", limits)
    assert validate(folder).exit_code == 0
    done = validate(folder, routing={"capture": {}})
    assert isinstance(done.exception, ModelError)
