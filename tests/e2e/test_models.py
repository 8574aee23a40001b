"""Other models on this machine: their own code if trusted, and their context, without a question at the terminal."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer

from openseer_text.model_files import UNTRUSTED
from tests.e2e.server import Server
from tests.e2e.workbench import Workbench
from tests.own_code import with_own_code
from tests.repository import ROOT

pytestmark = [pytest.mark.engine, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(2400)]

TINY = ROOT / "examples/tiny-model/model"
COMMIT = "a" * 40
RUN_SECONDS = 550
TERMINAL_SECONDS = 300.0


@pytest.fixture
def own(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny model with its own code, layers included; longrope extends its context from 128 to 512 tokens."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(bench.folder / "modules"))
    factors = {"short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 128, **factors}
    longrope = {"rope_parameters": rope, "original_max_position_embeddings": 128, "max_position_embeddings": 512}
    return with_own_code(TINY, bench.folder / "own", architectures=["OwnForCausalLM"], **longrope)


def model(path: Path, **arguments: Any) -> dict[str, Any]:
    return {"path": str(path), "dtype": "float32", "engineArgs": arguments}


def prompts(bench: Workbench, *lines: dict[str, Any]) -> None:
    (bench.folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def plain() -> Tokenizer:
    """The tiny model's tokenizer without the model's own code."""
    return Tokenizer.from_file(str(TINY / "tokenizer.json"))


def swapped(tokens: list[int]) -> str:
    """The text of the tokens as the model's own code decodes them."""
    return plain().decode(tokens).translate(str.maketrans("ab", "ba"))


def keep_in_cache(home: Path, folder: Path) -> str:
    """Moves a model into the hub's cache, as a download does, and returns its name."""
    repository = home / "hub/models--openseer--own"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs/main").write_text(COMMIT)
    (repository / "snapshots").mkdir()
    folder.rename(repository / "snapshots" / COMMIT)
    return "openseer/own"


def at_terminal(bench: Workbench, *arguments: str) -> tuple[int, str]:
    """Runs a command at a terminal that gives no input; returns its exit code and output."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from openseer_local.main import main; main()", *arguments]
    with os.fdopen(ours, "wb"), os.fdopen(theirs, "rb") as terminal:
        done = subprocess.run(
            command, cwd=bench.folder, stdin=terminal, capture_output=True, text=True, timeout=TERMINAL_SECONDS,
            start_new_session=True, check=False,
        )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("command", ["validate", "run"])
def test_untrusted_model_code_is_refused_without_a_question(bench: Workbench, own: Path, command: str) -> None:
    bench.write(model=model(own), sampling={"maxTokens": 4})
    prompts(bench, {"prompt": "ab"})
    code, told = at_terminal(bench, command, "job.yaml")
    assert code == 2, told
    assert UNTRUSTED in told
    assert "[y/N]" not in told


def test_trusted_code_of_a_hub_model_runs_in_driver_and_worker(
    bench: Workbench, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = keep_in_cache(bench.folder / "home", own)
    monkeypatch.setenv("HF_HOME", str(bench.folder / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    own_model = {"path": name, "dtype": "float32", "engineArgs": {"trust_remote_code": True}}
    sampling = {"maxTokens": 100, "ignoreEos": True, "stop": ["b"], "seed": 1}
    bench.write(model=own_model, groupSize=8, sampling=sampling, workers={"replicas": 1})
    prompts(bench, {"id": "text", "prompt": "ab"}, {"id": "fits", "prompt_token_ids": [5] * 127})
    done = bench.call("run", "job.yaml", timeout=RUN_SECONDS)
    assert done.returncode == 0, done.stdout
    lines = [json.loads(line) for line in bench.run.results_file.read_text().splitlines()]
    assert all(len(line["token_ids"]) == 1 for line in lines if line["group"] == "fits")
    texts = [line for line in lines if line["group"] == "text"]
    assert all(line["prompt_token_ids"] == plain().encode("ba").ids for line in texts)
    assert all(line["text"] == swapped(line["token_ids"]).partition("b")[0] for line in texts)
    stopped = [line for line in texts if line["stop_reason"] == "b"]
    assert stopped, "no response has the stop string, so the worker was not tested"
    assert all(swapped(line["token_ids"]).endswith("b") for line in stopped)

    prompts(bench, {"id": "full", "prompt_token_ids": [5] * 128})
    done = bench.call("validate", "job.yaml", timeout=RUN_SECONDS)
    assert done.returncode == 2, done.stdout
    told = " ".join(done.stdout.split())
    assert "line 1: the prompt's 128 tokens leave no room" in told
    assert "allowed with the response: 128" in told


def test_server_and_worker_report_the_same_limits_of_a_model(bench: Workbench, own: Path) -> None:
    server = Server(bench)
    server.write(model=model(own, trust_remote_code=True), workers={"replicas": 1})
    server.start()
    bearer = {"Authorization": f"Bearer {server.token_file.read_text().strip()}"}
    with httpx.Client(base_url=server.url, headers=bearer, timeout=300) as http:

        def context() -> Any:
            return http.get("/v1/models").json()["data"][0]["max_model_len"]

        def complete(prompt: Any) -> httpx.Response:
            body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "return_token_ids": True}
            return http.post("/v1/completions", json=body)

        bench.until(lambda: context() is not None, "what the model's configuration says", RUN_SECONDS)
        assert context() == 128
        full = complete([5] * 128)
        assert full.status_code == 400
        assert "allowed with the response: 128" in full.text
        with server.client() as client:
            bench.until(lambda: client.job().workers_ready == 1, "the worker", RUN_SECONDS)
        assert context() == 128
        assert complete([5] * 128).text == full.text
        assert "prompt[1]: found token 64" in complete([5, 64]).text
        [choice] = complete([5] * 127).json()["choices"]
        assert len(choice["token_ids"]) == 1
        [choice] = complete("ab").json()["choices"]
        assert choice["prompt_token_ids"] == plain().encode("ba").ids
        assert choice["text"] == swapped(choice["token_ids"])
