"""GRPO in plain torch: advantages, log-probabilities as sampled, the loss, saving and publishing weights."""

import json
from collections import deque
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

from openseer_client import Client, FinishedGroup, ResultItem, WeightsError
from openseer_client.torch_grpo import Sample, advantages, difference, log_probabilities, loss, samples
from openseer_client.torch_weights import WeightsFolder, canary, publish
from openseer_core.errors import InputError, OutputError
from tests.client.models import small_model
from tests.client.remote import Remote, end, result


def sampled(model: Any, prompt: list[int], length: int, *, temperature: float, seed: int) -> ResultItem:
    """A response that the model itself samples, one token at a time, with its log-probabilities."""
    generator = torch.Generator().manual_seed(seed)
    ids, logprobs = list(prompt), list[float]()
    for _ in range(length):
        with torch.no_grad():
            values = (model(input_ids=torch.tensor([ids])).logits[0, -1] / temperature).log_softmax(-1)
        token = int(torch.multinomial(values.exp(), 1, generator=generator))
        ids.append(token)
        logprobs.append(float(values[token]))
    known = result("g").model_copy(update={"prompt_token_ids": prompt, "token_ids": ids[len(prompt) :]})
    return known.model_copy(update={"logprobs": logprobs, "sampled": [(0, length)]})


def test_advantages_are_relative_to_the_group() -> None:
    assert advantages([1.0, 0.0, 0.0, 1.0]) == [1.0, -1.0, -1.0, 1.0]
    assert advantages([0.5, 0.5]) == [0.0, 0.0]
    assert advantages([3.0, 1.0], by_deviation=False) == [1.0, -1.0]


@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.5])
def test_log_probabilities_equal_those_of_the_sampling(temperature: float) -> None:
    model = small_model()
    items = [
        sampled(model, prompt, length, temperature=temperature, seed=length)
        for prompt, length in (([1, 2, 3], 9), ([4], 2), ([5, 6, 7, 8, 9], 14))
    ]
    assert difference(model, items, temperature=temperature) < 1e-5
    assert difference(small_model(seed=1), items, temperature=temperature) > 1e-3


def test_a_response_with_a_non_finite_score_is_no_sample() -> None:
    old = result("g", 1).model_copy(update={"logprobs": [-0.1, None, -0.3]})
    read = ResultItem.model_validate_json(old.model_dump_json())
    assert read.logprobs == [-0.1, None, -0.3]
    with pytest.raises(ValueError, match="group g, response 1: the log-probability of token 1 was not finite"):
        samples(FinishedGroup(end("g", 2), (result("g", 0), read)), [1.0, 0.0])


def test_only_whole_groups_become_samples() -> None:
    pair = (result("g", 0), result("g", 1))
    assert [sample.advantage for sample in samples(FinishedGroup(end("g", 2), pair), [1.0, 0.0])] == [1.0, -1.0]
    with pytest.raises(ValueError, match="found 1 whole of 2 responses"):
        samples(FinishedGroup(end("g", 2, aborted=1), pair), [1.0, 0.0])
    with pytest.raises(ValueError, match="group g"):
        samples(FinishedGroup(end("g", 2), pair), [1.0])


def test_appended_tokens_are_context_without_loss() -> None:
    model = small_model()
    base = Sample((1, 2), (3, 4, 5, 6), (True, True, False, False), (-4.0, -4.0, 0.0, 0.0), 1.0)
    value, figures = loss(model, [base])
    assert figures.tokens == 2
    # The recorded log-probabilities of appended tokens are not used.
    other = Sample(base.prompt, base.response, base.mask, (-4.0, -4.0, -9.0, -9.0), 1.0)
    assert torch.equal(value, loss(model, [other])[0])


def test_the_first_step_on_fresh_responses_has_ratio_one_and_no_clipping() -> None:
    model = small_model()
    items = [sampled(model, [1, 2], 6, temperature=1.0, seed=seed) for seed in range(4)]
    group = FinishedGroup(end("g", 4), tuple(items))
    _, figures = loss(model, samples(group, [1.0, 0.0, 0.0, 1.0]))
    assert figures.tokens == 24
    assert figures.ratio == pytest.approx(1.0, abs=1e-4)
    assert figures.clipped == 0.0
    assert figures.difference < 1e-4


