"""LoRA adapters on the routes of vLLM, prime-rl and SGLang: load, list, name, replace, unload, refuse."""

import json
from pathlib import Path
from typing import Any

from tests.api.adapting import adapting, ready
from tests.api.compat.stories import PROMPT, client_of, get, post
from tests.api.served import Served, served
from tests.worker.weights.adapters import write_adapter


async def load(server: Served, route: str, folder: Path, *, status: int = 200, **more: Any) -> str:
    body = {"lora_name": "math", "lora_path": str(folder)} | more
    answer = await server.http.post(route, json=body)
    assert answer.status_code == status, answer.text
    return answer.text


def versions(answer: dict[str, Any]) -> set[str]:
    return {span["version"] for choice in answer["choices"] for span in choice["weight_versions"]}


async def test_vllms_route_loads_an_adapter_that_requests_name_as_model(tmp_path: Path) -> None:
    async with served(job=adapting()) as server, client_of(server) as client:
        await ready(server)
        folder = write_adapter(tmp_path / "a")
        said = await load(server, "/v1/load_lora_adapter", folder)
        assert said == "Success: LoRA adapter 'math' added successfully."
        cards = {card["id"]: card for card in (await get(server, "/v1/models"))["data"]}
        assert (cards["math"]["root"], cards["math"]["parent"]) == (str(folder), "none")
        assert cards["none"]["parent"] is None
        answer = await client.completions.create(model="math", prompt=PROMPT, max_tokens=4)
        assert (answer.model, answer.choices[0].model_extra["weight_versions"][0]["version"]) == ("math", "math")  # type: ignore[index]
        base = await post(server, "/inference/v1/generate", {"token_ids": PROMPT, "sampling_params": {"max_tokens": 4}})
        adapted = await post(
            server,
            "/inference/v1/generate",
            {"token_ids": PROMPT, "model": "math", "sampling_params": {"max_tokens": 4}},
        )
        assert (versions(base), versions(adapted)) == ({"initial"}, {"math"})
        body = {"input_ids": [PROMPT, PROMPT], "lora_path": ["math", None], "sampling_params": {"max_new_tokens": 4}}
        both = await post(server, "/generate", body)
        assert [entry["meta_info"]["weight_version"] for entry in both] == ["math", "initial"]
        info = await get(server, "/server_info")
        assert info["vllm_config"]["lora_config"] == {"max_lora_rank": 4, "max_loras": 2}


async def test_a_loaded_name_is_replaced_only_in_place(tmp_path: Path) -> None:
    async with served(job=adapting()) as server:
        await ready(server)
        first, second = write_adapter(tmp_path / "a", "a"), write_adapter(tmp_path / "b", "b")
        await load(server, "/v1/load_lora_adapter", first)
        assert "which is loaded already (version math)" in await load(
            server, "/v1/load_lora_adapter", second, status=400
        )
        await load(server, "/v1/load_lora_adapter", second, load_inplace=True)
        await load(server, "/load_lora_adapter", first)
        [adapter] = (await server.store.fleet_spec()).adapters
        assert adapter.versions == ("math", "math.2", "math.3")
        body = {"input_ids": PROMPT, "lora_path": "math", "sampling_params": {"max_new_tokens": 4}}
        assert (await post(server, "/generate", body))["meta_info"]["weight_version"] == "math.3"


async def test_an_unloaded_adapter_is_a_model_that_does_not_exist(tmp_path: Path) -> None:
    async with served(job=adapting()) as server:
        await ready(server)
        folder = write_adapter(tmp_path / "a")
        said = json.loads(await load(server, "/load_lora_adapter", folder, pinned=True))
        assert (said["success"], said["status"], said["loaded_adapters"]) == (True, "success", {"math": str(folder)})
        refused = await post(server, "/load_lora_adapter_from_tensors", {}, status=400)
        assert "use /load_lora_adapter" in refused["error_message"]
        said = await post(server, "/unload_lora_adapter", {"lora_name": "math"})
        assert (said["success"], said["loaded_adapters"]) == (True, {})
        await load(server, "/load_lora_adapter", folder)
        answer = await server.http.post("/v1/unload_lora_adapter", json={"lora_name": "math"})
        assert answer.text == "Success: LoRA adapter 'math' removed successfully."
        body = {"model": "math", "prompt": PROMPT}
        error = (await post(server, "/v1/completions", body, status=404))["error"]
        assert "found math; the model does not exist here" in error["message"]
        await post(server, "/generate", {"input_ids": PROMPT, "lora_path": "math"}, status=404)
        await post(server, "/v1/unload_lora_adapter", {"lora_name": "math"}, status=404)


async def test_an_unservable_adapter_is_refused_with_the_reason(tmp_path: Path) -> None:
    async with served(job=adapting()) as server:
        await ready(server)
        big = write_adapter(tmp_path / "big", rank=8)
        assert "found rank 8, allowed: at most 4" in await load(server, "/v1/load_lora_adapter", big, status=400)
        assert "there is no folder" in await load(server, "/load_lora_adapter", tmp_path / "none", status=400)
    async with served() as server:
        words = await load(server, "/v1/load_lora_adapter", tmp_path / "big", status=409)
        assert "set spec.model.lora in its manifest" in words
