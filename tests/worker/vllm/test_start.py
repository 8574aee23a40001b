"""Starts of the real engine: with an unusable model, and in a process forked from a preloaded one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Model
from openseer_worker.vllm.engine import VllmEngine
from openseer_worker.vllm.environment import is_cpu_build

pytestmark = [
    pytest.mark.engine,
    # Import warnings of vLLM, torch and their compiled modules.
    pytest.mark.filterwarnings("default"),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "/nowhere/at/all"}, ["spec.model.path", "/nowhere/at/all"]),
        ({"tokenizer": "./nowhere"}, ["spec.model.tokenizer", "./nowhere"]),
        ({"engine_args": {"max_modl_len": 3}}, ["spec.model.engineArgs", "max_modl_len"]),
        ({"engine_args": {"max_model_len": 10**6}}, ["spec.model", "max_model_len"]),
        ({"engine_args": {"block_size": "many"}}, ["spec.model", "block_size"]),
        ({"engine_args": {"max_model_len": 1024, "kv_cache_memory_bytes": 1024}}, ["spec.model", "memory"]),
    ],
)
def test_an_unusable_model_gives_one_readable_error(folder: Path, change: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        VllmEngine(Model.model_validate({"path": str(folder)} | change), cache_salt="x")
    text = str(caught.value)
    assert "\n" not in text
    assert "Traceback" not in text
    assert all(word in text for word in words), text


FORKING = """
import asyncio, os, sys, threading, time
from openseer_worker.vllm.engine import VllmEngine, preload
preload(sys.argv[1])
assert threading.active_count() == len(os.listdir("/proc/self/task")) == 1, os.listdir("/proc/self/task")
if os.fork() == 0:
    from openseer_core.manifest.job import Model, Sampling
    from openseer_worker.engine import EngineRequest
    engine = VllmEngine(Model(path=sys.argv[1], engine_args={"max_num_seqs": 4}), cache_salt="x")
    engine.start(lambda: None)
    engine.add(EngineRequest("a", "g", 0, [5, 6, 7], [], 20, Sampling(ignore_eos=True)))
    tokens, finish = 0, None
    while finish is None:
        time.sleep(0.01)
        for progress in engine.collect():
            tokens, finish = tokens + len(progress.tokens) // 4, progress.finish
    asyncio.run(engine.close())
    os._exit(0 if tokens == 20 else 1)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.slow
def test_a_preloaded_process_can_fork_a_worker(folder: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", FORKING, str(folder)], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert ended.returncode == 0, ended.stderr[-2000:]


def test_an_engine_without_drafts_loads_no_compiler() -> None:
    code = "import sys, openseer_worker.vllm.engine; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
