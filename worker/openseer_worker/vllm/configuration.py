"""Creates the engine's VllmConfig from our arguments, and chooses CUDA graphs that also serve steps with drafts.

Without drafts the configuration equals that of `vllm serve`, except for the arguments that docs/gpu.md lists.
"""

import logging
from typing import Any

from vllm.config import CUDAGraphMode, set_current_vllm_config
from vllm.engine.arg_utils import EngineArgs
from vllm.usage.usage_lib import UsageContext
from vllm.v1.attention.backend import AttentionCGSupport
from vllm.v1.attention.selector import get_attn_backend

from openseer_core.errors import ModelError
from openseer_worker.vllm.arguments import DRAFT_METHOD
from openseer_worker.vllm.environment import is_cpu_build

_LOG = logging.getLogger(__name__)


def create(arguments: EngineArgs, *, headless: bool = False) -> Any:
    """Returns the VllmConfig of these arguments. `headless`: for a gang's follower.

    vLLM chooses the limits of requests and tokens per step by its usage context; without a usage context they are an
    eighth of those for a large GPU. Raises ModelError if a worker would use another number of GPUs than its manifest
    states, or the user's max_num_batched_tokens is too small for adapters with drafts; also vLLM's errors.
    """
    config: Any = _create(arguments, headless)
    _check_size(arguments, config.parallel_config.world_size_across_dp)
    graphs: Any = arguments.compilation_config
    drafts: Any = config.speculative_config
    if drafts is None or drafts.method != DRAFT_METHOD or is_cpu_build():
        return config
    # The user's choice of graphs is kept, also if a lower optimization level means fewer graphs or none.
    chosen = graphs.cudagraph_mode is not None
    if chosen or config.compilation_config.cudagraph_mode != CUDAGraphMode.FULL_AND_PIECEWISE:
        return config
    graphs.cudagraph_mode = graphs_with_drafts(config)
    return _create(arguments, headless)


def graphs_with_drafts(config: Any) -> CUDAGraphMode:
    """Returns the mode of CUDA graphs for steps whose rows have drafts of different lengths.

    vLLM's own mode has full graphs only for steps in which each row has a draft of the greatest length. Here such steps
    do not occur, and steps without drafts would run without graphs (gpu_model_runner.py, `_is_uniform_decode`). With
    FULL, if the attention backend allows it, one full graph serves all steps.
    """
    backend, ragged = _attention(config)
    mode = CUDAGraphMode.FULL if ragged else CUDAGraphMode.PIECEWISE
    _LOG.info("CUDA graphs with drafts: %s, because the attention backend is %s", mode.name, backend)
    return mode


def _create(arguments: EngineArgs, headless: bool) -> Any:
    own = arguments.max_num_batched_tokens
    try:
        return arguments.create_engine_config(UsageContext.OPENAI_API_SERVER, headless=headless)
    except ValueError:
        # vLLM has set its defaults in the arguments before it raised the error.
        needed = _tokens_with_drafts(arguments)
        if needed <= (arguments.max_num_batched_tokens or 0):
            raise
        if own is not None:
            raise ModelError(
                f"spec.model.engineArgs.max_num_batched_tokens: found {own}, needed with adapters and drafts: at least "
                f"{needed}, max_num_seqs times (1 + spec.speculation.maxTokens)"
            ) from None
    arguments.max_num_batched_tokens = needed
    return arguments.create_engine_config(UsageContext.OPENAI_API_SERVER, headless=headless)


def _tokens_with_drafts(arguments: EngineArgs) -> int:
    """Returns the least limit of tokens per step that vLLM accepts with adapters and drafts: one token and the longest
    draft of each request; 0 without adapters or without drafts."""
    drafts: Any = arguments.speculative_config
    if not arguments.enable_lora or not drafts:
        return 0
    return (arguments.max_num_seqs or 0) * (1 + int(drafts["num_speculative_tokens"]))


def _check_size(arguments: EngineArgs, found: int) -> None:
    wanted = arguments.tensor_parallel_size * arguments.pipeline_parallel_size
    if found != wanted:
        raise ModelError(
            f"spec.workers.parallelism: tensor times pipeline is {wanted}, vLLM is set to {found} GPUs; remove "
            "variables such as VLLM_DP_SIZE from the worker's environment"
        )


def _attention(config: Any) -> tuple[str, bool]:
    """Returns the attention backend that vLLM will choose, and whether its graphs cover rows of different lengths.

    Only the model's usual layers are checked. If the graphs of other layers cover less, vLLM lowers the mode. If other
    layers have no full graphs at all, as attention in chunks, vLLM would refuse to start.
    """
    model = config.model_config
    if model.attention_chunk_size:
        return "in chunks", False
    try:
        with set_current_vllm_config(config):
            found: Any = get_attn_backend(
                model.get_head_size(), model.dtype, config.cache_config.cache_dtype, use_mla=model.use_mla
            )
            support = found.get_builder_cls().get_cudagraph_support(config, None)
    except Exception as error:  # noqa: BLE001 - a model or backend of another kind; piecewise graphs always work
        _LOG.warning("the model's attention backend cannot be determined: %s", error)
        return "unknown", False
    return str(found.get_name()), support == AttentionCGSupport.ALWAYS
