"""Displays for commands that wait for an upload, a batch or a weights transaction."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table

from openseer_core.wire.batches import Batch
from openseer_core.wire.weights import Transaction
from openseer_local.terminal.display import Display
from openseer_local.terminal.tables import batches_table, closed_of, eta, transaction_line, transaction_table

T = TypeVar("T")


class BatchDisplay(Display):
    """Shows the number of sent or fetched items, and the batch."""

    def __init__(self, console: Console, live: bool) -> None:
        super().__init__(console, live)
        self._what = ""
        self._count = self._total = 0
        self._batch: Batch | None = None

    def count(self, what: str, items: Iterable[T], total: int) -> Iterator[T]:
        """Yields the items and shows their count."""
        for item in items:
            yield item
            self.note(what, self._count + 1, total)
        self.note("", 0, 0)

    def note(self, what: str, count: int, total: int) -> None:
        """Sets the displayed count and total. `what`: name of the items, "" displays no count."""
        self._what, self._count, self._total = what, count, total

    def show(self, batch: Batch) -> None:
        """Shows the batch's present state."""
        self._batch = batch

    def body(self) -> list[RenderableType]:
        parts: list[RenderableType] = []
        if self._what:
            row = Table.grid(padding=(0, 2))
            bar = ProgressBar(total=max(1, self._total), completed=self._count, width=28)
            row.add_row(bar, f"{self._count:,}/{self._total:,} {self._what}")
            parts.append(row)
        if self._batch is not None:
            parts.append(batches_table([self._batch]))
        return parts

    def line(self) -> str:
        text = f"{self._count:,}/{self._total:,} {self._what}" if self._what else ""
        if self._batch is not None:
            batch = self._batch
            left = f"  ETA {eta(batch)}" if batch.state != "complete" else ""
            closed = f"{closed_of(batch):,}/{batch.metrics.requests:,}"
            text += ("  " if text else "") + f"batch {batch.id}: {closed} responses{left}"
        return f"openseer: {text}" if text else ""


class WeightsDisplay(Display):
    """Shows a transaction with each of its workers; without a terminal, one line per phase. The cause of a failure is
    in the command's error, not here."""

    def __init__(self, console: Console, live: bool) -> None:
        super().__init__(console, live)
        self._transaction: Transaction | None = None
        self._now: float | None = None
        self._last_line = ""

    def show(self, transaction: Transaction, now: float | None) -> None:
        """Shows the transaction's present state. `now`: seconds of the store's clock, if known."""
        if transaction.phase == "failed":
            workers = [worker.model_copy(update={"error": None}) for worker in transaction.workers]
            transaction = transaction.model_copy(update={"message": "", "workers": workers})
        before, self._transaction, self._now = self._transaction, transaction, now
        changed = before is None or (before.phase, before.attempt) != (transaction.phase, transaction.attempt)
        if changed:
            self._printed_at = float("-inf")
        self.tick()

    def body(self) -> list[RenderableType]:
        transaction = self._transaction
        return [transaction_line(transaction, self._now), transaction_table(transaction)] if transaction else []

    def line(self) -> str:
        if self._transaction is None:
            return ""
        text = f"openseer: {transaction_line(self._transaction, self._now).plain}"
        before, self._last_line = self._last_line, text
        return text if text != before else ""


def is_live(*, as_json: bool) -> bool:
    """Whether a display may redraw: standard output is a terminal, and JSON is not requested."""
    return sys.stdout.isatty() and not as_json
