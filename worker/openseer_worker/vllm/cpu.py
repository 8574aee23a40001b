"""Corrections of vLLM on a CPU, loaded by vLLM into each process of an engine: the matrix unit (AMX), tied weights and
experts, a search of modules, and reused KV blocks.

Matrix unit: asks the kernel for permission to use it. On a CPU that has one, vLLM's attention uses it for bfloat16.
Without permission the first short prompt ends the process with an illegal instruction, since only large matrix products
ask for permission themselves.

Search: when an engine is built, vLLM searches all modules for kernels to replace, and fails on an object of llvmlite,
which numba imports. So the search omits llvmlite.

KV blocks: a CPU's attention multiplies the values at positions outside a sequence by 0, also values that an earlier
request has left in the same block. 0 × NaN is NaN. So each block is zeroed when a request gets it; otherwise NaN from
refused weights would make the responses of good weights fail.
"""

# pyright: reportPrivateUsage=false

import sys
from dataclasses import fields
from types import ModuleType
from typing import Any

import torch
from vllm.triton_utils import dispatcher
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.kv_cache_interface import KVCacheConfig

from openseer_worker.vllm.drafting.scheduler import DraftScheduler
from openseer_worker.vllm.extension import WorkerExtension

torch.cpu._init_amx()


class _Searched:
    """Replaces `sys` in vLLM's search of modules."""

    @property
    def modules(self) -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if not name.startswith("llvmlite")}


dispatcher.sys = _Searched()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]


class CpuWorkerExtension(WorkerExtension):
    """The class that vLLM mixes into its worker on a CPU."""

    def finish_load(self) -> None:
        """Packs the weights of the output layer and of the experts again.

        On a CPU the output layer computes with a packed copy of its weights. vLLM does not update the copy if the layer
        shares the embedding's weights. Experts compute with packed weights, and vLLM packs them at the start only: it
        would read weights that are loaded later in the wrong order.
        """
        from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        worker: Any = self
        for layer in worker.get_model().modules():
            if isinstance(layer, ParallelLMHead):
                layer.quant_method.process_weights_after_loading(layer)
            kernel = getattr(getattr(layer, "quant_method", None), "moe_kernel", None)
            experts = getattr(kernel, "fused_experts", None)
            if isinstance(experts, CPUUnquantizedExperts) and hasattr(layer, "w13_weight"):
                experts.process_weights_after_loading(layer)


class _EmptiedKvCache(KVCacheConfig):
    @property
    def needs_kv_cache_zeroing(self) -> bool:
        return True


def _emptied(own: KVCacheConfig) -> KVCacheConfig:
    return _EmptiedKvCache(**{field.name: getattr(own, field.name) for field in fields(own)})


class CpuScheduler(Scheduler):
    """The scheduler of an engine on a CPU, without drafts: zeroes each KV block that a request gets."""

    def __init__(self, *args: Any, kv_cache_config: KVCacheConfig, **kwargs: Any) -> None:
        super().__init__(*args, kv_cache_config=_emptied(kv_cache_config), **kwargs)


class CpuDraftScheduler(DraftScheduler):
    """The scheduler of an engine on a CPU, with drafts: zeroes each KV block that a request gets."""

    def __init__(self, *args: Any, kv_cache_config: KVCacheConfig, **kwargs: Any) -> None:
        super().__init__(*args, kv_cache_config=_emptied(kv_cache_config), **kwargs)
