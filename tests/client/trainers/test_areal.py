"""AReaL's own engine class for remote servers, unchanged, on a real fleet that it treats as one SGLang server."""

# AReaL is no dependency: it is Any here.
# pyright: reportMissingImports=false

import asyncio
import importlib
import importlib.util
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from openseer_client import Client
from tests.example_fleet import example_fleet
from tests.repository import ROOT

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("areal") is None, reason="AReaL is not installed: `make trainers` (checked: 1.0.4)"
    ),
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),
    pytest.mark.timeout(900),
]

MODEL = ROOT / "examples/tiny-model/model"
PROMPT = [11, 15, 8, 14, 45, 13]
EXPERIMENT, TRIAL = "math", "first"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    # AReaL's calls carry no token.
    with example_fleet(tmp_path_factory.mktemp("fleet"), "--no-token-from", "127.0.0.1") as found:
        yield found


@pytest.fixture
def client(fleet: dict[str, str]) -> Client:
    return Client(fleet["OPENSEER_URL"], token_file=fleet["OPENSEER_TOKEN_FILE"])


@pytest.fixture
def engine(fleet: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    from areal.api.cli_args import InferenceEngineConfig, NameResolveConfig  # noqa: PLC0415
    from areal.engine.sglang_remote import RemoteSGLangEngine  # noqa: PLC0415
    from areal.utils import name_resolve  # noqa: PLC0415

    name_resolve.reconfigure(NameResolveConfig(type="nfs", nfs_record_root=str(tmp_path / "names")))
    config = InferenceEngineConfig(
        backend="sglang:d1", experiment_name=EXPERIMENT, trial_name=TRIAL, setup_timeout=120, request_timeout=300
    )
    engine = RemoteSGLangEngine(config)
    address = fleet["OPENSEER_URL"].removeprefix("http://")
    engine.initialize(engine_id="trainer", addr=address, train_data_parallel_size=1)
    yield engine
    engine.destroy()


async def generated(engine: Any, tokens: int, *, requests: int = 4) -> list[Any]:
    from areal.api import ModelRequest  # noqa: PLC0415
    from areal.api.cli_args import GenerationHyperparameters  # noqa: PLC0415

    def request(number: int) -> Any:
        how = GenerationHyperparameters(max_new_tokens=tokens, temperature=1.0)
        return ModelRequest(rid=f"r{number}", input_ids=list(PROMPT), gconfig=how)

    return await asyncio.gather(*(engine.agenerate(request(number)) for number in range(requests)))


def difference(model: Any, responses: list[Any]) -> float:
    """Greatest difference between a returned log-probability and the model's own."""
    import torch  # noqa: PLC0415

    worst = 0.0
    for response in responses:
        ids = torch.tensor([PROMPT + list(response.output_tokens)])
        with torch.no_grad():
            own = model(input_ids=ids).logits[0, len(PROMPT) - 1 : -1].log_softmax(-1)
        chosen = own.gather(-1, ids[0, len(PROMPT) :].unsqueeze(-1)).squeeze(-1)
        worst = max(worst, float((chosen - torch.tensor(response.output_logprobs)).abs().max()))
    return worst


def loaded() -> Any:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)


def test_areal_generates_with_the_models_log_probabilities(engine: Any) -> None:
    responses = asyncio.run(generated(engine, 48))
    assert all(response.stop_reason in ("stop", "length") and response.output_tokens for response in responses)
    assert difference(loaded(), responses) < 1e-3


def test_a_response_interrupted_by_areal_is_completed(engine: Any, client: Client) -> None:
    async def interrupted() -> list[Any]:
        work = asyncio.create_task(generated(engine, 400, requests=32))
        while not client.job().running:
            await asyncio.sleep(0.05)
        await asyncio.to_thread(engine.pause_generation)
        assert client.job().paused_since is not None
        await asyncio.to_thread(engine.continue_generation)
        return await work

    responses = asyncio.run(interrupted())
    assert len(responses) == 32
    assert all(response.stop_reason in ("stop", "length") for response in responses)
    assert difference(loaded(), responses) < 1e-3


def test_areals_weights_from_disk_reach_the_fleet(engine: Any, client: Client, tmp_path: Path) -> None:
    import torch  # noqa: PLC0415
    from areal.api import WeightUpdateMeta  # noqa: PLC0415
    from areal.utils import name_resolve, names  # noqa: PLC0415

    model = loaded()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.02)
    folder = tmp_path / "weight_update_v1"
    model.save_pretrained(folder)
    name_resolve.add(names.update_weights_from_disk(EXPERIMENT, TRIAL, 0), str(time.time()), keepalive_ttl=120)
    before = client.weights().version
    engine.pause_generation()
    engine.update_weights_from_disk(WeightUpdateMeta(type="disk", path=str(folder))).result()
    engine.continue_generation()
    assert client.weights().version != before
    responses = asyncio.run(generated(engine, 48))
    assert difference(model, responses) < 1e-3 < difference(loaded(), responses)
