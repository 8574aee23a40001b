"""The capacity of a vLLM engine, read from its configuration."""

from typing import Any

from openseer_core.queue.kv_blocks import KvGroup, KvLayout
from openseer_core.routed_rows import RowShape
from openseer_core.worker.speculation_enabled import CPU
from openseer_worker.engine import EngineProfile
from openseer_worker.vllm import environment

KvRow = tuple[int, int, int, int, int]
"""The fields of a KvGroup, as a tuple that passes from vLLM's worker to the engine."""


def layout_of(rows: list[KvRow]) -> KvLayout:
    """The KV layout, from the rows of kv_groups.kv_rows."""
    return KvLayout(tuple(KvGroup(*row) for row in rows))


def profile_of(
    config: Any, layout: KvLayout, *, on_cpu: bool, routing: RowShape | None = None, contexts_move: bool = False
) -> EngineProfile:
    """Returns the profile of an engine from its configuration, once its KV cache is allocated. `layout`: of the cache;
    `routing`, `contexts_move`: see EngineProfile."""
    total, scheduler = config.cache_config.num_gpu_blocks, config.scheduler_config
    places = scheduler.max_num_active_seqs or scheduler.max_num_seqs
    return EngineProfile(
        # One block is vLLM's null block, which holds no tokens; vLLM admits no request that would need the blocks below
        # its watermark.
        blocks=total - 1 - int(scheduler.watermark * total),
        layout=layout,
        # One slot is free to score an adapter that is loaded while requests run.
        slots=places if config.lora_config is None else max(1, places - 1),
        context_tokens=config.model_config.max_model_len,
        device=device_text(config.parallel_config.world_size, on_cpu=on_cpu),
        engine=f"vllm {environment.engine_version()} {'cpu' if on_cpu else 'gpu'}",
        vocabulary=config.model_config.get_vocab_size(),
        dtype=str(config.model_config.dtype).removeprefix("torch."),
        routing=routing,
        contexts_move=contexts_move,
    )


def device_text(count: int, *, on_cpu: bool) -> str:
    """Describes the `count` devices of an engine, for people."""
    if on_cpu:
        return CPU
    return gpu_name() if count == 1 else f"{count} x {gpu_name()}"


def gpu_name() -> str:
    """NVIDIA's name of the first visible GPU, without using the GPU."""
    from vllm.platforms import current_platform

    return str(current_platform.get_device_name())
