"""Formats a worker's drafting as a cell of a table and as notes below it."""

from collections.abc import Iterable

from rich.text import Text

from openseer_core.worker.draft_metrics import DraftMetrics


def draft_cell(drafting: str, counts: DraftMetrics) -> str:
    """Mean tokens that a request gains per step; before the first step "on" or "off"; "–" if not reported."""
    if counts.request_steps:
        return f"{counts.acceptance_length:.2f}"
    return drafting.split(":", 1)[0] or "–"


def draft_notes(states: Iterable[str]) -> list[Text]:
    """The reasons why workers do not draft, each once."""
    reasons = sorted({state.partition(": ")[2] for state in states if state.startswith("off: ")})
    return [Text(f"no drafts: {reason}", style="dim") for reason in reasons]
