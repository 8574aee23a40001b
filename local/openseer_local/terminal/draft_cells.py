"""How a worker's drafting looks in a table."""

from collections.abc import Iterable

from rich.text import Text

from openseer_core.worker.draft_metrics import DraftMetrics


def draft_cell(said: str, counts: DraftMetrics) -> str:
    """Mean tokens that a request gains in a step; that it drafts, while nothing is known; that it does not."""
    if counts.request_steps:
        return f"{counts.acceptance_length:.2f}"
    return said.split(":", 1)[0] or "–"


def draft_notes(said: Iterable[str]) -> list[Text]:
    """Why workers do not draft, each reason once."""
    reasons = sorted({one.partition(": ")[2] for one in said if one.startswith("off: ")})
    return [Text(f"no drafts: {reason}", style="dim") for reason in reasons]
