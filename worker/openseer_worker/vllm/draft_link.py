"""The engine's side of drafting: starts the proposer within vLLM, hands news to it and reads its figures.

All of it but `figures` is for the engine's thread, between two steps.
"""

# vLLM carries few types: what comes from it is Any here.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import time
from typing import Any

from openseer_core.manifest.job import Sampling
from openseer_worker.engine import DraftNews, EngineProfile
from openseer_worker.vllm import step_profile

READ_SECONDS = 1.0
"""Figures are read no more often than this."""


class DraftLink:
    """Drafting in one engine. `reason`: why it does not draft; empty when it is to."""

    def __init__(self, core: Any, reason: str) -> None:
        self.built = not reason
        """Whether vLLM was built for drafts: then it verifies them in a way of its own."""
        self._core = core
        self._reason = reason
        self._figures: dict[str, float] = {}
        self._read_at = 0.0

    @property
    def on(self) -> bool:
        """Whether the engine drafts."""
        return not self._reason

    def start(self, inputs: Any, profile: EngineProfile, sampling: Sampling, most: int) -> None:
        """Begins to draft, once it is measured what verifying costs; where it cannot pay, it ends at once.

        vLLM stays built for drafts then: without any it is as fast as without the option.
        """
        self._core.collective_rpc("start_drafting")
        costs = step_profile.measure(self._core, inputs, profile, sampling, most)
        for (rows, length), seconds in costs.items():
            self._ask("learn", rows, rows * length, seconds)
        gain = step_profile.best_gain(costs)
        if gain < step_profile.WORTH_IT:
            told = f"even drafts that are all accepted would make this engine only {gain:.2f} times as fast"
            self._ask("switch_off", told)
        self.read(at_rest=True)

    def feed(self, news: DraftNews) -> list[int]:
        """Hands news over; tokens known then of each row's response."""
        return self._ask("feed", news.rows, news.earlier, news.importance, news.released) or []

    def read(self, *, at_rest: bool) -> None:
        """Takes the drafter's figures anew, if they are old enough or nothing runs any more."""
        if self.built and (at_rest or time.monotonic() - self._read_at >= READ_SECONDS):
            self._reason, self._figures = self._ask("figures")
            self._read_at = time.monotonic()

    def figures(self) -> dict[str, float | int | str]:
        """The drafter's counters as of late, and whether the engine drafts; from any thread."""
        return {**self._figures, "drafts": "on" if self.on else f"off: {self._reason}"}

    def _ask(self, method: str, *values: Any) -> Any:
        """The answer of the one rank that drafts."""
        answers = self._core.collective_rpc("ask_drafter", args=(method, *values))
        return next((answer for answer in answers if answer), None)
