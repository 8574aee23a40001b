"""The methods in vLLM's processes through which the engine reads captured rows; see drafting.extension."""

from typing import Any

from openseer_worker.vllm.routing.capture import RowsOf


class RoutingExtension:
    """The part of the worker's extension for routed experts."""

    def take_routes(self) -> list[RowsOf] | None:
        """Calls RowCapture.take; returns None on ranks without capture."""
        worker: Any = self
        proposer = getattr(worker.model_runner, "drafter", None)
        return None if proposer is None else proposer.take_routes()
