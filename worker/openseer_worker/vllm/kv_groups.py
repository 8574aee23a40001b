"""The KV layout of an engine: the blocks that vLLM's managers take from their shared pool for a request.

The counts follow vllm/v1/core/single_type_kv_cache_manager.py and vllm/v1/kv_cache_interface.py. Full and
sliding-window attention are counted as in vLLM. All other kinds are counted by an upper bound: attention in chunks, the
states of Mamba (one for each concurrent step, though few steps need a new one), and the rest.
"""

from collections import Counter
from typing import Any

from vllm.v1.kv_cache_interface import (
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    KVCacheConfig,
    MambaSpec,
    iter_layer_specs,
)

from openseer_core.queue.kv_blocks import UNLIMITED, blocks_for
from openseer_worker.vllm.profile import KvRow


def kv_rows(cache: KVCacheConfig, config: Any) -> list[KvRow]:
    """Returns the KV groups of an engine, from its KVCacheConfig and VllmConfig, except groups in the host's memory."""
    specs = [group.kv_cache_spec for group in cache.kv_cache_groups if not group.host_resident]
    found = Counter(_held(next(iter(iter_layer_specs(spec))), cache, config) for spec in specs)
    return [(block_tokens, count, *blocks) for (block_tokens, blocks), count in found.items()]


def _held(spec: Any, cache: KVCacheConfig, config: Any) -> tuple[int, tuple[int, int, int]]:
    """Returns one group's block_tokens, and its blocks (fixed, most, most_computing); see KvGroup."""
    ranks = config.parallel_config.decode_context_parallel_size if spec.dcp_sharded else 1
    block_tokens = spec.block_size * ranks
    if isinstance(spec, FullAttentionSpec):
        return block_tokens, (_copied(block_tokens, cache), UNLIMITED, UNLIMITED)
    # Limit of tokens that one request may write in the concurrent steps, while it generates.
    steps = config.max_concurrent_batches
    written = steps * config.uniform_decode_query_len + config.num_lookahead_tokens
    if hasattr(spec, "max_admission_blocks_per_request"):
        # vLLM's own limit while a context is computed; the same formula with `written` tokens holds while it generates.
        context = config.model_config.max_model_len
        most, most_computing = (
            spec.max_admission_blocks_per_request(max_in_flight_tokens=tokens, max_model_len=context)
            for tokens in (written, config.max_in_flight_tokens)
        )
        unaligned = isinstance(spec, ChunkedLocalAttentionSpec) and spec.attention_chunk_size % block_tokens > 0
        return block_tokens, (int(unaligned), most, most_computing)
    if isinstance(spec, MambaSpec):
        drafts = spec.num_speculative_blocks
        if spec.mamba_cache_mode != "align":
            return block_tokens, (drafts, 1 + blocks_for(written, block_tokens), UNLIMITED)
        checkpoints = steps * spec.num_prefill_checkpoint_blocks
        return block_tokens, (drafts + _copied(block_tokens, cache), 1 + steps, 1 + steps + checkpoints)
    # Rings, hot pages, an encoder's states: a fixed number of blocks per request, for any length.
    return block_tokens, (blocks_for(spec.max_memory_usage_bytes(config), max(1, spec.page_size_bytes)), 0, 0)


def _copied(block_tokens: int, cache: KVCacheConfig) -> int:
    """Returns the blocks (0 or 1) for the copy of a partly shared cached block, which aligned Mamba states allow."""
    aligned = any(
        isinstance(spec, MambaSpec) and spec.mamba_cache_mode == "align"
        for group in cache.kv_cache_groups
        for spec in iter_layer_specs(group.kv_cache_spec)
    )
    return int(aligned and cache.hash_block_size is not None and block_tokens > cache.hash_block_size)
