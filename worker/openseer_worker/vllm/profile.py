"""What a vLLM engine can hold, read from its configuration."""

from typing import Any

from openseer_core.worker.speculation_enabled import CPU
from openseer_worker.engine import EngineProfile
from openseer_worker.vllm import environment


def profile_of(config: Any, *, on_cpu: bool) -> EngineProfile:
    """The profile of an engine of that configuration, once its cache is made."""
    cache, scheduler = config.cache_config, config.scheduler_config
    # One block is vLLM's null block, which holds nothing.
    return EngineProfile(
        blocks=cache.num_gpu_blocks - 1,
        # With decode context parallelism each of those ranks holds a part of a block's tokens.
        block_tokens=cache.block_size * config.parallel_config.decode_context_parallel_size,
        slots=scheduler.max_num_active_seqs or scheduler.max_num_seqs,
        context_tokens=config.model_config.max_model_len,
        device=device_text(config.parallel_config.world_size, on_cpu=on_cpu),
        engine=f"vllm {environment.engine_version()} {'cpu' if on_cpu else 'gpu'}",
        dtype=str(config.model_config.dtype).removeprefix("torch."),
    )


def device_text(count: int, *, on_cpu: bool) -> str:
    """The devices of an engine in words, `count` of them."""
    if on_cpu:
        return CPU
    return gpu_name() if count == 1 else f"{count} x {gpu_name()}"


def gpu_name() -> str:
    """The first GPU that this process sees, as NVIDIA names it; it is not touched."""
    from vllm.platforms import current_platform

    return str(current_platform.get_device_name())
