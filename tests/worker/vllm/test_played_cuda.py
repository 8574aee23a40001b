"""An engine's configuration on GPUs, read on a played machine: parallelism, drafts, vLLM's refusals."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from openseer_core.manifest.engine_args import OWNED_ENGINE_ARGS, UNFIT_ENGINE_ARGS
from openseer_worker.vllm.environment import is_cpu_build
from tests.repository import ROOT
from tests.worker.vllm.played_cuda import on_played_cuda

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.skipif(not is_cpu_build(), reason="needs the CPU build of vLLM"),
]
DENSE = str(ROOT / "examples" / "tiny-model" / "model")
# A configuration needs only these files; there are no weights.
EXPERTS = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": 128, "hidden_size": 64,
    "intermediate_size": 128, "moe_intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 2, "head_dim": 32, "num_experts": 8, "num_experts_per_tok": 2, "decoder_sparse_step": 1,
    "norm_topk_prob": True, "max_position_embeddings": 1024, "torch_dtype": "bfloat16",
}  # fmt: skip
HARMLESS = {
    "cpu_distributed_timeout_seconds": "how long processes wait for one another",
    "distributed_timeout_seconds": "the same",
    "numa_bind": "cores of the processes",
    "numa_bind_cpus": "the same",
    "numa_bind_nodes": "the same",
    "dcp_comm_backend": "how ranks exchange parts of attention",
    "dcp_q_replicate": "the same",
    "dcp_kv_cache_interleave_size": "where a token's cache lies",
    "cp_kv_cache_interleave_size": "the same",
    "decode_context_parallel_size": "divides the cache among tensor parallel ranks; the profile counts it",
    "enable_expert_parallel": "spreads experts over tensor parallel ranks",
    "enable_ep_weight_filter": "which weights a rank reads",
    "expert_placement_strategy": "which rank has which expert",
    "all2all_backend": "read with data parallel ranks only",
    "dbo_decode_token_threshold": "read with enable_dbo only",
    "dbo_prefill_token_threshold": "read with enable_dbo only",
    "eplb_config": "read with enable_eplb only",
    "enable_hc_sp": "divides work among tensor parallel ranks",
    "enable_batch_sharded_sampling": "the same",
    "disable_custom_all_reduce": "how ranks add",
    "enable_shm_tensor_arena": "how processes hand on tensors",
    "max_parallel_loading_workers": "vLLM ignores it, with a warning",
    "ray_workers_use_nsight": "vLLM refuses it without Ray",
}
"""What vLLM's parallelism has beside: it changes neither the number of processes nor who schedules."""

