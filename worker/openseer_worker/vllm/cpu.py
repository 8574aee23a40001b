"""Loaded by vLLM into each process of an engine on a CPU: the matrix unit (AMX), weights that are tied, a search, and
KV blocks that are used again.

The kernel is asked for the use of the matrix unit. On a CPU that has one, vLLM's attention uses it for bfloat16, and
without this the first short prompt ends the process with an illegal instruction: only large matrix products ask the
kernel on their own.

When an engine is built, vLLM searches all modules for kernels to replace, and falls over an object of llvmlite, which
is there once numba is. So its search passes llvmlite over.

A CPU's attention multiplies by 0 what a sequence does not attend to, in its last block what others have left there too:
of NaN that makes NaN. So each block is emptied when a request gets it, else what refused weights have left would make
the responses of good ones fail.
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
    """Stands for `sys` where vLLM searches."""

    @property
    def modules(self) -> dict[str, ModuleType]:
        return {name: module for name, module in sys.modules.items() if not name.startswith("llvmlite")}


dispatcher.sys = _Searched()  # pyright: ignore[reportAttributeAccessIssue, reportPrivateImportUsage]


class CpuWorkerExtension(WorkerExtension):
    """What vLLM mixes into its worker on a CPU."""

    def finish_load(self) -> None:
        """Packs the output layer and the experts anew.

        On a CPU the output layer computes with a packed copy, which vLLM leaves as it was when the layer has no weights
        of its own, but those of the embedding. Experts compute with packed weights, and vLLM packs them at the start
        only: weights that are loaded later would be read in the wrong order.
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
    """The scheduler of an engine on a CPU."""

    def __init__(self, *args: Any, kv_cache_config: KVCacheConfig, **kwargs: Any) -> None:
        super().__init__(*args, kv_cache_config=_emptied(kv_cache_config), **kwargs)


class CpuDraftScheduler(DraftScheduler):
    """The scheduler of an engine on a CPU that drafts."""

    def __init__(self, *args: Any, kv_cache_config: KVCacheConfig, **kwargs: Any) -> None:
        super().__init__(*args, kv_cache_config=_emptied(kv_cache_config), **kwargs)
