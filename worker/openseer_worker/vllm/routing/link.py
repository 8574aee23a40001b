"""The engine's side of routed experts: holds outputs back until it has the rows of their tokens.

For the engine's thread, between two steps. Without capture all outputs are returned at once.
"""

import time
from collections.abc import Collection
from typing import Any

from openseer_core.routed_rows import RowShape, Stretch
from openseer_worker.engine import EngineOutput
from openseer_worker.vllm.routing.extension import RoutingExtension

TAKE_SECONDS = 0.05
"""Interval of reading rows while no response ends, in seconds: each read costs a call of vLLM's process."""


class RouteLink:
    """Adds rows to outputs. `shape`: shape of the model's rows; None without capture."""

    def __init__(self, core: Any, shape: RowShape | None) -> None:
        self.shape = shape
        self._core = core
        self._held: dict[str, EngineOutput] = {}
        self._taken_at = 0.0

    def pass_on(self, produced: list[EngineOutput], running: Collection[str]) -> list[EngineOutput]:
        """Returns the outputs, of this step and earlier ones, that have their rows. `running`: keys of the requests
        that run or end in this step."""
        if self.shape is None:
            return produced
        for output in produced:
            before = self._held.setdefault(output.key, output)
            if before is not output:
                before.add(output)
        ended = any(output.finish is not None for output in produced)
        return self.flush(running) if ended or time.monotonic() - self._taken_at >= TAKE_SECONDS else []

    def flush(self, running: Collection[str]) -> list[EngineOutput]:
        """Returns all outputs held back, with their rows; drops rows of requests that no longer run."""
        if self.shape is None:
            return []
        found = self._core.collective_rpc(RoutingExtension.take_routes.__name__)
        ready, self._held, self._taken_at = self._held, {}, time.monotonic()
        for key, start, rows in next((result for result in found if result), []):
            if key in running:
                output = ready.setdefault(key, EngineOutput(key))
                output.routes += (Stretch(start, rows),)
        return list(ready.values())
