"""Loaded by vLLM into each process that computes on a CPU: the matrix unit (AMX), weights that are tied, and a search.

The kernel is asked for the use of the matrix unit. On a CPU that has one, vLLM's attention uses it for bfloat16, and
without this the first short prompt ends the process with an illegal instruction: only large matrix products ask the
kernel on their own.

When an engine is built, vLLM searches all modules for kernels to replace, and falls over an object of llvmlite, which
is there once numba is. So its search passes llvmlite over.
"""

# pyright: reportPrivateUsage=false

import sys
from types import ModuleType
from typing import Any

import torch
from vllm.triton_utils import dispatcher

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
        """Packs the output layer anew: on a CPU it computes with a packed copy, which vLLM leaves as it was when the
        layer has no weights of its own, but those of the embedding."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead

        worker: Any = self
        for layer in worker.get_model().modules():
            if isinstance(layer, ParallelLMHead):
                layer.quant_method.process_weights_after_loading(layer)
