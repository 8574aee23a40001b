"""Calls the proposer inside vLLM's workers, with types. For the engine's thread, between two steps."""

from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from openseer_worker.engine import DraftNews
from openseer_worker.vllm.drafting.extension import DraftExtension

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class DraftCalls:
    """Calls methods of GroupProposer on all ranks of an engine; returns the results of the rank that drafts."""

    def __init__(self, core: Any) -> None:
        self._core = core

    def start(self) -> None:
        """Gives each rank's proposer its model runner."""
        self._call(DraftExtension.start_drafting)

    def feed(self, news: DraftNews) -> list[int]:
        """Passes `news` on; returns, for each entry of its `tokens`, the number of the response's tokens that the
        drafter has."""
        tokens = [(new.group, new.response_index, new.position, new.tokens) for new in news.tokens]
        return self._call(DraftExtension.feed_drafts, tokens, news.earlier, news.importance, news.released) or []

    def metrics(self) -> tuple[str, dict[str, float]]:
        """Returns the reason why drafting has ended, or "", and the drafter's metrics."""
        found = self._call(DraftExtension.draft_metrics)
        assert found is not None
        reason, metrics = found  # a list if it comes from another process
        return reason, metrics

    def probe(self, rows: int, lengths: list[int], rounds: int) -> None:
        """Begins to measure steps of `rows` rows with random drafts of these lengths, each length `rounds` times."""
        self._call(DraftExtension.probe_steps, rows, lengths, rounds)

    def end_probe(self) -> list[tuple[int, float]]:
        """Ends the measurement; returns (length, median seconds of a step) for each length."""
        return self._call(DraftExtension.end_step_probe) or []

    def learn(self, rows: int, drafted: int, seconds: float) -> None:
        """Reports to the drafter the seconds of a step that verifies `drafted` draft tokens for `rows` rows."""
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
        """Calls a method of the extension on all ranks, by its name: functions cannot be sent between processes."""
        results = self._core.collective_rpc(method.__name__, args=args, kwargs=kwargs)
        return next((result for result in results if result), None)
