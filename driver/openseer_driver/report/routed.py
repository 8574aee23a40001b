"""How many rows of routed experts the results of a run have, and lack."""

from collections.abc import Iterable

import msgspec

from openseer_driver.report.trace import Fact


class RowCounts(msgspec.Struct, frozen=True):
    """`expected`: rows that results of a run with capture should have; `missing`: of these, in so many `responses`."""

    expected: int
    missing: int
    responses: int

    @property
    def text(self) -> str:
        """In a line's words."""
        if not self.missing:
            return f"all {self.expected:,} rows of routed experts"
        return f"{self.missing:,} of {self.expected:,} rows of routed experts missing, in {self.responses:,} responses"


def count_rows(facts: Iterable[Fact]) -> RowCounts | None:
    """Of all results; None where none has any."""
    found = [fact.rows for fact in facts if fact.rows is not None]
    if not found:
        return None
    gaps = [rows.gaps for rows in found if rows.gaps]
    return RowCounts(sum(rows.expected for rows in found), sum(gaps), len(gaps))
