"""A serving job on a real vLLM engine: text, log-probabilities, new weights and adapters."""

# pyright: reportUnknownVariableType=false
import json
import math
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from openseer_client import AdapterSpec, BatchHandle, BatchSpec, ConflictError, Group, Publish, Sampling, Source
from tests.e2e.server import Server
from tests.e2e.workbench import Workbench
from tests.repository import ROOT
from tests.sending import join
from tests.worker.vllm.lora.made import make_adapter, merged

pytestmark = [pytest.mark.engine, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(2400)]

TINY = ROOT / "examples/tiny-model/model"
GROUPS, SIZE, TOKENS = 3, 2, 24
START_SECONDS = 550.0
"""Half a minute alone. Beside a cluster's tests, importing the engine alone has taken two."""


def perturbed(folder: Path) -> str:
    """Writes the tiny model with scaled weights and returns the folder's name."""
    from safetensors.torch import load_file, save_file  # noqa: PLC0415 - heavy

    folder.mkdir()
    tensors = load_file(TINY / "model.safetensors")
    moved = {name: tensor * 1.25 for name, tensor in tensors.items()}
    save_file(moved, folder / "model.safetensors", metadata={"format": "pt"})
    for path in TINY.iterdir():
        if path.suffix != ".safetensors":
            shutil.copy(path, folder)
    return folder.name


