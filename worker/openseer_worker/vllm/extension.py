"""The extension that vLLM loads into each of its workers: undoes an interrupted load of weights, reports the KV layout
and an adapter's unknown modules, and calls the proposer and the capture of routed experts.

After an interrupted load vLLM leaves layers without memory, half in the new format, and every later load fails.
"""

# pyright: reportPrivateUsage=false

from typing import TYPE_CHECKING, Any, cast

from openseer_worker.vllm.drafting.extension import DraftExtension
from openseer_worker.vllm.routing.extension import RoutingExtension

if TYPE_CHECKING:
    from openseer_worker.vllm.kv_pool.connector import PoolConnector
    from openseer_worker.vllm.profile import KvRow


class WorkerExtension(DraftExtension, RoutingExtension):
    """The class that vLLM mixes into its worker, whose `get_model` it uses."""

    def kv_rows(self) -> "list[KvRow]":
        """Returns the KV groups of the engine; see kv_groups."""
        from openseer_worker.vllm.kv_groups import kv_rows

        worker: Any = self
        return kv_rows(worker.model_runner.kv_cache_config, worker.vllm_config)

    def unplaced_modules(self, adapter: int) -> list[str]:
        """Returns the modules, by vLLM's names, that a loaded adapter has and this rank's part of the model lacks.
        `adapter`: its number."""
        worker: Any = self
        manager = worker.model_runner.lora_manager._adapter_manager
        return [name for name in manager.get_adapter(adapter).loras if name not in manager.modules]

    def end_fetches(self) -> None:
        """Ends all fetches from the KV pool, so that no fetch of an ended request writes to the KV cache later."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

        if has_kv_transfer_group() and hasattr(connector := get_kv_transfer_group(), "give_up"):
            cast("PoolConnector", connector).give_up()

    def undo_broken_load(self) -> None:
        """Restores the old tensors of every incompletely loaded layer; afterwards the weights belong to no version."""
        from vllm.model_executor.model_loader.reload import layerwise

        worker: Any = self
        for layer in worker.get_model().modules():
            info = layerwise.get_layerwise_info(layer)
            if info.can_load():
                layerwise._place_kernel_tensors(layer, info)
                info.reset()
        layerwise.LOADING_LAYERS.clear()
