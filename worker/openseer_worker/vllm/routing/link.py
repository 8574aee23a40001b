"""The engine's side of routed experts: outputs go on together with the rows of the tokens that they hold.

For the engine's thread, between two steps. Without capture it passes everything on at once.
"""

import time
from collections.abc import Collection
from typing import Any

from openseer_core.routed_rows import RowShape, Stretch
from openseer_worker.engine import EngineOutput
from openseer_worker.vllm.routing.extension import RoutingExtension

TAKE_SECONDS = 0.05
"""Outputs wait for their rows at most so long, unless a response ends: each time costs a call of vLLM's process."""


class RouteLink:
    """`shape`: of the model's rows; None where nothing is captured."""

    def __init__(self, core: Any, shape: RowShape | None) -> None:
        self.shape = shape
        self._core = core
        self._held: dict[str, EngineOutput] = {}
        self._taken_at = 0.0

    def pass_on(self, produced: list[EngineOutput], running: Collection[str]) -> list[EngineOutput]:
        """What is ready of a step's outputs, and of those before. `running`: keys of all that run, or end now."""
        if self.shape is None:
            return produced
        for output in produced:
            before = self._held.setdefault(output.key, output)
            if before is not output:
                before.add(output)
        ended = any(output.finish is not None for output in produced)
        return self.flush(running) if ended or time.monotonic() - self._taken_at >= TAKE_SECONDS else []

    def flush(self, running: Collection[str]) -> list[EngineOutput]:
        """All outputs that were held back, with the rows so far; rows of what does not run any more go."""
        if self.shape is None:
            return []
        found = self._core.collective_rpc(RoutingExtension.take_routes.__name__)
        ready, self._held, self._taken_at = self._held, {}, time.monotonic()
        for key, start, rows in next((result for result in found if result), []):
            if key in running:
                output = ready.setdefault(key, EngineOutput(key))
                output.routes += (Stretch(start, rows),)
        return list(ready.values())
