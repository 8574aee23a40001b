"""TRL's asynchronous GRPO: its own client and rollout loop during weight changes. Its trainer needs GPUs."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate.state import PartialState
from datasets import Dataset
from safetensors.torch import load_file
from transformers import AutoTokenizer

from openseer_client import Client
from openseer_client.torch_weights import WeightsFolder
from openseer_client.trl import FolderTransfer
from tests.api.served import TOKEN, serving_job
from tests.api.threaded import ThreadedServer
from tests.repository import ROOT
from tests.worker.weights.adapters import write_adapter

# TRL and its dependencies emit warnings about their own code.
pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.filterwarnings("default"), pytest.mark.timeout(300)]
SCRIPTED = {"stepSeconds": 0.002, "stepSecondsPerRequest": 0.0, "slots": 8}


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedServer]:
    model = {"path": "none", "engine": "scripted", "scripted": SCRIPTED, "dtype": "float32", "lora": {"maxAdapters": 4}}
    with ThreadedServer(serving_job(model=model)) as server:
        yield server


@pytest.fixture(scope="module")
def url(server: ThreadedServer) -> str:
    return server.url.replace("http://", f"http://trl:{TOKEN}@")


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(len(ids)) for ids in completion_ids]


class RolloutLoop:
    """TRL's rollout loop, in a thread in place of a process."""

    def __init__(self, url: str) -> None:
        from trl.experimental.async_grpo import async_rollout_worker as of_trl  # noqa: PLC0415 - 15 s of imports

        PartialState(cpu=True)
        tokenizer: Any = AutoTokenizer.from_pretrained(ROOT / "examples/tiny-model/model")
        tokenizer.response_template = {}
        self.samples: Queue[Any] = Queue(maxsize=8)
        self.errors: Queue[Any] = Queue(maxsize=1)
        self.version = SimpleNamespace(value=0)
        loop: Any = of_trl._AsyncRolloutLoop  # pyright: ignore[reportPrivateUsage]
        self._loop: Any = loop(
            model_name="none",
            dataset=Dataset.from_dict({"prompt": [[{"role": "user", "content": f"{n}x2="}] for n in range(4)]}),
            reward_funcs=[reward],
            processing_class=tokenizer,
            eos_token_ids=[tokenizer.eos_token_id],
            rollout_buffer=self.samples,
            model_version_value=self.version,
            heartbeat_value=SimpleNamespace(value=0.0),
            failed_event=threading.Event(),
            exception_info_queue=self.errors,
            metrics_queue=Queue(),
            num_generations=2,
            max_inflight_tasks=4,
            vllm_server_url=url,
            max_tokens=24,
        )
        self._thread = threading.Thread(target=self._loop.run, daemon=True)

    def __enter__(self) -> "RolloutLoop":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop._loop.call_soon_threadsafe(self._loop._stop_event.set)
        while self._thread.is_alive():
            while not self.samples.empty():
                self.samples.get_nowait()
            self._thread.join(0.05)

    def next(self) -> Any:
        while self.errors.empty():
            with suppress(Empty):
                return self.samples.get(timeout=0.2)
        raise AssertionError(self.errors.get_nowait())


def test_trls_rollout_loop_continues_during_weight_changes(server: ThreadedServer, url: str, tmp_path: Path) -> None:
    with Client(server.url, token=TOKEN) as client, RolloutLoop(url) as rollouts:
        transfer = FolderTransfer(client, WeightsFolder(tmp_path), run="async")
        transfer.init_weight_transfer()
        for step in range(2):
            before = transfer.version
            sample = rollouts.next()
            drawn = int(sample.completion_mask.sum())
            assert 0 < drawn <= 24
            assert len(sample.old_log_probs) == len(sample.input_ids) == len(sample.completion_mask)
            assert all(sample.old_log_probs[sample.completion_mask == 1] < 0)
            weights = {"model.embed_tokens.weight": torch.full((4, 2), float(step))}
            transfer.pause()
            transfer.send_weights(iter(weights.items()))
            transfer.resume()
            rollouts.version.value += 1
            assert client.weights().version == transfer.version != before
            saved = load_file(tmp_path / transfer.version / "model.safetensors")
            assert torch.equal(saved["model.embed_tokens.weight"], weights["model.embed_tokens.weight"])
        while rollouts.next().model_version < 2:  # responses that began before the change
            pass
        transfer.destroy()
        assert rollouts.errors.empty()


def test_trls_client_changes_adapters_while_the_fleet_is_paused(url: str, tmp_path: Path) -> None:
    from trl.experimental.async_grpo.vllm_client import VLLMClient  # noqa: PLC0415 - fifteen seconds of imports

    client: Any = VLLMClient(url)
    client.wait_for_server_ready()
    info = client.get_server_info()
    assert (client.get_dtype(), client.get_max_model_len()) == ("torch.float32", 32768)
    # It sends adapters alone only if one call reaches all workers.
    assert (info["parallel_config"]["data_parallel_size"], info["lora_config"]["max_loras"]) == (1, 4)
    for version in (1, 2):
        client.pause()
        client.load_lora_adapter(f"trl-policy-v{version}", str(write_adapter(tmp_path / f"v{version}")))
        client.resume()
    client.unload_lora_adapter("trl-policy-v1")
