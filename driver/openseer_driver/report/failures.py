"""Counts failed responses by reason, in a stream with bounded memory."""

import re
from collections.abc import Sequence
from itertools import chain, zip_longest

import msgspec

from openseer_core.queue.states import Status

MOST_REASONS = 100
"""Limit of distinct reasons; responses with further reasons are only counted."""
MOST_EXAMPLES = 5
"""Limit of groups listed for one reason."""
LONGEST_REASON = 500
"""Limit of a reason's length, in characters."""
SHOWN_REASONS = 5
"""Limit of reasons in the text."""
VARIES = "…"
"""Replaces a number in which the texts of one reason differ."""
UNKNOWN = "the result has no reason"

_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


class FailedResponse(msgspec.Struct, frozen=True):
    """One failed response and its reason."""

    group: str
    index: int
    reason: str


class FailureReason(msgspec.Struct, frozen=True):
    """`count` responses that failed for one reason. In `reason`, "…" replaces each number in which their texts differ.

    `examples`: one response of each of the first groups, in the order of names; `more_groups`: whether there are
    further groups.
    """

    reason: str
    count: int
    examples: tuple[FailedResponse, ...]
    more_groups: bool = False

    @property
    def line(self) -> str:
        """The reason and its groups."""
        names = [example.group for example in self.examples] + [VARIES] * self.more_groups
        return f"{self.reason} ({', '.join(names)})"


class Failures(msgspec.Struct, frozen=True):
    """Number of failed responses out of `responses`, by reason, the most frequent reason first. `others`: number with
    reasons beyond MOST_REASONS."""

    responses: int = 0
    failed: int = 0
    reasons: tuple[FailureReason, ...] = ()
    others: int = 0

    @property
    def text(self) -> str:
        """The failures as text: one line for one reason, else a heading and a line per reason; "" without failures."""
        if not self.failed:
            return ""
        head = f"{self.failed:,} of {self.responses:,} failed"
        if len(self.reasons) == 1 and not self.others:
            return f"{head}: {self.reasons[0].line}"
        shown = self.reasons[:SHOWN_REASONS]
        lines = [f"{reason.count:,}: {reason.line}" for reason in shown]
        rest = self.failed - sum(reason.count for reason in shown)
        lines += [f"{rest:,}: see the stop_reason of their results"] if rest else []
        return "\n  ".join([head, *lines])


NO_FAILURES = Failures()


class FailureCount:
    """Counts results one by one."""

    def __init__(self) -> None:
        self._responses = self._failed = self._others = 0
        self._kinds: dict[tuple[str, ...], _Kind] = {}

    def take(self, status: str, group: str, index: int, reason: str | None) -> None:
        """Counts one result. `reason`: of a failed result."""
        self._responses += 1
        if status != Status.INFRA_FAILED:
            return
        self._failed += 1
        text = " ".join((reason or UNKNOWN)[:LONGEST_REASON].split())
        parts = _NUMBER.split(text)
        words, numbers = tuple(parts[::2]), parts[1::2]
        kind = self._kinds.get(words)
        if kind is None:
            if len(self._kinds) == MOST_REASONS:
                self._others += 1
                return
            kind = self._kinds[words] = _Kind(words, numbers)
        kind.take(group, index, text, numbers)

    def counted(self) -> Failures:
        """The counts so far."""
        reasons = sorted((kind.counted() for kind in self._kinds.values()), key=lambda kind: (-kind.count, kind.reason))
        return Failures(self._responses, self._failed, tuple(reasons), self._others)


class _Kind:
    """Counts one reason. `words`, `numbers`: alternating parts of its text; VARIES replaces numbers that differ."""

    def __init__(self, words: Sequence[str], numbers: Sequence[str]) -> None:
        self._words, self._numbers = words, numbers
        self._count, self._more = 0, False
        self._examples: dict[str, FailedResponse] = {}
        self._last = ""

    def take(self, group: str, index: int, text: str, numbers: Sequence[str]) -> None:
        self._count += 1
        if numbers != self._numbers:
            self._numbers = [own if own == new else VARIES for own, new in zip(self._numbers, numbers, strict=True)]
        known = self._examples.get(group)
        if known is not None and index >= known.index:
            return
        if known is None and len(self._examples) == MOST_EXAMPLES:
            self._more = True
            if _by_name(group) > _by_name(self._last):
                return
            del self._examples[self._last]
        self._examples[group] = FailedResponse(group, index, text)
        self._last = max(self._examples, key=_by_name)

    def counted(self) -> FailureReason:
        parts = chain.from_iterable(zip_longest(self._words, self._numbers, fillvalue=""))
        examples = sorted(self._examples.values(), key=lambda example: _by_name(example.group))
        return FailureReason("".join(parts), self._count, tuple(examples), self._more)


def _by_name(group: str) -> tuple[int, str]:
    """Sort key: shorter names first, so that line-2 is before line-10."""
    return len(group), group
