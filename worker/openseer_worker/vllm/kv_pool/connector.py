"""The connector between vLLM and a KV pool: one part in vLLM's scheduler, one in each of its workers.

vLLM's block hashes, which include the salt of job and weights version, identify the blocks' contents. Blocks of prompts
and responses are written as soon as a step has filled them, so any worker finds all but the last few tokens of a
response, also after the death of its worker. Fetches run beside the steps. After any failure of the pool the engine
computes the missing blocks.
"""

# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false

import os
from hashlib import blake2b
from typing import Any

import torch
import vllm
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    KVConnectorTransferResults,
)
from vllm.distributed.kv_transfer.kv_connector.v1.metrics import KVConnectorStats
from vllm.platforms import current_platform
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, UniformTypeKVCacheSpecs, iter_layer_specs

from openseer_worker.kv_pool.backends import open_blocks
from openseer_worker.vllm.kv_pool.arguments import LEAST_TOKENS, pool_of
from openseer_worker.vllm.kv_pool.counts import PoolCounts
from openseer_worker.vllm.kv_pool.lookups import Lookups
from openseer_worker.vllm.kv_pool.steps import PoolStep
from openseer_worker.vllm.kv_pool.transfers import Transfers

FULL = "full attention"
_LAYOUT_VARIABLES = ("VLLM_KV_CACHE_LAYOUT", "VLLM_ATTENTION_BACKEND")


class PoolConnector(KVConnectorBase_V1):
    """One side of the connector, by `role`. Raises ValueError for a model or parallelism without support for a pool."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: KVCacheConfig) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        check_cache(kv_cache_config)
        extra: dict[str, Any] = vllm_config.kv_transfer_config.kv_connector_extra_config
        blocks, layout = open_blocks(pool_of(extra)), layout_digest(vllm_config, kv_cache_config)
        parallel, block = vllm_config.parallel_config, vllm_config.cache_config.block_size
        if parallel.decode_context_parallel_size > 1:
            raise ValueError(
                "spec.kvPool: each GPU holds a part of a block's tokens; decode_context_parallel_size is 1"
            )
        self._cache = kv_cache_config
        self._lookups: Lookups | None = None
        self._transfers: Transfers | None = None
        if role is KVConnectorRole.SCHEDULER:
            self._lookups = Lookups(blocks, layout, parallel.tensor_parallel_size, block, int(extra[LEAST_TOKENS]))
        else:
            self._transfers = Transfers(blocks, layout, _own_rank(), block)

    # ---- the worker's side

    @property
    def _worker(self) -> Transfers:
        assert self._transfers is not None
        return self._transfers

    @property
    def _step(self) -> PoolStep:
        step = self._get_connector_metadata()
        assert isinstance(step, PoolStep)
        return step

    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        self._worker.begin(kv_caches, self._cache.num_blocks)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        self._worker.start(self._step)

    def give_up(self) -> None:
        """Ends all fetches, because the KV cache is about to be freed."""
        self._worker.give_up()

    def wait_for_layer_load(self, layer_name: str) -> None:
        """Does nothing: a request is scheduled only after its fetch has ended."""

    def save_kv_layer(self, layer_name: str, kv_layer: torch.Tensor, attn_metadata: Any, **kwargs: Any) -> None:
        """Does nothing: whole blocks are written after the step."""

    def wait_for_save(self) -> None:
        self._worker.save(self._step)

    def get_transfer_results(self, finished_req_ids: set[str]) -> KVConnectorTransferResults:
        return KVConnectorTransferResults(finished_recving=self._worker.take_ended(self._step))

    def get_block_ids_with_load_errors(self) -> set[int]:
        return self._worker.take_missing()

    def get_kv_connector_stats(self) -> KVConnectorStats | None:
        return None if self._transfers is None else self._transfers.take_counts()

    @classmethod
    def build_kv_connector_stats(cls, data: dict[str, Any] | None = None) -> KVConnectorStats | None:
        return PoolCounts(data or {})

    def shutdown(self) -> None:
        for side in (self._transfers, self._lookups):
            if side is not None:
                side.close()

    # ---- the scheduler's side

    @property
    def _scheduler(self) -> Lookups:
        assert self._lookups is not None
        return self._lookups

    @property
    def requires_kv_delivery(self) -> bool:
        """False: blocks that are not written can be computed again."""
        return False

    def on_new_request(self, request: Any) -> None:
        self._scheduler.add(request)

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        return self._scheduler.find(request, num_computed_tokens)

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if num_external_tokens:
            self._scheduler.allocated(request, blocks.get_block_ids()[0], num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return self._scheduler.step(scheduler_output)

    def update_connector_output(self, connector_output: Any) -> None:
        self._scheduler.note(connector_output.finished_recving or (), connector_output.invalid_block_ids or ())

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        self._scheduler.end(request.request_id)
        return False, None


def check_cache(cache: KVCacheConfig) -> None:
    """Raises ValueError for a model that does not keep all tokens of all layers in blocks of one kind.

    With a connector vLLM keeps all tokens of sliding windows and chunks; without a connector it frees them. So such
    models would have less room with a pool.
    """
    groups = cache.kv_cache_groups
    kinds = {_kind(spec) for group in groups for spec in iter_layer_specs(group.kv_cache_spec)}
    if len(groups) != 1 or kinds != {FULL}:
        others = ", ".join(sorted(kinds - {FULL})) or "in several groups"
        raise ValueError(f"spec.kvPool: the model has layers of other kinds than full attention: {others}")
    if cache.hash_block_size not in (None, groups[0].kv_cache_spec.block_size):
        raise ValueError("spec.kvPool: the engine hashes other blocks than it holds; remove prefix_match_unit")


def _kind(spec: Any) -> str:
    if not isinstance(spec, FullAttentionSpec):
        return type(spec).__name__.removesuffix("Spec")
    if spec.sliding_window is not None:
        return "sliding window"
    return FULL if spec.attention_chunk_size is None else "attention in chunks"


def layout_digest(vllm_config: Any, cache: KVCacheConfig) -> str:
    """Returns a digest of an engine's block format (16 hexadecimal digits). Engines with equal digests have equal bytes
    in their blocks of the same tokens, with the same weights."""
    spec: Any = cache.kv_cache_groups[0].kv_cache_spec
    layers = spec.kv_cache_specs if isinstance(spec, UniformTypeKVCacheSpecs) else {"": spec}
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    parts = [
        model.hf_config.to_json_string(),
        str(model.dtype),
        str(model.quantization),
        str(vllm_config.cache_config.cache_dtype),
        str(parallel.tensor_parallel_size),
        *(f"{name} {part!r}" for name, part in sorted(layers.items())),
        *sorted(cache.kv_cache_groups[0].layer_names),
        str(vllm_config.cache_config.prefix_caching_hash_algo),
        # The next entries determine the attention backend, and so the order of numbers within a block.
        str(current_platform.get_device_name()),
        vllm.__version__,
        str(vllm_config.attention_config.backend),
        *(f"{name}={os.environ.get(name)}" for name in _LAYOUT_VARIABLES),
    ]
    return blake2b("\x1f".join(parts).encode(), digest_size=8).hexdigest()


def _own_rank() -> int:
    from vllm.distributed.parallel_state import get_tensor_model_parallel_rank

    return get_tensor_model_parallel_rank()
