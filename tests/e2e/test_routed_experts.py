"""Runs on real engines: each result has the experts of all its tokens, including moved, fetched, drafted and lost
ones."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.workbench import Workbench
from tests.repository import ROOT
from tests.worker.vllm.routing.moe_model import CHOSEN, LAYERS, experts_of, make_moe

pytestmark = [pytest.mark.engine, pytest.mark.redis, pytest.mark.slow, pytest.mark.timeout(1200)]

GROUPS, SIZE, TOKENS = 5, 4, 200
RUN_SECONDS = 200


def write_job(bench: Workbench, model: Path, **spec: Any) -> None:
    arguments = {"max_model_len": 512, "num_gpu_blocks_override": 129}
    bench.write(
        model={"path": str(model), "dtype": "float32", "engineArgs": arguments},
        sampling={"maxTokens": TOKENS, "temperature": 0.0, "ignoreEos": True},
        routing={"capture": {}},
        **spec,
    )
    prompts = [
        {"id": f"g{number}", "prompt_token_ids": [(7 * place + 5 * number) % 60 + 4 for place in range(40 + number)]}
        for number in range(GROUPS)
    ]
    (bench.folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))


def test_moved_drafted_and_lost_responses_have_all_their_experts(bench: Workbench) -> None:
    model = bench.folder / "moe"
    make_moe(model, ROOT / "examples/tiny-model/model")
    write_job(
        bench,
        model,
        speculation={"enabled": True},
        kvPool={"backend": "shared-directory", "path": str(bench.folder / "pool")},
        rollout={"quantumTokens": 16, "checkpointSeconds": 0.05, "leaseSeconds": 3},
        workers={"replicas": 2, "maxInflight": 2},
    )
    bench.run_with_a_death(RUN_SECONDS)
    lines = list(bench.run.results())
    assert len(lines) == GROUPS * SIZE
    assert any(len(line.workers) > 1 for line in lines), "no response moved, so moves were not tested"
    truths = {line.group: experts_of(model, line.prompt_token_ids + line.token_ids) for line in lines if not line.index}
    for line in lines:
        routed = line.routed_experts
        assert routed is not None
        assert (routed.gaps, routed.missing, routed.dtype) == (0, [], "uint8")
        found = np.load(bench.run.path / routed.file)
        assert list(found.shape) == routed.shape == [40 + int(line.group[1:]) + TOKENS - 1, LAYERS, CHOSEN]
        np.testing.assert_array_equal(np.sort(found), truths[line.group][:-1])
    assert not bench.run.rows_folder.exists(), "rows of a run that has ended are left"
