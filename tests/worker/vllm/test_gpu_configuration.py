"""vLLM's configuration on a GPU compared with that of `vllm serve` for the same model, on a played GPU."""

from pathlib import Path
from typing import Any

import pytest

from openseer_worker.vllm.environment import is_cpu_build
from tests.repository import ROOT
from tests.worker.vllm.played_cuda import on_played_cuda

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]
PAGE = ROOT / "docs" / "gpu.md"

COMMON = """
from dataclasses import fields, is_dataclass

from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.usage.usage_lib import UsageContext
from vllm.utils.argparse_utils import FlexibleArgumentParser

from openseer_core.manifest.job import Model, Parallelism, Speculation
from openseer_worker.vllm import arguments, configuration

def flat(config, place=""):
    if not is_dataclass(config):
        return {place: repr(config)}
    return {key: value for field in fields(config) if hasattr(config, field.name)
            for key, value in flat(getattr(config, field.name), f"{place}.{field.name}".lstrip(".")).items()}

def serve():
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", MODEL])
    return AsyncEngineArgs.from_cli_args(parsed).create_engine_config(usage_context=UsageContext.OPENAI_API_SERVER)

def ours(speculation=None, logprobs="sampled", **engine_args):
    model = Model(path=MODEL, engine_args=engine_args)
    made = arguments.engine_arguments(model, Parallelism(), logprobs, on_cpu=False, speculation=speculation)
    return configuration.create(made)

def paths(config):
    return {"V2": config.use_v2_model_runner, "async": config.scheduler_config.async_scheduling,
            "graphs": config.compilation_config.cudagraph_mode.name,
            "scheduler": config.scheduler_config.get_scheduler_cls().__name__,
            "requests": config.scheduler_config.max_num_seqs, "tokens": config.scheduler_config.max_num_batched_tokens}

"""
CODE = """
theirs, plain = serve(), ours()
first, second = flat(theirs), flat(plain)
drafts = Speculation(enabled=True)
answer = {
    "serve": paths(theirs),
    "plain": paths(plain),
    "differences": {key: [first.get(key), second.get(key)] for key in sorted(first.keys() | second.keys())
                    if first.get(key) != second.get(key) and key != "instance_id"},
    "drafts": paths(ours(drafts)),
    "triton": paths(ours(drafts, attention_backend="TRITON_ATTN")),
    "own graphs": paths(ours(drafts, compilation_config={"cudagraph_mode": "PIECEWISE"})),
    "eager": paths(ours(drafts, enforce_eager=True)),
    "O0": [paths(ours(drafts if drafting else None, optimization_level=0))["graphs"] for drafting in (True, False)],
    "in chunks": paths(ours(drafts, hf_overrides={"attention_chunk_size": 64}))["graphs"],
}
"""


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """The configurations, all from one process, because each process imports vLLM again."""
    return on_played_cuda(f"MODEL = {str(folder)!r}\n{COMMON}{CODE}")


def test_without_drafts_a_gpus_configuration_equals_vllm_serves(found: dict[str, Any]) -> None:
    assert found["plain"] == found["serve"]
    assert found["plain"]["V2"]
    assert found["plain"]["async"]
    assert found["plain"]["graphs"] == "FULL_AND_PIECEWISE"
    assert (found["plain"]["requests"], found["plain"]["tokens"]) == (1024, 8192)


def test_differences_from_vllm_serve_are_documented(found: dict[str, Any]) -> None:
    rows = [line.split("|")[2] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    documented = {name.strip("` ") for row in rows for name in row.split(",") if name.strip()}
    assert found["differences"]
    assert set(found["differences"]) <= documented


def test_with_drafts_one_full_graph_covers_all_draft_lengths(found: dict[str, Any]) -> None:
    for attention in ("drafts", "triton"):
        assert found[attention]["graphs"] == "FULL"
        assert found[attention]["scheduler"] == "DraftScheduler"
        assert (found[attention]["V2"], found[attention]["async"]) == (False, False)


def test_attention_without_full_graphs_uses_piecewise_graphs(folder: Path) -> None:
    code = f"MODEL = {str(folder)!r}\n{COMMON}answer = paths(ours(Speculation(enabled=True)))"
    assert on_played_cuda(code, capability=(8, 0), name="NVIDIA A100-SXM4-80GB")["graphs"] == "PIECEWISE"


def test_the_users_own_graph_mode_is_kept(found: dict[str, Any]) -> None:
    assert found["own graphs"]["graphs"] == "PIECEWISE"
    assert found["eager"]["graphs"] == "NONE"
    assert found["O0"] == ["NONE", "NONE"]


def test_chunked_attention_uses_piecewise_graphs(found: dict[str, Any]) -> None:
    assert found["in chunks"] == "PIECEWISE"
