"""Typed calls of the proposer inside vLLM's workers. For the engine's thread, between two steps."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from openseer_worker.engine import DraftNews
from openseer_worker.vllm.drafting.extension import DraftExtension

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class DraftCalls:
    """The methods of GroupProposer, called on all ranks of an engine; results are those of the one rank that drafts."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def start(self) -> None:
        """Gives each rank's proposer its model runner."""
        self._call(DraftExtension.start_drafting)

    def feed(self, news: DraftNews) -> list[int]:
        """Takes news; returns how many tokens are known then of the response of each `tokens`."""
        tokens = [(new.group, new.response_index, new.position, new.tokens) for new in news.tokens]
        return self._call(DraftExtension.feed_drafts, tokens, news.earlier, news.importance, news.released) or []

    def metrics(self) -> tuple[str, dict[str, float]]:
        """Why nothing is drafted any more, or "", and the drafter's metrics."""
        found = self._call(DraftExtension.draft_metrics)
        assert found is not None
        reason, metrics = found  # a list where it came from another process
        return reason, metrics

    def probe(self, rows: int, lengths: list[int], rounds: int) -> None:
        """Begins to measure steps of so many rows, with drafts at random of these lengths, each so many times."""
        self._call(DraftExtension.probe_steps, rows, lengths, rounds)

    def end_probe(self) -> list[tuple[int, float]]:
        """Ends that; for each length the median seconds of a step."""
        return self._call(DraftExtension.end_step_probe) or []

    def learn(self, rows: int, drafted: int, seconds: float) -> None:
        """Teaches the drafter how long a step takes that verifies `drafted` draft tokens for so many rows."""
        self._call(DraftExtension.learn_step, rows, drafted, seconds)

    def switch_off(self, reason: str) -> None:
        """Ends drafting."""
        self._call(DraftExtension.switch_off_drafts, reason)

    def _call(
        self,
        method: Callable[Concatenate[DraftExtension, _Parameters], _Result],
        *args: _Parameters.args,
        **kwargs: _Parameters.kwargs,
    ) -> _Result | None:
        """Calls a method of the extension on all ranks, by its name: no function crosses between processes."""
        results = self._core.collective_rpc(method.__name__, args=args, kwargs=kwargs)
        return next((result for result in results if result), None)