SCRIPT = """
import os
from dataclasses import fields

import torch

from openseer_core.errors import ModelError
from openseer_core.manifest.job import Model, Parallelism, Speculation
from openseer_worker.vllm.arguments import engine_arguments, readable
from openseer_worker.vllm.configuration import create as configuration
from openseer_worker.vllm.kv_groups import kv_rows
from openseer_worker.vllm.profile import layout_of, profile_of
from vllm.config import ParallelConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec, SlidingWindowSpec

HEADS = {"num_kv_heads": 1, "head_size": 64, "dtype": torch.bfloat16}


def facts(path, tensor=1, speculation=None, **arguments):
    try:
        with readable("vLLM refuses it"):
            config = configuration(
                engine_arguments(
                    Model(path=path, engine_args=arguments),
                    Parallelism(tensor=tensor),
                    "sampled",
                    on_cpu=False,
                    speculation=speculation,
                )
            )
    except ModelError as error:
        return str(error)
    config.cache_config.num_gpu_blocks = 101
    tokens = config.cache_config.block_size
    layers = [KVCacheGroupSpec(["a"], FullAttentionSpec(block_size=tokens, **HEADS))]
    if not config.parallel_config.decode_context_parallel_size > 1:
        layers.append(KVCacheGroupSpec(["b"], SlidingWindowSpec(block_size=tokens, sliding_window=100, **HEADS)))
    layout = layout_of(kv_rows(KVCacheConfig(101, [], layers), config))
    profile = profile_of(config, layout, on_cpu=False)
    parallel = config.parallel_config
    return {
        "worker": parallel.worker_cls,
        "processes": [parallel.world_size_across_dp, parallel.distributed_executor_backend],
        "experts spread": parallel.enable_expert_parallel,
        "runner": "V2" if config.use_v2_model_runner else "V1",
        "ahead": config.scheduler_config.async_scheduling,
        "profile": [profile.blocks, layout.groups[0].block_tokens, profile.slots, profile.device],
        "window": layout.groups[-1].blocks(10_000, 0),
    }


drafts = Speculation(enabled=True)
answer = {
    "dense": facts(DENSE),
    "drafting": facts(DENSE, speculation=drafts),
    "drafting ahead": facts(DENSE, speculation=drafts, async_scheduling=True),
    "experts": facts(MOE, tensor=8, enable_expert_parallel=True, max_num_seqs=64, max_num_active_seqs=16),
    "experts drafting": facts(MOE, tensor=8, speculation=drafts, enable_expert_parallel=True),
    "no experts": facts(DENSE, tensor=8, enable_expert_parallel=True),
    "shared cache": facts(MOE, tensor=8, decode_context_parallel_size=4, block_size=16),
    "routed": facts(MOE, speculation=drafts, enable_return_routed_experts=True),
}
os.environ["VLLM_DP_SIZE"] = "2"
answer["data parallel by environment"] = facts(MOE)
answer["parallel arguments"] = sorted(
    {field.name for field in fields(ParallelConfig)} & {field.name for field in fields(EngineArgs)}
    | {field.name for field in fields(EngineArgs) if field.name.startswith("data_parallel")}
)
answer["all arguments"] = sorted(field.name for field in fields(EngineArgs))
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Any]:
    folder: Path = tmp_path_factory.mktemp("experts")
    (folder / "config.json").write_text(json.dumps(EXPERTS))
    return on_played_cuda(f"DENSE, MOE = {DENSE!r}, {str(folder)!r}\n{SCRIPT}", devices=8)


def test_without_drafts_the_newer_runner_runs_ahead(answer: Mapping[str, Any]) -> None:
    dense = answer["dense"]
    assert (dense["worker"], dense["processes"]) == ("vllm.v1.worker.gpu_worker.Worker", [1, "uni"])
    assert (dense["runner"], dense["ahead"]) == ("V2", True)


def test_drafts_run_on_the_older_runner_without_running_ahead(answer: Mapping[str, Any]) -> None:
    assert (answer["drafting"]["runner"], answer["drafting"]["ahead"]) == ("V1", False)
    assert "async scheduling is only supported with" in answer["drafting ahead"]


def test_experts_are_spread_over_the_gpus_of_one_worker(answer: Mapping[str, Any]) -> None:
    for name in ("experts", "experts drafting"):
        assert answer[name]["processes"] == [8, "mp"]
        assert answer[name]["experts spread"]
    assert answer["experts"]["profile"][2:] == [16, "8 x NVIDIA H100 80GB HBM3"]
    assert "Number of experts in the model must be greater than 0" in answer["no experts"]


def test_a_block_shared_by_context_parallel_ranks_counts_whole(answer: Mapping[str, Any]) -> None:
    assert answer["shared cache"]["processes"] == [8, "mp"]
    assert answer["shared cache"]["profile"][:2] == [100, 64]


def test_the_blocks_of_a_window_include_those_of_steps_under_way(answer: Mapping[str, Any]) -> None:
    # Blocks of 16 tokens: 99 tokens of the window, and 2 that run ahead, or one and 16 drafts without running ahead.
    assert answer["dense"]["window"] == -(-(99 + 2) // 16) + 1
    assert answer["drafting"]["window"] == -(-(99 + 17) // 16) + 1


def test_vllm_itself_refuses_routed_experts_with_drafts(answer: Mapping[str, Any]) -> None:
    assert "AuxOutput Connector requires Model Runner V2" in answer["routed"]


def test_data_parallel_ranks_from_the_environment_are_refused(answer: Mapping[str, Any]) -> None:
    expected = "spec.workers.parallelism: tensor times pipeline is 1, vLLM is set to 2 GPUs"
    assert answer["data parallel by environment"].startswith(expected)


def test_every_parallelism_argument_of_vllm_is_refused_or_harmless(answer: Mapping[str, Any]) -> None:
    refused = {*OWNED_ENGINE_ARGS, *UNFIT_ENGINE_ARGS}
    assert set(answer["parallel arguments"]) - refused == set(HARMLESS)
    assert refused - set(answer["all arguments"]) == set()
