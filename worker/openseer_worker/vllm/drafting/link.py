"""The engine's side of drafting: starts the proposer inside vLLM, passes news to it and reads its metrics.

All of it but `metrics` is for the engine's thread, between two steps.
"""

import time
from typing import Any

from openseer_core.manifest.job import Sampling
from openseer_worker.engine import DraftNews, EngineProfile
from openseer_worker.vllm.drafting import step_profile
from openseer_worker.vllm.drafting.calls import DraftCalls

READ_SECONDS = 1.0
"""Metrics are read no more often than this."""


class DraftLink:
    """Drafting in one engine. `reason`: why it does not draft; empty when it is to. `idle`: vLLM was built for drafts
    all the same, for the proposer has other work."""

    def __init__(self, core: Any, reason: str, *, idle: bool = False) -> None:
        self.built = not reason or idle
        """Whether vLLM was built for drafts: then it verifies them in a way of its own."""
        self._may_draft = not reason
        self._core = core
        self._calls = DraftCalls(core)
        self._reason = reason
        self._metrics: dict[str, float] = {}
        self._read_at = 0.0

    @property
    def on(self) -> bool:
        """Whether the engine drafts."""
        return not self._reason

    def attach(self) -> None:
        """Gives each rank's proposer its model runner."""
        self._calls.start()

    def start(self, inputs: Any, profile: EngineProfile, sampling: Sampling, most: int) -> str:
        """Begins to draft, once it is measured what verifying costs; where it cannot pay, it ends at once.

        Returns why it cannot pay, empty where it may; not a fault, after which the engine does not draft either.
        """
        self.attach()
        costs = step_profile.measure(self._core, self._calls, inputs, profile, sampling, most)
        for (rows, length), seconds in costs.items():
            self._calls.learn(rows, rows * length, seconds)
        gain = step_profile.best_gain(costs)
        reason = ""
        if gain < step_profile.WORTH_IT:
            reason = f"even drafts that are all accepted would make this engine only {gain:.2f} times as fast"
            self._calls.switch_off(reason)
        self.read(at_rest=True)
        return reason

    def feed(self, news: DraftNews) -> list[int]:
        """Passes news on; returns how many tokens are known then of the response of each `tokens`."""
        return self._calls.feed(news)

    def read(self, *, at_rest: bool) -> None:
        """Reads the drafter's metrics again, if they are old enough or nothing runs any more."""
        if self._may_draft and (at_rest or time.monotonic() - self._read_at >= READ_SECONDS):
            self._reason, self._metrics = self._calls.metrics()
            self._read_at = time.monotonic()

    def metrics(self) -> dict[str, float | int | str]:
        """The drafter's metrics as last read, and whether the engine drafts; from any thread."""
        return {**self._metrics, "drafts": "on" if self.on else f"off: {self._reason}"}
