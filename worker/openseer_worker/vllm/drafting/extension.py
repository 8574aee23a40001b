"""The methods in vLLM's processes through which the engine calls the proposer.

DraftCalls calls them by name through vLLM's collective_rpc, which may serialise arguments and results. So the fields of
DraftNews are passed as plain tuples. The methods return None on the ranks that do not draft.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from openseer_worker.vllm.drafting.proposer import GroupProposer


class DraftExtension:
    """The part of the worker's extension for drafts."""

    def start_drafting(self) -> None:
        """Gives the proposer its model runner; the proposer is in the processes of the last pipeline stage."""
        proposer = _proposer(self)
        if proposer is not None:
            worker: Any = self
            proposer.attach(worker.model_runner)

    def feed_drafts(
        self,
        tokens: list[tuple[str, int, int, bytes]],
        earlier: list[tuple[str, list[bytes]]],
        importance: dict[str, float],
        released: list[str],
    ) -> list[int] | None:
        """Calls GroupProposer.feed; the arguments are the fields of a DraftNews."""
        proposer = _proposer(self)
        if proposer is None:
            return None
        from openseer_worker.engine import DraftNews, DraftTokens

        return proposer.feed(DraftNews([DraftTokens(*new) for new in tokens], earlier, importance, released))

    def draft_metrics(self) -> tuple[str, dict[str, float]] | None:
        """Calls GroupProposer.metrics."""
        proposer = _proposer(self)
        return None if proposer is None else proposer.metrics()

    def probe_steps(self, rows: int, lengths: list[int], rounds: int) -> None:
        """Calls GroupProposer.probe."""
        proposer = _proposer(self)
        if proposer is not None:
            proposer.probe(rows, lengths, rounds)

    def end_step_probe(self) -> list[tuple[int, float]] | None:
        """Calls GroupProposer.end_probe."""
        proposer = _proposer(self)
        return None if proposer is None else proposer.end_probe()

    def learn_step(self, rows: int, drafted: int, seconds: float) -> None:
        """Calls GroupProposer.learn."""
        proposer = _proposer(self)
        if proposer is not None:
            proposer.learn(rows, drafted, seconds)

    def switch_off_drafts(self, reason: str) -> None:
        """Calls GroupProposer.switch_off."""
        proposer = _proposer(self)
        if proposer is not None:
            proposer.switch_off(reason)


def _proposer(worker: Any) -> "GroupProposer | None":
    """Returns the proposer of a vLLM worker; None in a process without a proposer."""
    return getattr(worker.model_runner, "drafter", None)
