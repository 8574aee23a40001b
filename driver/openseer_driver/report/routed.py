"""Counts the expected and the missing rows of routed experts in the results of a run."""

from collections.abc import Iterable

import msgspec

from openseer_driver.report.trace import Fact


class RowCounts(msgspec.Struct, frozen=True):
    """Numbers of rows in all results: `expected`, `missing`. `responses`: number of responses with missing rows."""

    expected: int
    missing: int
    responses: int

    @property
    def text(self) -> str:
        """The counts as text."""
        if not self.missing:
            return f"all {self.expected:,} rows of routed experts"
        return f"{self.missing:,} of {self.expected:,} rows of routed experts missing, in {self.responses:,} responses"


def count_rows(facts: Iterable[Fact]) -> RowCounts | None:
    """The counts over all results; None if no result has rows."""
    found = [fact.rows for fact in facts if fact.rows is not None]
    if not found:
        return None
    gaps = [rows.gaps for rows in found if rows.gaps]
    return RowCounts(sum(rows.expected for rows in found), sum(gaps), len(gaps))
