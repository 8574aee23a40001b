"""The places of a model's files, the execution of their code, and loading without questions to a user."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Model
from openseer_core.manifest.prompts import PromptLine
from openseer_text.model_files import load_tokenizer, unattended
from openseer_text.rendering import open_codec
from tests.text.tokenizers_of_tests import byte_level, save

TOKENIZER_CODE = """
from transformers import PreTrainedTokenizerFast
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
CONFIG_CODE = """
from transformers import LlamaConfig
class OwnConfig(LlamaConfig):
    model_type = "own"
"""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of an empty hub cache, on a machine without access to a hub."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.fixture
def own_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose tokenizer and configuration are code in its folder."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = save(byte_level(), tmp_path / "own")
    (folder / "own.py").write_text(TOKENIZER_CODE + CONFIG_CODE)
    about: dict[str, Any] = json.loads((folder / "tokenizer_config.json").read_text())
    about |= {"tokenizer_class": "OwnTokenizer", "auto_map": {"AutoTokenizer": [None, "own.OwnTokenizer"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "config.json").write_text('{"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}}')
    return folder


def keep_in_cache(hub: Path, name: str) -> None:
    """Puts a tokenizer into the hub's cache, as a download does."""
    repository = hub / f"models--{name.replace('/', '--')}"
    save(byte_level(), repository / "snapshots/abc")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("abc")


@pytest.mark.parametrize("name", ["gpt2", "Qwen/Qwen3-0.6B"])
def test_a_hubs_name_has_an_owner_or_none(hub: Path, name: str) -> None:
    keep_in_cache(hub, name)
    model = Model(path=name, engine_args={"download_dir": str(hub)})
    assert open_codec(model).render(PromptLine("p", 1, "a")).token_ids == [64]


@pytest.mark.parametrize("path", ["./gone", "/gone", "a/b/gone", "gone/", "../gone", "my model", "~gone/x"])
def test_a_missing_folder_is_reported_as_one(hub: Path, path: str) -> None:
    for model, field in ((Model(path=path), "path"), (Model(path=".", tokenizer=path), "tokenizer")):
        with pytest.raises(ModelError) as refused:
            load_tokenizer(model)
        assert str(refused.value) == (
            f"spec.model.{field}: found {path}, which is not a folder on this machine (working directory: {hub.parent})"
            ", allowed: a folder, or a hub's model as OWNER/NAME"
        )


def test_an_unknown_name_is_reported_as_folder_and_hub_model(hub: Path) -> None:
    with pytest.raises(ModelError) as refused:
        load_tokenizer(Model(path="gone", engine_args={"download_dir": str(hub)}))
    message = str(refused.value)
    assert message.startswith(
        f"spec.model.path: found gone, which is not a folder on this machine (working directory: {hub.parent})"
    )
    assert "whose tokenizer cannot be loaded as that of a hub's model: " in message


def test_a_folder_without_a_tokenizer_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"found .*, a folder without a tokenizer, needed: tokenizer\.json"):
        load_tokenizer(Model(path=str(tmp_path)))
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match=r"found .*, whose tokenizer cannot be loaded: "):
        load_tokenizer(Model(path=str(tmp_path)))


def test_a_mistyped_folder_is_reported_with_its_existing_parent(hub: Path) -> None:
    (hub.parent / "models").mkdir()
    with pytest.raises(ModelError) as refused:
        load_tokenizer(Model(path="models/gone", engine_args={"download_dir": str(hub)}))
    assert "; models/ is a folder here, and has no gone, and whose tokenizer cannot be" in str(refused.value)


def test_a_prompt_above_the_tokenizers_limit_logs_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_level()
    tokenizer.model_max_length = 4
    logging.getLogger("transformers").propagate = True
    load_tokenizer(Model(path=str(save(tokenizer, tmp_path)))).encode("a" * 99)
    assert "indexing errors" not in caplog.text


def test_a_separate_tokenizer_does_not_have_the_models_revision(hub: Path) -> None:
    keep_in_cache(hub, "one/tokenizer")
    model = Model(path="one/model", tokenizer="one/tokenizer", revision="v2", engine_args={"download_dir": str(hub)})
    assert load_tokenizer(model).eos_token_id
    with pytest.raises(ModelError):
        load_tokenizer(model.model_copy(update={"path": "one/tokenizer", "tokenizer": None}))


def test_code_of_a_model_runs_if_the_manifest_trusts_it(own_code: Path) -> None:
    model = Model(path=str(own_code), engine_args={"trust_remote_code": True})
    assert type(load_tokenizer(model)).__name__ == "OwnTokenizer"


@pytest.mark.parametrize("engine_args", [{}, {"trust_remote_code": False}, {"trust_remote_code": None}])
def test_code_without_trust_does_not_run_and_no_input_is_read(
    own_code: Path, engine_args: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _prompt="": pytest.fail("input was called"))
    with pytest.raises(ModelError) as refused:
        load_tokenizer(Model(path=str(own_code), engine_args=engine_args))
    assert str(refused.value) == (
        f"spec.model.path: found {own_code}, whose tokenizer or configuration is code of the model's authors; to run "
        "it, here and in the engine, set spec.model.engineArgs.trust_remote_code: true"
    )


def test_a_process_for_many_jobs_runs_no_code_of_models(own_code: Path) -> None:
    with pytest.raises(ModelError, match=r"which does not run in this process$"):
        open_codec(Model(path=str(own_code), engine_args={"trust_remote_code": True}), run_code=False)


def test_a_call_of_input_during_loading_is_an_error() -> None:
    with unattended(), pytest.raises(EOFError):
        input("Do you trust it? ")