def test_optimizer_steps_make_rewarded_tokens_likelier() -> None:
    model = small_model()
    items = [sampled(model, [1, 2], 6, temperature=1.0, seed=seed) for seed in range(4)]
    batch = samples(FinishedGroup(end("g", 4), tuple(items)), [1.0, 0.0, 0.0, 0.0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = log_probabilities(model, batch).sum(-1).detach()
    for _ in range(3):
        optimizer.zero_grad()
        loss(model, batch)[0].backward()
        optimizer.step()
    after = log_probabilities(model, batch).sum(-1).detach()
    assert after[0] > before[0]
    assert after[1:].mean() < before[1:].mean()


def test_a_version_is_saved_whole_and_loads_as_the_same_model(tmp_path: Path) -> None:
    model = small_model()
    folder = WeightsFolder(tmp_path / "weights")
    path = folder.save(model, "run-1")
    again = LlamaForCausalLM.from_pretrained(path)
    ids = torch.tensor([[1, 2, 3]])
    assert torch.allclose(model(input_ids=ids).logits, again(input_ids=ids).logits, atol=1e-6)
    assert sorted(path.name for path in folder.path.iterdir()) == ["run-1"]
    # The same name again, as of a trainer that died before it published.
    assert folder.save(model, "run-1") == path


def test_pruning_keeps_the_latest_versions_and_foreign_folders(tmp_path: Path) -> None:
    model = small_model()
    folder = WeightsFolder(tmp_path, keep=2)
    (tmp_path / "notes").mkdir()
    for step in range(4):
        folder.save(model, f"run-{step}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "run-2", "run-3"]
    with pytest.raises(InputError, match="at least 2"):
        WeightsFolder(tmp_path, keep=1)


def test_failed_versions_do_not_displace_the_served_one(tmp_path: Path) -> None:
    remote, folder = Remote(), WeightsFolder(tmp_path, keep=2)
    publish(publishing(remote, "done"), folder, small_model(), "good")
    for step in range(4):
        with pytest.raises(WeightsError):
            publish(publishing(remote, "failed"), folder, small_model(), f"bad-{step}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad-2", "bad-3", "good"]
    for step in range(2):
        publish(publishing(remote, "done"), folder, small_model(), f"later-{step}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["later-0", "later-1"]


def test_a_published_version_is_not_overwritten_with_other_weights(tmp_path: Path) -> None:
    folder, model = WeightsFolder(tmp_path), small_model()
    client = publishing(Remote(), "done")
    publish(client, folder, model, "v1")
    content = (tmp_path / "v1/model.safetensors").read_bytes()
    publish(client, folder, model, "v1")
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(InputError, match=r"v1 was published with other weights.*give these another name"):
        publish(client, folder, model, "v1")
    assert (tmp_path / "v1/model.safetensors").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["v1"]


def publishing(remote: Remote, phase: str) -> Client:
    """A client of a fleet that ends each publication in this phase."""
    answer = {"id": 1, "version": "v1", "previous": "v0", "mode": "drain", "phase": phase, "attempt": 0}
    remote.answers = {"POST weights": deque([answer | {"started_at": 0.0}])}
    return remote.client()


def test_a_failed_write_of_weights_leaves_no_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="run-1"):
        WeightsFolder(tmp_path / "file").save(small_model(), "run-1")

    with pytest.raises(RuntimeError, match="gather failed"):
        _half_written(WeightsFolder(tmp_path / "weights"))
    assert list((tmp_path / "weights").iterdir()) == []


def _half_written(folder: WeightsFolder) -> None:
    with folder.writing("run-1") as shards:
        shards.add("a", torch.zeros(2))
        raise RuntimeError("gather failed")


def test_tensors_are_written_in_shards_that_an_index_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openseer_client.torch_weights.SHARD_BYTES", 16)
    tensors = {name: torch.arange(4, dtype=torch.float32) + place for place, name in enumerate("abc")}
    with WeightsFolder(tmp_path).writing("v") as shards:
        for name, tensor in tensors.items():
            shards.add(name, tensor)
    path = tmp_path / "v"
    placed = json.loads((path / "model.safetensors.index.json").read_text())["weight_map"]
    assert all(torch.equal(load_file(path / placed[name])[name], tensor) for name, tensor in tensors.items())
    assert len(set(placed.values())) == 3


def test_a_canary_is_the_models_own_forward_pass_and_leaves_its_mode() -> None:
    model = small_model().train()
    proof = canary(model, [1, 2, 3, 4])
    values = model.eval()(input_ids=torch.tensor([[1, 2, 3, 4]])).logits.detach().log_softmax(-1)
    expected = [float(values[0, place, token]) for place, token in enumerate([2, 3, 4])]
    assert proof.logprobs == pytest.approx(expected, abs=1e-5)
    model.train()
    assert len(canary(model).token_ids) == 32
    assert max(canary(model).token_ids) < 64
    assert model.training


def test_publishing_sends_the_folder_and_the_canary(tmp_path: Path) -> None:
    remote = Remote()
    publish(publishing(remote, "done"), WeightsFolder(tmp_path), small_model(), "v1")
    sent = json.loads(remote.seen[0].content)
    assert sent["source"] == {"path": str(tmp_path / "v1")}
    assert len(sent["canary"]["logprobs"]) == 31
