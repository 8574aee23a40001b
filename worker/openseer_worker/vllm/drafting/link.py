"""The engine's side of drafting: starts the proposer inside vLLM, passes news to it and reads its metrics.

All methods except `metrics` are for the engine's thread, between two steps.
"""

import time
from typing import Any

from openseer_core.manifest.job import Sampling
from openseer_worker.engine import DraftNews, EngineProfile
from openseer_worker.vllm.drafting import step_profile
from openseer_worker.vllm.drafting.calls import DraftCalls

READ_SECONDS = 1.0
"""Least interval of reading the drafter's metrics, in seconds."""


class DraftLink:
    """Drafting in one engine. `reason`: why the engine does not draft; "" if it does. `idle`: vLLM is built for drafts
    though the engine may not draft, because the proposer captures routed experts."""

    def __init__(self, core: Any, reason: str, *, idle: bool = False) -> None:
        self.built = not reason or idle
        """Whether vLLM was built for drafts. If so, it samples with its method that verifies drafts."""
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
        """Measures the cost of verifying, and begins to draft unless drafts cannot pay.

        Returns the reason why drafts cannot pay, "" if they may. `on` is False for this reason or after a failure.
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
        """Passes `news` on; returns, for each entry of its `tokens`, the number of the response's tokens that the
        drafter has."""
        return self._calls.feed(news)

    def read(self, *, at_rest: bool) -> None:
        """Reads the drafter's metrics if the last ones are READ_SECONDS old. `at_rest`: no request runs, so the metrics
        are read at any age."""
        if self._may_draft and (at_rest or time.monotonic() - self._read_at >= READ_SECONDS):
            self._reason, self._metrics = self._calls.metrics()
            self._read_at = time.monotonic()

    def metrics(self) -> dict[str, float | int | str]:
        """Returns the drafter's last metrics, and whether the engine drafts. May be called from any thread."""
        return {**self._metrics, "drafts": "on" if self.on else f"off: {self._reason}"}
