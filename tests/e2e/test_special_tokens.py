"""Special tokens on the real engine: one BOS, and a stop at the end of thinking, in runs and on compatible routes."""

import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import AddedToken, Tokenizer, processors

from tests.e2e.server import Server
from tests.e2e.workbench import Workbench
from tests.repository import ROOT, SOAK

pytestmark = [
    pytest.mark.engine,
    pytest.mark.redis,
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    # Two engine starts; `tests/text` and `tests/worker` test the rules without an engine.
    pytest.mark.skipif(not SOAK, reason="make soak"),
]

TINY = ROOT / "examples/tiny-model/model"
BOS, THINK = "<bos>", "</think>"
SECONDS = 300
SAMPLING: dict[str, Any] = {"maxTokens": 120, "temperature": 2.0, "ignoreEos": True, "stop": [THINK], "seed": 1}


def with_special_tokens(folder: Path) -> Path:
    """The tiny model with BOS before every text and a digit's token as the end of thinking."""
    shutil.copytree(TINY, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary[THINK] = vocabulary.pop("1")
    path.write_text(json.dumps(content))
    inner: Any = Tokenizer.from_file(str(path))
    inner.add_special_tokens([AddedToken(THINK, normalized=False)])
    opening = (BOS, inner.token_to_id(BOS))
    inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[opening])
    inner.save(str(path))
    return folder


def check(tokens: list[int], text: str, stopped: bool, inner: Tokenizer) -> bool:
    """Asserts that the response ends at its first end of thinking, which its text omits; returns whether it has one."""
    think = inner.token_to_id(THINK)
    assert text == inner.decode(tokens, skip_special_tokens=True)
    assert stopped == (think in tokens)
    assert think not in tokens[:-1]
    return stopped


def test_a_runs_responses_have_one_bos_and_end_at_the_end_of_thinking(bench: Workbench) -> None:
    folder = with_special_tokens(bench.folder / "own")
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    bench.write(
        model={"path": str(folder), "dtype": "float32"}, groupSize=8, sampling=SAMPLING, workers={"replicas": 1}
    )
    lines = [{"id": "bare", "prompt": "ab"}, {"id": "begun", "prompt": f"{BOS}ab"}]
    (bench.folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    done = bench.call("run", "job.yaml", timeout=SECONDS)
    assert done.returncode == 0, done.stdout
    found = [json.loads(line) for line in bench.run.results_file.read_text().splitlines()]
    assert len(found) == 16
    assert all(line["prompt_token_ids"] == inner.encode("ab").ids for line in found)
    ended = [check(line["token_ids"], line["text"], line["stop_reason"] == THINK, inner) for line in found]
    assert any(ended)


def test_completions_have_one_bos_and_end_at_the_end_of_thinking(bench: Workbench) -> None:
    folder = with_special_tokens(bench.folder / "own")
    inner = Tokenizer.from_file(str(folder / "tokenizer.json"))
    server = Server(bench)
    server.write(model={"path": str(folder), "dtype": "float32"}, workers={"replicas": 1})
    server.start()
    bearer = {"Authorization": f"Bearer {server.token_file.read_text().strip()}"}
    with httpx.Client(base_url=server.url, headers=bearer, timeout=SECONDS) as http:
        wanted = {"n": 8, "max_tokens": 120, "temperature": 2.0, "ignore_eos": True, "stop": [THINK], "seed": 1}
        for prompt in ("ab", f"{BOS}ab"):
            answer = http.post("/v1/completions", json={"prompt": prompt, "return_token_ids": True} | wanted)
            assert answer.status_code == 200, answer.text
            choices = answer.json()["choices"]
            assert all(choice["prompt_token_ids"] == inner.encode("ab").ids for choice in choices)
            assert any(check(one["token_ids"], one["text"], one["stop_reason"] == THINK, inner) for one in choices)
            whole = http.post("/v1/completions", json={"prompt": prompt, "skip_special_tokens": False} | wanted).json()
            assert not any(THINK in choice["text"] for choice in whole["choices"])
