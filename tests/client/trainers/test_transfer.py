"""Weights that a trainer sends from its memory: vLLM's own sending side, over gloo, to a fleet of two workers."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import torch
from safetensors.torch import load_file

from tests.api.served import TOKEN, serving_job
from tests.api.threaded import ThreadedServer
from tests.sending import CALL_SECONDS, join

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("received")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[ThreadedServer]:
    job = serving_job(weights={"transfer": {"backend": "gloo", "folder": str(folder)}})
    with ThreadedServer(job) as server:
        yield server


def url_of(server: ThreadedServer) -> str:
    return server.url.replace("http://", f"http://vllm:{TOKEN}@")


def post(server: ThreadedServer, path: str, body: Any = None) -> requests.Response:
    return requests.post(url_of(server) + path, json=body, timeout=CALL_SECONDS)


def version(server: ThreadedServer) -> str:
    found = requests.get(url_of(server) + "/get_weight_version", timeout=CALL_SECONDS).json()
    return str(found["weight_version"])


def model() -> Any:
    torch.manual_seed(7)
    module = torch.nn.Sequential(torch.nn.Embedding(50, 16), torch.nn.Linear(16, 50))
    return module.to(torch.bfloat16)


def sender(server: ThreadedServer, module: torch.nn.Module) -> Any:
    """vLLM's sender, which has joined the fleet."""
    return join(url_of(server), dict(module.named_parameters()))


def held(folder: Path) -> list[dict[str, Any]]:
    """The tensors of each kept version."""
    (fleet,) = folder.iterdir()
    return [
        {name: tensor for file in sorted(made.glob("*.safetensors")) for name, tensor in load_file(file).items()}
        for made in sorted(fleet.iterdir())
    ]


def names_of(module: torch.nn.Module) -> dict[str, Any]:
    """A sender's announcement."""
    pairs = dict(module.named_parameters())
    shapes = [list(tensor.shape) for tensor in pairs.values()]
    return {"names": list(pairs), "dtype_names": ["bfloat16"] * len(pairs), "shapes": shapes}


def test_the_whole_fleet_serves_the_weights_of_vllms_sender(server: ThreadedServer, folder: Path) -> None:
    module = model()
    engine = sender(server, module)
    for step in range(4):
        with torch.no_grad():
            module[1].weight += 1
        engine.send_weights()
        assert version(server) == ("transfer" if step == 0 else f"transfer.{step + 1}")
    repeated = post(server, "/finish_weight_update")
    assert (repeated.status_code, repeated.json()["weight_version"], version(server)) == (200, *["transfer.4"] * 2)
    kept = held(folder)
    assert len(kept) == 3  # the received version, the one before it, and the previous one at the start of the transfer
    for name, tensor in module.named_parameters():
        assert torch.equal(kept[-1][name], tensor.detach())
    assert not torch.equal(kept[-2]["1.weight"], kept[-1]["1.weight"])
    shown = requests.get(url_of(server) + "/v1/weights", timeout=CALL_SECONDS).json()
    assert [worker["version"] for worker in shown["transaction"]["workers"]] == ["transfer.4"] * 2
    assert post(server, "/shutdown_weight_transfer_engine").status_code == 200
    refused = post(server, "/start_weight_update")
    assert (refused.status_code, "call /init_weight_transfer_engine first" in refused.text) == (409, True)


def test_a_lost_sender_or_receiver_fails_only_its_transfer(server: ThreadedServer, folder: Path) -> None:
    before, module = version(server), model()
    lost = sender(server, module)
    assert post(server, "/start_weight_update").status_code == 200
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, server, "/update_weights", {"update_info": names_of(module)})
        lost.shutdown()
        assert (answer.result().status_code, "join again" in answer.result().text) == (409, True)

    sender(server, module)
    assert post(server, "/start_weight_update").status_code == 200
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(post, server, "/update_weights", {"update_info": names_of(module)})
        os.kill(receiving_process(), signal.SIGKILL)
        assert "the receiving process has ended (exit code -9)" in answer.result().text
    assert version(server) == before

    gone = sender(server, module)
    assert post(server, "/start_weight_update").status_code == 200
    gone.shutdown()  # without a call: the closed connection shows it
    while (answer := post(server, "/start_weight_update")).status_code == 200:
        pass
    assert (answer.status_code, "the sender is lost" in answer.text) == (409, True)
    assert not list(folder.glob("*/*.part"))

    whole = sender(server, module)
    whole.send_weights()
    assert version(server) != before
    assert torch.equal(held(folder)[-1]["1.bias"], module[1].bias.detach())


def receiving_process() -> int:
    """Waits for the receiving process, a child of this process that the workers run in, and returns its id."""
    while True:
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                parent = path.joinpath("stat").read_text().rpartition(")")[2].split()[1]
                if int(parent) == os.getpid() and b"receiving.process" in path.joinpath("cmdline").read_bytes():
                    return int(path.name)
        time.sleep(0.1)
