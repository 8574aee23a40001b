"""Loaded by vLLM into each of its processes: undoes a load of weights that broke off, tells how requests hold KV
blocks and where an adapter's modules lie, and reaches the proposer and the capture of routed experts.

After a broken load vLLM leaves layers without memory, half in the new format, and every later load fails.
"""

# pyright: reportPrivateUsage=false

from typing import TYPE_CHECKING, Any, cast

from openseer_worker.vllm.drafting.extension import DraftExtension
from openseer_worker.vllm.routing.extension import RoutingExtension

if TYPE_CHECKING:
    from openseer_worker.vllm.kv_pool.connector import PoolConnector
    from openseer_worker.vllm.profile import KvRow


class WorkerExtension(DraftExtension, RoutingExtension):
    """What vLLM mixes into its worker. It gives the worker `get_model`."""

    def kv_rows(self) -> "list[KvRow]":
        """See kv_groups."""
        from openseer_worker.vllm.kv_groups import kv_rows

        worker: Any = self
        return kv_rows(worker.model_runner.kv_cache_config, worker.vllm_config)

    def unplaced_modules(self, adapter: int) -> list[str]:
        """Modules of a loaded adapter, by vLLM's names, that this rank's part of the model has not."""
        worker: Any = self
        manager = worker.model_runner.lora_manager._adapter_manager
        return [name for name in manager.get_adapter(adapter).loras if name not in manager.modules]

    def end_fetches(self) -> None:
        """Has nothing more from the KV pool written to the KV cache, by requests that have ended meanwhile."""
        from vllm.distributed.kv_transfer import get_kv_transfer_group, has_kv_transfer_group

        if has_kv_transfer_group() and hasattr(connector := get_kv_transfer_group(), "give_up"):
            cast("PoolConnector", connector).give_up()

    def undo_broken_load(self) -> None:
        """Gives every layer that was not loaded to its end its old tensors back; the whole is of no version."""
        from vllm.model_executor.model_loader.reload import layerwise

        worker: Any = self
        for layer in worker.get_model().modules():
            info = layerwise.get_layerwise_info(layer)
            if info.can_load():
                layerwise._place_kernel_tensors(layer, info)
                info.reset()
        layerwise.LOADING_LAYERS.clear()
