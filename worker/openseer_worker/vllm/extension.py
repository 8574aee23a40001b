"""Loaded by vLLM into each of its processes: takes back a load of weights that broke off in the middle, and reaches
the proposer of drafts.

After a broken load vLLM leaves layers without memory, half in the new format, and every later load fails.
"""

# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false

from typing import Any


class WorkerExtension:
    """What vLLM mixes into its worker. It gives the worker `get_model`."""

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

    def start_drafting(self) -> None:
        """Gives the proposer its model runner; the proposer is in the processes of the last pipeline stage."""
        worker: Any = self
        if hasattr(worker.model_runner, "drafter"):
            worker.model_runner.drafter.attach(worker.model_runner)

    def ask_drafter(self, method: str, *values: Any) -> Any:
        """Calls a method of the proposer, with its answer; None where there is none."""
        worker: Any = self
        proposer = getattr(worker.model_runner, "drafter", None)
        return None if proposer is None else getattr(proposer, method)(*values)