def sorted_by_place(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The entries sorted by group and index."""
    return sorted(entries, key=lambda entry: (entry["group"], entry["index"]))


def asked(server: Server, path: str) -> dict[str, Any]:
    """Calls a compatible route as a trainer that shares the GPUs, and returns its answer."""
    headers = {"Authorization": f"Bearer {server.token_file.read_text().strip()}"}
    return dict(httpx.post(server.url + path, headers=headers, timeout=300.0).raise_for_status().json())


def score(folder: Path, prompt: list[int], tokens: list[int]) -> tuple[list[int], list[float]]:
    """The most probable tokens at the positions of a response, and the response's log-probabilities, computed without
    vLLM."""
    import torch  # noqa: PLC0415 - heavy
    from transformers import AutoModelForCausalLM  # noqa: PLC0415 - heavy

    models: Any = AutoModelForCausalLM
    model = models.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        found = model(torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return found.argmax(-1).tolist(), found[range(len(tokens)), tokens].tolist()


def test_a_batch_is_sampled_from_the_weights_published_before_it(bench: Workbench) -> None:
    server = Server(bench)
    server.write(
        model={"path": str(TINY), "dtype": "float32"},
        groupSize=SIZE,
        sampling={"maxTokens": TOKENS, "temperature": 0.0, "ignoreEos": True},
        workers={"replicas": 1, "maxInflight": 8, "gracePeriodSeconds": 10},
        weights={"transfer": {"backend": "gloo", "folder": str(bench.folder / "received")}},
    )
    prompts = (ROOT / "examples/tiny-model/prompts.jsonl").read_text().splitlines()[:GROUPS]
    (bench.folder / "groups.jsonl").write_text("\n".join(prompts) + "\n")
    server.start()

    for batch, version in ((1, "initial"), (2, "moved"), (3, "again")):
        if version != "initial":  # the weights are discarded; then other weights are loaded, or the previous ones again
            assert asked(server, "/sleep?level=2")["freed"] is False
        if version == "moved":
            assert asked(server, "/wake_up?tags=weights")["status"] == "sleeping"
            server.json("weights", "publish", perturbed(bench.folder / version), "--version", version)
        if version != "initial":
            assert asked(server, "/wake_up")["status"] == "awake"
        server.submit_and_wait("groups.jsonl", START_SECONDS)
        server.call("results", str(batch), "--output", f"{version}.jsonl")

    before, after, again = (server.results(f"{name}.jsonl") for name in ("initial", "moved", "again"))
    for entries, version in ((before, "initial"), (after, "moved"), (again, "moved")):
        assert len(entries) == GROUPS * SIZE
        for entry in entries:
            assert entry["weights_version"] == version
            assert [span["version"] for span in entry["versions"]] == [version]
            assert len(entry["logprobs"]) == len(entry["token_ids"]) == TOKENS
            assert all(math.isfinite(value) and value <= 0 for value in entry["logprobs"])
            assert isinstance(entry["text"], str)
    assert tokens_of(again) == tokens_of(after)
    said = {(entry["group"], entry["index"]): entry["logprobs"] for entry in before}
    assert any(entry["logprobs"] != said[entry["group"], entry["index"]] for entry in after)
    assert json.loads(server.call("status", "--json"))["job"]["weights_version"] == "moved"
    scores_agree(server, after[0])
    assert tokens_of(sent(server)) == tokens_of(before)


def tokens_of(entries: list[dict[str, Any]]) -> list[list[int]]:
    """Token ids of the entries, sorted by group and index."""
    return [entry["token_ids"] for entry in sorted_by_place(entries)]


def sent(server: Server) -> list[dict[str, Any]]:
    """Results of another batch after a trainer has sent the first weights from its memory."""
    from safetensors.torch import load_file  # noqa: PLC0415 - heavy

    token = server.token_file.read_text().strip()
    join(server.url.replace("http://", f"http://vllm:{token}@"), load_file(TINY / "model.safetensors")).send_weights()
    number = server.json("submit", "groups.jsonl", "--wait")["batch"]["id"]
    server.call("results", str(number), "--output", "sent.jsonl")
    entries = server.results("sent.jsonl")
    assert {entry["weights_version"] for entry in entries} == {"transfer"}
    return entries


def scores_agree(server: Server, result: dict[str, Any]) -> None:
    """Asserts that a batch and a route of vLLM score a sampled response as at its sampling."""
    prompt, response = result["prompt_token_ids"], result["token_ids"]
    with server.client() as client:
        batch = client.open_batch(BatchSpec(group_size=1, sampling=Sampling(score_from=len(prompt))))
        batch.submit([Group(id="scored", prompt_token_ids=prompt + response)])
        batch.seal()
        [group] = batch.groups(acknowledge=True)
    assert group.results[0].scores() == pytest.approx(result["logprobs"], abs=1e-4)
    body = {"prompt": prompt + response, "max_tokens": 0, "prompt_logprobs": 0}
    headers = {"Authorization": f"Bearer {server.token_file.read_text().strip()}"}
    answer = httpx.post(f"{server.url}/v1/completions", json=body, headers=headers, timeout=300.0).json()
    [choice] = answer["choices"]
    told = [choice["prompt_logprobs"][len(prompt) + place][str(token)] for place, token in enumerate(response)]
    assert [entry["logprob"] for entry in told] == pytest.approx(result["logprobs"], abs=1e-4)
    assert all(isinstance(entry["decoded_token"], str) for entry in told)
    assert (choice["text"], choice["prompt_weight_version"]) == ("", "moved")


def test_batches_of_an_adapter_equal_those_of_the_merged_model(bench: Workbench) -> None:
    """Two adapters run beside the base model; then one is replaced with mode keep, and removed."""
    server = Server(bench)
    server.write(
        model={
            "path": str(TINY),
            "dtype": "float32",
            "lora": {"maxRank": 4, "maxAdapters": 2},
            "engineArgs": {"max_num_seqs": 8},
        },
        groupSize=1,
        sampling={"maxTokens": TOKENS, "temperature": 0.0, "ignoreEos": True},
        workers={"replicas": 1, "maxInflight": 8, "gracePeriodSeconds": 10},
    )
    models: dict[str, Path] = {"initial": TINY}
    for seed, version in enumerate(("math-1", "math-2", "code-1")):
        folder = make_adapter(bench.folder / version, seed)
        models[version] = merged(folder, bench.folder / f"{version}-merged")
    prompt = [(7 * place) % 60 + 2 for place in range(40)]
    server.start()
    server.until_ready(1, START_SECONDS)
    with server.client() as client:

        def publish(version: str) -> None:
            source, adapter = Source(path=str(bench.folder / version)), AdapterSpec(name=version[:4])
            client.publish(Publish(version=version, source=source, adapter=adapter, mode="keep"))

        def submitted(adapter: str | None) -> BatchHandle:
            batch = client.open_batch(BatchSpec(adapter=adapter))
            batch.submit([Group(id="g", prompt_token_ids=prompt)])
            batch.seal()
            return batch

        def check(batch: BatchHandle, version: str) -> None:
            [group] = list(batch.groups())
            [item] = group.results
            assert [span.version for span in item.versions] == [version]
            best, logprobs = score(models[version], prompt, item.token_ids)
            assert item.token_ids == best
            assert item.scores() == pytest.approx(logprobs, abs=2e-4)

        for version in ("math-1", "code-1"):
            publish(version)
        batches = [submitted(name) for name in ("math", None, "code")]
        for batch, version in zip(batches, ("math-1", "initial", "code-1"), strict=True):
            check(batch, version)
        publish("math-2")
        check(submitted("math"), "math-2")
        token = {"Authorization": f"Bearer {server.token_file.read_text().strip()}"}
        assert httpx.delete(f"{server.url}/v1/weights/adapters/math", headers=token).status_code == 200
        with pytest.raises(ConflictError, match="adapter: found math; the fleet has code"):
            submitted("math")
        check(submitted("code"), "code-1")
