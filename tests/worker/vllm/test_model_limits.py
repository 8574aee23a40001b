"""The limits of one request equal those of vLLM's own configuration and of a built engine."""

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openseer_core.admission import ModelLimits
from openseer_core.errors import ModelError
from openseer_core.manifest.job import Model, Sampling
from openseer_core.queue.states import FinishReason
from openseer_text.model_files import UNTRUSTED
from openseer_worker.engine import EngineRequest
from openseer_worker.vllm.arguments import readable
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build
from openseer_worker.vllm.model_limits import model_limits
from tests.own_code import with_own_code
from tests.worker.player import Player

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]

VOCABULARY = 97
PAST = "<end>"
LONGROPE = {
    "rope_type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16,
    "original_max_position_embeddings": 128, "rope_theta": 10000.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def longrope(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `folder` with its context of 128 tokens extended to 1024 by longrope."""
    path = tmp_path_factory.mktemp("longrope") / "model"
    shutil.copytree(folder, path)
    config = json.loads((path / "config.json").read_text())
    config.pop("rope_parameters", None)
    stretched = {"rope_scaling": LONGROPE, "original_max_position_embeddings": 128}
    (path / "config.json").write_text(json.dumps(config | stretched))
    return path


@pytest.fixture(scope="module")
def strange(longrope: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """That model with its own code and a tokenizer with tokens past the embedding, end-of-sequence among them."""
    path = with_own_code(longrope, tmp_path_factory.mktemp("strange") / "model")
    core = json.loads((path / "tokenizer.json").read_text())
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    for place, word in enumerate(("</think>", PAST), VOCABULARY):
        core["added_tokens"].append({"id": place, "content": word, **special})
    (path / "tokenizer.json").write_text(json.dumps(core))
    about = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(json.dumps(about | {"eos_token": PAST, "model_max_length": 16}))
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, VOCABULARY]}))
    arguments: dict[str, Any] = {"trust_remote_code": True, "hf_overrides": {"max_position_embeddings": 512}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(path.parent / "modules"))
        yield Model(path=str(path), dtype="float32", engine_args=arguments)


@pytest.fixture(scope="module")
def player(strange: Model) -> Iterator[Player]:
    """One engine of the model for the whole module."""
    player = Player(VllmEngine(strange, cache_salt="limits"))
    yield player
    asyncio.run(player.engine.close())


@pytest.mark.parametrize(
    ("arguments", "context"),
    [
        ({"hf_overrides": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}}, 4096),
        ({}, 1024),
        ({"max_model_len": 300}, 300),
        ({"max_model_len": -1}, 1024),
        ({"hf_overrides": {"max_position_embeddings": 512}}, 512),
        ({"hf_overrides": {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0,
                                               "original_max_position_embeddings": 256}}}, 1024),
    ],
    ids=["linear", "plain", "given", "as memory allows", "overridden", "yarn"],
)  # fmt: skip
def test_the_context_equals_that_of_vllms_own_configuration(
    folder: Path, arguments: dict[str, Any], context: int
) -> None:
    limits = model_limits(Model(path=str(folder), engine_args=arguments))
    assert limits == ModelLimits(context_tokens=context, vocabulary=VOCABULARY)


@pytest.mark.parametrize(
    ("arguments", "context"), [({}, 128), ({"max_model_len": -1}, 128), ({"max_model_len": 512}, 512)]
)
def test_longrope_has_its_trained_context_unless_more_is_requested(
    longrope: Path, arguments: dict[str, Any], context: int
) -> None:
    assert model_limits(Model(path=str(longrope), engine_args=arguments)).context_tokens == context


def test_an_unknown_vllm_argument_is_a_readable_error(folder: Path) -> None:
    with pytest.raises(ModelError, match="vLLM has no argument max_modl_len"):
        model_limits(Model(path=str(folder), engine_args={"max_modl_len": 3}))


def test_untrusted_model_code_is_refused_with_the_manifests_field(strange: Model) -> None:
    with pytest.raises(ModelError) as refused:
        model_limits(strange.model_copy(update={"engine_args": {}}))
    assert str(refused.value) == f"spec.model: vLLM cannot run {strange.path}, {UNTRUSTED}"
    assert model_limits(strange) == ModelLimits(128, VOCABULARY)


def test_a_model_without_experts_has_no_routes_to_capture(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"spec\.routing\.capture: the model .* has no experts; remove spec\.routing"):
        model_limits(Model(path=str(folder)), routes=True)


def test_an_error_without_text_is_reported_by_its_location() -> None:
    def stumble() -> None:
        raise KeyError

    with pytest.raises(ModelError, match=r"^it: KeyError in stumble: raise KeyError$"), readable("it"):
        stumble()


def test_a_built_engine_has_the_same_limits_and_refuses_unreadable_prompts(player: Player, strange: Model) -> None:
    profile = player.engine.profile
    assert model_limits(strange) == ModelLimits(profile.context_tokens, profile.vocabulary)
    sampling = Sampling(ignore_eos=True)
    fits, full = player.run(
        EngineRequest("fits", "g", 0, [5] * 127, [], 20, sampling),
        EngineRequest("full", "g", 1, [5] * 128, [], 20, sampling),
    )
    assert (fits.finish, len(fits.tokens)) == (FinishReason.CONTEXT_FULL, 1)
    assert (full.finish, len(full.tokens)) == (FinishReason.INFRA_FAILED, 0)
    assert "128 tokens leave no room for a response in the model's context" in full.stop_reason


@pytest.mark.parametrize("sampling", [Sampling(min_tokens=3), Sampling(stop=("</think>",)), Sampling(stop=(PAST,))])
def test_tokens_of_the_tokenizer_alone_stop_no_response(player: Player, sampling: Sampling) -> None:
    response = player.one(sampling, max_tokens=6)
    assert response.finish in (FinishReason.LENGTH, FinishReason.STOP), response.stop_reason
    assert len(response.tokens) >= sampling.min_tokens


@pytest.mark.slow
def test_a_separate_process_returns_the_limits(longrope: Path) -> None:
    command = [sys.executable, "-m", "openseer_worker.vllm.model_limits"]
    given = Model(path=str(longrope)).model_dump_json(by_alias=True)
    told = subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout
    assert ModelLimits.from_json(told) == ModelLimits(128, VOCABULARY)
